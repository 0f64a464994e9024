"""`ring ddp allreduce`: nccl-tests' all_reduce_perf, between processes that have no GPU.

It takes the flags of all_reduce_perf and prints its header, its table and its JSON, with three
columns more: rounds, bytes sent by the busiest rank, and fan-in, as counted while it ran. Flags
that only have a meaning for a GPU are taken and change nothing; --help says which.
"""

from __future__ import annotations

import json as json_
import os
import re
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from cluster import render
from cluster.errors import RingError, Unhealthy, Usage

Begin = Annotated[str, Option("-b", "--minbytes", help="Smallest size: 4K, 1M.")]
End = Annotated[str, Option("-e", "--maxbytes", help="Largest; -b if not given.")]
StepBytes = Annotated[str, Option("-i", "--stepbytes", help="Added from size to size.")]
Factor = Annotated[int, Option("-f", "--stepfactor", help="Or multiplied by.")]
Iterations = Annotated[int, Option("-n", "--iters", min=1, help="Calls a size.")]
Warmup = Annotated[int, Option("-w", "--warmup_iters", min=0, help="Not timed.")]
Check = Annotated[int, Option("-c", "--check", help="0: do not compare results.")]
Op = Annotated[str, Option("-o", "--op", help="sum, product, min, max, mean; all.")]
Type = Annotated[str, Option("-d", "--datatype", help="float32, float, …; all.")]
JsonFile = Annotated[str, Option("-J", "--json-file", help="Write JSON here.")]
Timeout = Annotated[float, Option("-T", "--timeout", help="Seconds a call may take.")]
_AGGREGATE = "Calls started before the first is waited for, each on a vector of its own."
Aggregate = Annotated[int, Option("-m", "--agg_iters", min=1, max=64, help=_AGGREGATE)]
_AVERAGE = "Whose time counts: 0 rank 0's, 1 the mean, 2 the least, 3 the slowest rank's."
Average = Annotated[int, Option("-a", "--average", min=0, max=3, help=_AVERAGE)]
Cycles = Annotated[int, Option("-N", "--run_cycles", min=1, help="The whole table so many times.")]
Stamps = Annotated[bool, Option("-S", "--report_timestamps", help="When each row was done.")]
Spread = Annotated[bool, Option("-I", "--per_iteration", help="Min, max, p99, cv% of the calls.")]
_UNALIGN = "Vectors begin so many elements later."
Unalign = Annotated[int, Option("-u", "--unalign", min=0, help=_UNALIGN)]
_ROOT = "No meaning here: an allreduce has no root."
Root = Annotated[str, Option("-r", "--root", help=_ROOT)]
_BLOCKING = "No meaning here: there is no stream to wait for; -m starts several calls."
Blocking = Annotated[int, Option("-z", "--blocking", min=0, max=3, help=_BLOCKING)]
Ranks = Annotated[int, Option("--ranks", "-P", help="Ranks, each a process.")]
Algorithm = Annotated[str, Option("--algorithm", "-A", help="A name, or auto, or all.")]
Transport = Annotated[str, Option(help="auto (shared memory on one host), shared, network.")]
_HOSTS = "As if the ranks lived on so many hosts: memory inside each, netstack between them."
Hosts = Annotated[int, Option("--hosts", min=1, help=_HOSTS)]
Trace = Annotated[str, Option(help="Write a chrome trace of all ranks here.")]
Live = Annotated[bool, Option("--live", help="On the cluster's ddp workers.")]
Json = Annotated[bool, Option("--json", help="Print JSON on stdout.")]

# nccl-tests' names of types and reductions.
TYPE_NAMES = {"half": "float16", "float": "float32", "double": "float64", "int": "int32"}
TYPE_NAMES |= {"uint": "uint32"}
OP_NAMES = {"avg": "mean", "prod": "product"}
# -a, by number.
AVERAGES = ("rank0", "avg", "min", "max")

HEAD = "# %10s  %12s  %8s  %6s  %6s  %7s  %6s  %6s  %6s  %7s  %6s  %6s  %6s  %6s  %10s  %6s"

BOTH = ("out_of_place", "in_place")

Runner = Callable[[dict[str, Any]], list[dict[str, Any]]]


