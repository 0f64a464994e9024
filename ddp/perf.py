"""What `ring ddp allreduce` and the benchmark measure, on one rank: nccl-tests' all_reduce_perf.

    algbw = bytes / time              busbw = algbw · 2(P-1)/P

busbw does not depend on the algorithm: it is what the links would have to carry at least. Time is
the mean of `iterations` calls between two barriers, the slowest rank's; `wrong` counts elements
that differ in any bit from what must come out; and rounds, bytes and fan-in are counted by the
executors, not taken from a formula.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

from ddp import verifiable
from ddp.elements import TYPES
from ddp.group import Group
from ddp.schedules.catalogue import schedule_of


def measure(
    group: Group,
    *,
    sizes: list[int],
    dtype: str = "float32",
    op: str = "sum",
    algorithm: str = "auto",
    iterations: int = 20,
    warmup: int = 1,
    check: bool = True,
) -> dict[str, Any]:
    """One row a size (bytes); every rank returns its own view, `merge` makes one of them."""
    rows = []
    for nbytes in sizes:
        count = nbytes // TYPES[dtype].itemsize
        rows.append(_row(group, count, dtype, op, algorithm, iterations, warmup, check))
    group.barrier()
    dump = group.fabric.dump()
    return {
        "rank": group.rank,
        "fabric": group.fabric.name,
        "model": group.explain(sizes[-1]) if algorithm == "auto" else "",
        "rows": rows,
        "recorder": dump,
    }


def measure_cases(group: Group, cases: list[list[int]]) -> dict[str, Any]:
    """`measure` with a number of calls of its own for each size; [[bytes, calls], …]."""
    found = [measure(group, sizes=[size], iterations=calls, warmup=2) for size, calls in cases]
    return {**found[0], "rows": [row for each in found for row in each["rows"]]}


def _row(
    group: Group,
    count: int,
    dtype: str,
    op: str,
    algorithm: str,
    iterations: int,
    warmup: int,
    check: bool,
) -> dict[str, Any]:
    data = verifiable.inputs(dtype, op, count, group.rank, group.size)
    result = data.copy()
    options: dict[str, Any] = {"op": op, "algorithm": algorithm, "dtype": dtype}
    row: dict[str, Any] = {"size": data.nbytes, "count": count}
    for _ in range(warmup):
        group.allreduce(result, **options)
    for kind in ("out_of_place", "in_place"):
        times = []
        group.barrier()
        for _ in range(iterations):
            began = time.perf_counter()
            if kind == "out_of_place":
                np.copyto(result, data)
            group.allreduce(result, **options)
            times.append(time.perf_counter() - began)
        row[kind] = {"mean": statistics.fmean(times), "times": times}
    np.copyto(result, data)
    group.allreduce(result, **options)
    record = group.fabric.engine.recorder.records[-1]
    row |= {"rounds": record.rounds, "sent": record.sent, "fan_in": record.fan_in}
    row["algorithm"] = record.call.rsplit(", ", 1)[-1].rstrip(")")
    if check:
        schedule = schedule_of("allreduce", row["algorithm"], group.size)
        wanted = verifiable.expected(dtype, op, count, schedule.contributors, group.size)
        row["wrong"] = verifiable.wrong(result, wanted)
    return row


def merge(ranks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All ranks' rows as one table: the slowest rank's time, the most rounds, bytes and fan-in."""
    size = len(ranks)
    factor = 2 * (size - 1) / size
    merged = []
    for rows in zip(*(rank["rows"] for rank in ranks), strict=True):
        row = {key: rows[0][key] for key in ("size", "count", "algorithm")}
        for kind in ("out_of_place", "in_place"):
            seconds = max(r[kind]["mean"] for r in rows)
            slowest = [max(times) for times in zip(*(r[kind]["times"] for r in rows), strict=True)]
            algbw = row["size"] / seconds / 1e9
            row[kind] = {
                "time": seconds * 1e6,
                "alg_bw": algbw,
                "bus_bw": algbw * factor,
                "median": statistics.median(slowest) * 1e6,
                "best": min(slowest) * 1e6,
                "p99": sorted(slowest)[min(len(slowest) - 1, int(len(slowest) * 0.99))] * 1e6,
            }
        row["rounds"] = max(r["rounds"] for r in rows)
        row["sent_max"] = max(r["sent"] for r in rows)
        row["sent_mean"] = sum(r["sent"] for r in rows) / size
        row["fan_in"] = max(r["fan_in"] for r in rows)
        row["wrong"] = sum(r["wrong"] for r in rows) if "wrong" in rows[0] else None
        merged.append(row)
    return merged
