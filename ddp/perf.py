"""What `ring ddp allreduce` and the benchmark measure, on one rank: nccl-tests' all_reduce_perf.

    algbw = bytes / time              busbw = algbw · 2(P-1)/P

busbw does not depend on the algorithm: it is what the links would have to carry at least. Time is
the mean of `iterations` rounds of calls between two barriers, of the slowest rank unless `merge` is
told otherwise; `wrong` counts elements that differ in any bit from what must come out; and rounds,
bytes and fan-in are counted by the executors, not taken from a formula.

A group adds in place. So "out of place" is what somebody pays here who wants to keep the input: a
copy, and a call.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ddp import verifiable
from ddp.elements import TYPES, Array
from ddp.group import Group
from ddp.schedules.catalogue import schedule_of

KINDS: Final = ("out_of_place", "in_place")

# Whose time counts, of all ranks', under nccl-tests' names.
AVERAGES: Final[dict[str, Callable[[Sequence[float]], float]]] = {
    "rank0": lambda times: times[0],
    "avg": statistics.fmean,
    "min": min,
    "max": max,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How each size is measured.

    aggregate: calls that are started before the first is waited for; a time is of one of them.
    unalign: elements by which vectors begin after a boundary.
    """

    dtype: str = "float32"
    op: str = "sum"
    algorithm: str = "auto"
    iterations: int = 20
    warmup: int = 1
    check: bool = True
    aggregate: int = 1
    unalign: int = 0


def measure(group: Group, *, sizes: list[int], cycles: int = 1, **options: Any) -> dict[str, Any]:
    """A row a size (bytes), `cycles` times; every rank returns its own view, `merge` makes one of
    them. `options` are those of Plan."""
    plan = Plan(**options)
    rows = [_row(group, nbytes, plan) for _ in range(cycles) for nbytes in sizes]
    group.barrier()
    dump = group.fabric.dump()
    return {
        "rank": group.rank,
        "pid": os.getpid(),
        "host": platform.node(),
        "fabric": group.fabric.name,
        "model": group.explain(sizes[-1]) if plan.algorithm == "auto" else "",
        "rows": rows,
        "recorder": dump,
    }


def measure_cases(group: Group, cases: list[list[int]]) -> dict[str, Any]:
    """`measure` with a number of calls of its own for each size; [[bytes, calls], …]."""
    found = [measure(group, sizes=[size], iterations=calls, warmup=2) for size, calls in cases]
    return {**found[0], "rows": [row for each in found for row in each["rows"]]}


def _row(group: Group, nbytes: int, plan: Plan) -> dict[str, Any]:
    count = nbytes // TYPES[plan.dtype].itemsize
    data = verifiable.inputs(plan.dtype, plan.op, count, group.rank, group.size)
    results = [_vector(count, data, plan.unalign) for _ in range(plan.aggregate)]
    row: dict[str, Any] = {"size": data.nbytes, "count": count}
    for _ in range(plan.warmup):
        _call(group, results, plan)
    for kind in KINDS:
        source = data if kind == "out_of_place" else None
        times = []
        group.barrier()
        for _ in range(plan.iterations):
            began = time.perf_counter()
            _call(group, results, plan, source)
            times.append((time.perf_counter() - began) / plan.aggregate)
        row[kind] = {"mean": statistics.fmean(times), "times": times}
    for kind in KINDS:  # the first is poisoned: what is not written is not right
        for result in results:
            result[...] = data if kind == "in_place" else 0
        _call(group, results, plan, data if kind == "out_of_place" else None)
        row[kind]["found"] = [result.copy() for result in results] if plan.check else []
    record = group.fabric.engine.recorder.records[-1]
    row |= {"rounds": record.rounds, "sent": record.sent, "fan_in": record.fan_in}
    row["algorithm"] = record.call.rsplit(", ", 1)[-1].rstrip(")")
    row["at"] = time.time()
    _verify(row, group, count, plan)
    return row


def _vector(count: int, like: Array, unalign: int) -> Array:
    """Room for `count` elements, so many elements behind where it would begin."""
    return np.zeros(count + unalign, like.dtype)[unalign:]


def _call(group: Group, results: list[Array], plan: Plan, source: Array | None = None) -> None:
    """Add up all of these at once; `source` goes into each before."""
    options: dict[str, Any] = {"op": plan.op, "algorithm": plan.algorithm, "dtype": plan.dtype}
    if source is not None:
        for result in results:
            np.copyto(result, source)
    if len(results) == 1:
        group.allreduce(results[0], **options)
        return
    works = [group.start("allreduce", result, **options) for result in results]
    for work in works:
        work.wait()


def _verify(row: dict[str, Any], group: Group, count: int, plan: Plan) -> None:
    """How many elements are wrong, of each kind."""
    schedule = schedule_of("allreduce", row["algorithm"], group.size)
    for kind in KINDS:
        found = row[kind].pop("found")
        if plan.check:
            wanted = verifiable.expected(
                plan.dtype, plan.op, count, schedule.contributors, group.size
            )
            row[kind]["wrong"] = sum(verifiable.wrong(each, wanted) for each in found)


def merge(ranks: list[dict[str, Any]], average: str = "max") -> list[dict[str, Any]]:
    """All ranks' rows as one table: the most rounds, bytes and fan-in; times as `average` says
    (of AVERAGES), the slowest rank's if it does not."""
    size = len(ranks)
    merged = []
    for rows in zip(*(rank["rows"] for rank in ranks), strict=True):
        row = {key: rows[0][key] for key in ("size", "count", "algorithm", "at")}
        for kind in KINDS:
            each = zip(*(r[kind]["times"] for r in rows), strict=True)
            times = [AVERAGES[average](of_all) for of_all in each]
            mean = AVERAGES[average]([r[kind]["mean"] for r in rows])
            row[kind] = _figures(mean, times, row["size"], size)
            counts = [r[kind]["wrong"] for r in rows if "wrong" in r[kind]]
            row[kind]["wrong"] = sum(counts) if counts else None
        row["rounds"] = max(r["rounds"] for r in rows)
        row["sent_max"] = max(r["sent"] for r in rows)
        row["sent_mean"] = sum(r["sent"] for r in rows) / size
        row["fan_in"] = max(r["fan_in"] for r in rows)
        merged.append(row)
    return merged


def _figures(mean: float, times: list[float], nbytes: int, size: int) -> dict[str, Any]:
    """Of one kind: microseconds and GB/s."""
    ordered = sorted(times)
    algbw = nbytes / mean / 1e9
    return {
        "time": mean * 1e6,
        "alg_bw": algbw,
        "bus_bw": algbw * 2 * (size - 1) / size,
        "median": statistics.median(ordered) * 1e6,
        "best": ordered[0] * 1e6,
        "worst": ordered[-1] * 1e6,
        "p99": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1e6,
        "cv": 100 * statistics.pstdev(ordered) / mean,  # percent
    }