def size_of(text: str) -> int:
    """`4K`, `1M`, `100000000`: bytes; raises Usage."""
    found = re.fullmatch(r"(\d+)([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not found:
        raise Usage(f"{text!r} is no size; write 4096, 4K, 1M or 1G")
    power = " KMG".index(found[2].upper() or " ")
    return int(found[1]) << (10 * power)


def sizes(begin: str, end: str, step: str, factor: int) -> list[int]:
    """The sizes of one table, as nccl-tests makes them."""
    low, high, add = size_of(begin), size_of(end or begin), size_of(step) if step else 0
    if high < low:
        raise Usage(f"the largest size, {end}, is below the smallest, {begin}")
    if factor < 2 and not add:
        raise Usage("-f is 2 or more: each size is so many times the one before")
    found = [low]
    while (size := found[-1] + add if add else found[-1] * factor) <= high and found[-1] > 0:
        found.append(size)
    return found


class RanksFailed(RingError):
    """A rank ended before its time."""

    status, name = 1, "RING_UNHEALTHY"


def allreduce(
    begin: Begin = "32M",
    end: End = "",
    step: StepBytes = "",
    factor: Factor = 2,
    iterations: Iterations = 20,
    warmup: Warmup = 1,
    check: Check = 1,
    op: Op = "sum",
    dtype: Type = "float32",
    json_file: JsonFile = "",
    timeout: Timeout = 30,
    aggregate: Aggregate = 1,
    average: Average = 3,
    cycles: Cycles = 1,
    stamps: Stamps = False,
    spread: Spread = False,
    unalign: Unalign = 0,
    root: Root = "0",
    blocking: Blocking = 0,
    ranks: Ranks = 2,
    algorithm: Algorithm = "auto",
    transport: Transport = "auto",
    hosts: Hosts = 1,
    trace: Trace = "",
    live: Live = False,
    json: Json = False,
) -> None:
    """Time and verify allreduce: nccl-tests' all_reduce_perf, and its rounds and bytes."""
    from ddp.client import DdpError, chrome_trace

    settings = {"sizes": sizes(begin, end, step, factor), "cycles": cycles, "unalign": unalign}
    settings |= {"iterations": iterations, "warmup": warmup, "aggregate": aggregate}
    settings["check"] = bool(check)
    if hosts > 1 and (live or transport != "auto"):
        raise Usage("--hosts is for ranks that are started here, and find out who is where")
    if hosts > ranks:
        raise Usage(f"{ranks} ranks do not live on {hosts} hosts")
    run = _on_workers if live else partial(_in_processes, ranks, transport, timeout, hosts)
    try:
        found, dumps = _measure(run, _cases(dtype, op), algorithm, settings, average)
    except DdpError as error:
        raise RanksFailed(str(error)) from None
    step_text = f"{size_of(step)}(bytes)" if step else f"{factor}(factor)"
    columns = [name for name, wanted in (("spread", spread), ("stamps", stamps)) if wanted]
    if json_file:
        Path(json_file).write_text(json_.dumps(found, indent=2), encoding="utf-8")
    if json:
        render.as_json(found)
    else:
        _print(found, settings, step_text, columns)
    if trace:
        Path(trace).write_text(json_.dumps(chrome_trace(dumps)), encoding="utf-8")
        render.say(f"trace {trace}: open it in chrome://tracing or https://ui.perfetto.dev")
    if found["out_of_bounds"]:
        raise Unhealthy(f"{found['out_of_bounds']} elements are wrong")
    least = float(os.environ.get("NCCL_TESTS_MIN_BW", "0"))
    if found["average_bus_bandwidth"] < 0.9 * least:
        raise Unhealthy(f"the average bus bandwidth is below 0.9 × NCCL_TESTS_MIN_BW = {least}")


def _measure(
    run: Runner,
    cases: list[tuple[str, str]],
    algorithm: str,
    settings: dict[str, Any],
    average: int,
) -> tuple[dict[str, Any], list[Any]]:
    """The report, and the flight recorders of all ranks; raises DdpError."""
    from ddp.client import ALLREDUCE, check_reduction, perf_rows

    for type_, reduction in cases:
        check_reduction(reduction, type_)
    rows: list[dict[str, Any]] = []
    dumps: list[Any] = []
    for name in list(ALLREDUCE) if algorithm == "all" else [algorithm]:
        for type_, reduction in cases:
            how = {"dtype": type_, "op": reduction, "algorithm": name}
            found = run(settings | how)
            dumps += [rank["recorder"] for rank in found]
            merged = perf_rows(found, AVERAGES[average])
            rows += [_as_nccl(row, type_, reduction) for row in merged]
    report = {
        "ranks": len(found),
        "fabric": found[0]["fabric"],
        "devices": [{key: rank[key] for key in ("rank", "pid", "host")} for rank in found],
        "auto": found[0]["model"],
        "results": rows,
        "average_bus_bandwidth": _average(rows),
        "out_of_bounds": sum(row[kind]["nwrong"] or 0 for row in rows for kind in BOTH),
    }
    return report, dumps


def _cases(dtype: str, op: str) -> list[tuple[str, str]]:
    from ddp.client import FLOATS, OPS, TYPES

    types = [t for t in TYPES if t != "uint8"] if dtype == "all" else [TYPE_NAMES.get(dtype, dtype)]
    ops = list(OPS) if op == "all" else [OP_NAMES.get(op, op)]
    for name, known in ((types[0], TYPES), (ops[0], OPS)):
        if name not in known:
            raise Usage(f"there is no {name}; there are {', '.join(known)}, all")
    pairs = [(t, o) for t in types for o in ops if o != "mean" or t in FLOATS]
    if not pairs:
        raise Usage(f"a mean of {dtype} is no {dtype}")
    return pairs


def _in_processes(
    ranks: int, transport: str, timeout: float, hosts: int, arguments: dict[str, Any]
) -> list[dict[str, Any]]:
    from ddp.client import Launch

    where = [str(rank * hosts // ranks) for rank in range(ranks)] if hosts > 1 else ()
    with Launch(
        ranks,
        "ddp.perf:measure",
        arguments,
        transport=transport,
        timeout_s=timeout,
        quiet=True,
        hosts=where,
    ) as launch:
        return launch.results()


def _on_workers(arguments: dict[str, Any]) -> list[dict[str, Any]]:
    from cluster import topology
    from ddp.client import run_on_workers

    home = topology.home()
    topology.load(home)
    return run_on_workers(home / "cluster.toml", "allreduce-perf", arguments, timeout_s=600.0)


def _as_nccl(row: dict[str, Any], dtype: str, op: str) -> dict[str, Any]:
    """A row under nccl-tests' names."""
    found: dict[str, Any] = {
        "size": row["size"],
        "count": row["count"],
        "type": dtype,
        "redop": op,
        "root": -1,
        "timestamp": row["at"],
        "algorithm": row["algorithm"],
        "rounds": row["rounds"],
        "bytes_max": row["sent_max"],
        "bytes_mean": row["sent_mean"],
        "fan_in": row["fan_in"],
    }
    for kind in BOTH:
        found[kind] = {**row[kind]}
        found[kind]["nwrong"] = found[kind].pop("wrong")
    return found


def _average(rows: list[dict[str, Any]]) -> float:
    found: list[float] = [row[kind]["bus_bw"] for row in rows for kind in BOTH]
    return sum(found) / len(found)


def _print(report: dict[str, Any], settings: dict[str, Any], step: str, columns: list[str]) -> None:
    _print_head(report, settings, step)
    both = ("", "", "", "", "", "out-of-place", "", "", "", "in-place", "", "", "", "", "", "")
    print((HEAD % both).rstrip())
    names = ("time", "algbw", "busbw", "#wrong")
    more = ("rounds", "max sent", "fan-in")
    head = HEAD % ("size", "count", "type", "redop", "root", *names, *names, *more) + "  algorithm"
    print(head + "".join(EXTRA_HEADS[name] for name in columns))
    units = ("(us)", "(GB/s)", "(GB/s)", "")
    print((HEAD % ("(B)", "(elements)", "", "", "", *units, *units, "", "(B)", "")).rstrip())
    for row in report["results"]:
        cells = []
        for kind in BOTH:
            found = row[kind]
            wrong = "N/A" if found["nwrong"] is None else found["nwrong"]
            speeds = (f"{found['alg_bw']:.2f}", f"{found['bus_bw']:.2f}")
            cells += [f"{found['time']:.1f}", *speeds, wrong]
        first = (row["size"], row["count"], row["type"][:8], row["redop"][:6], row["root"])
        last = (row["rounds"], row["bytes_max"], row["fan_in"])
        line = HEAD.replace("#", " ", 1) % (*first, *cells, *last) + f"  {row['algorithm']}"
        print(line + "".join(_extra(row, name) for name in columns))
    verdict = "OK" if not report["out_of_bounds"] else "FAILED"
    print(f"# Out of bounds values : {report['out_of_bounds']} {verdict}")
    print(f"# Avg bus bandwidth    : {report['average_bus_bandwidth']:.4f}")


# Columns that a flag adds: of the calls in place, and when the row was done.
EXTRA_HEADS = {
    "spread": "  " + " ".join(f"{name:>9}" for name in ("min(us)", "max(us)", "p99(us)", "cv(%)")),
    "stamps": "  timestamp",
}


def _extra(row: dict[str, Any], column: str) -> str:
    if column == "stamps":
        return "  " + datetime.fromtimestamp(row["timestamp"]).isoformat(" ", "seconds")
    figures = (row["in_place"][name] for name in ("best", "worst", "p99", "cv"))
    return "  " + " ".join(f"{figure:9.1f}" for figure in figures)


def _print_head(report: dict[str, Any], settings: dict[str, Any], step: str) -> None:
    """What nccl-tests says before its table: who takes part, where; and why `auto` chose."""
    sizes_, how = settings["sizes"], settings
    print("# Collective test starting: allreduce")
    print(
        f"# ranks {report['ranks']} over {report['fabric']} minBytes {sizes_[0]} "
        f"maxBytes {sizes_[-1]} step: {step} warmup iters: {how['warmup']} "
        f"iters: {how['iterations']} agg iters: {how['aggregate']} validation: {int(how['check'])}"
    )
    print("#\n# Using devices")
    for device in report["devices"]:
        where = f"{device['host']:>10} device  - [cpu]"
        print(f"#  Rank {device['rank']:2} Group  0 Pid {device['pid']:6} on {where}")
    if report["auto"]:
        print(f"#\n# auto: {report['auto']}")
    print("#")
