"""`ring ddp …`: collectives between ranks, measured and explained.

`allreduce` takes the flags of nccl-tests' all_reduce_perf and prints its table and its JSON, with
three columns more: rounds, bytes sent by the busiest rank, and fan-in, as counted while it ran.
"""

from __future__ import annotations

import json as json_
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster import render
from cluster.cli import ddp_roofline, ddp_train
from cluster.errors import RingError, Unhealthy, Usage

app = typer.Typer(no_args_is_help=True, help="Collectives (allreduce) and distributed training.")
for command in (ddp_train.train, ddp_train.bubble, ddp_train.stale, ddp_roofline.roofline):
    app.command()(command)

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Ranks = Annotated[int, typer.Option("--ranks", "-P", help="Ranks, each a process.")]
Algorithm = Annotated[str, typer.Option("--algorithm", "-A", help="A name, or auto, or all.")]
Transport = Annotated[str, typer.Option(help="auto (shared memory on one host), shared, network.")]

HEAD = "# %10s  %12s  %8s  %6s  %6s  %7s  %6s  %6s  %6s  %7s  %6s  %6s  %6s  %6s  %10s  %6s"


Runner = Callable[[int, dict[str, Any], str, float], list[dict[str, Any]]]


class RanksFailed(RingError):
    """A rank ended before its time."""

    status, name = 1, "RING_UNHEALTHY"


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


@app.command()
def allreduce(
    begin: Annotated[str, typer.Option("-b", "--minbytes", help="Smallest size: 4K, 1M.")] = "32M",
    end: Annotated[str, typer.Option("-e", "--maxbytes", help="Largest; -b if not given.")] = "",
    step: Annotated[str, typer.Option("-i", "--stepbytes", help="Added from size to size.")] = "",
    factor: Annotated[int, typer.Option("-f", "--stepfactor", help="Or multiplied by.")] = 2,
    iterations: Annotated[int, typer.Option("-n", "--iters", min=1, help="Calls a size.")] = 20,
    warmup: Annotated[int, typer.Option("-w", "--warmup_iters", min=0, help="Not timed.")] = 1,
    check: Annotated[int, typer.Option("-c", "--check", help="0: do not compare results.")] = 1,
    op: Annotated[
        str, typer.Option("-o", "--op", help="sum, product, min, max, mean; all.")
    ] = "sum",
    dtype: Annotated[str, typer.Option("-d", "--datatype", help="float32, …; all.")] = "float32",
    json_file: Annotated[str, typer.Option("-J", "--json-file", help="Write JSON here.")] = "",
    timeout: Annotated[
        float, typer.Option("-T", "--timeout", help="Seconds a call may take.")
    ] = 30,
    ranks: Ranks = 2,
    algorithm: Algorithm = "auto",
    transport: Transport = "auto",
    trace: Annotated[str, typer.Option(help="Write a chrome trace of all ranks here.")] = "",
    live: Annotated[bool, typer.Option("--live", help="On the cluster's ddp workers.")] = False,
    json: Json = False,
) -> None:
    """Time and verify allreduce: nccl-tests' all_reduce_perf, and its rounds and bytes."""
    from ddp.client import DdpError, chrome_trace

    settings = {
        "sizes": sizes(begin, end, step, factor),
        "iterations": iterations,
        "warmup": warmup,
        "check": bool(check),
    }
    run = _on_workers if live else _in_processes
    try:
        found, dumps = _measure(
            run, _cases(dtype, op), algorithm, settings, ranks, transport, timeout
        )
    except DdpError as error:
        raise RanksFailed(str(error)) from None
    _report(found, settings, json=json, json_file=json_file)
    if trace:
        Path(trace).write_text(json_.dumps(chrome_trace(dumps)), encoding="utf-8")
        render.say(f"trace {trace}: open it in chrome://tracing or https://ui.perfetto.dev")
    if found["out_of_bounds"]:
        raise Unhealthy(f"{found['out_of_bounds']} elements are wrong")
    least = float(os.environ.get("NCCL_TESTS_MIN_BW", "0"))
    if found["average_bus_bandwidth"] < 0.9 * least:
        raise Unhealthy(f"the average bus bandwidth is below 0.9 × NCCL_TESTS_MIN_BW = {least}")


@app.command()
def table(ranks: Ranks = 8, elements: int = 4096, json: Json = False) -> None:
    """The lecture's table: rounds, bytes and fan-in of all algorithms, as counted."""
    from ddp.client import DdpError, cost_table

    try:
        rows = cost_table(ranks, elements)
    except DdpError as error:
        raise Usage(str(error)) from None
    if json:
        render.as_json({"ranks": ranks, "elements": elements, "rows": rows})
    else:
        heads = ("ALGORITHM", "ROUNDS", "MAX/N", "MEAN/N", "FAN-IN", "BY FORMULA", "EQUAL")
        cells = [
            (
                row["algorithm"],
                row["rounds"],
                f"{row['sent_max']:.3f}",
                f"{row['sent_mean']:.3f}",
                row["fan_in"],
                row["formula"],
                {True: "yes", False: "NO", None: "-"}[row["equal"]],
            )
            for row in rows
        ]
        render.table(heads, cells, right=heads[1:5])
        render.say("next   ring ddp schedule ring --ranks 4")
    if any(row["equal"] is False for row in rows):
        raise Unhealthy("a count differs from its formula")


@app.command()
def schedule(
    name: Annotated[str, typer.Argument(help="An allreduce algorithm.")] = "ring",
    ranks: Ranks = 4,
    json: Json = False,
) -> None:
    """Who sends which chunk to whom, round by round; proven before it is printed."""
    from ddp.client import DdpError, prove_schedule

    try:
        found = prove_schedule(name, ranks)
    except DdpError as error:
        raise Usage(str(error)) from None
    if json:
        render.as_json({"algorithm": name, "ranks": ranks, "transfers": found})
        return
    heads = ("ROUND", "FROM", "TO", "CHUNKS", "THERE")
    cells = [
        (t["round"], t["src"], t["dst"], f"{t['lo']}-{t['hi'] - 1}", t["action"]) for t in found
    ]
    render.table(heads, cells, right=heads[:3])
    render.say("proven: every rank ends with every contribution once, added in one order")


@app.command()
def why(json: Json = False) -> None:
    """What the live workers' calls wait for: the flight recorders of all ranks, merged."""
    from cluster import topology
    from ddp.client import DdpError, worker_reports

    home = topology.home()
    topology.load(home)
    try:
        found = worker_reports(home / "cluster.toml")
    except DdpError as error:
        raise RanksFailed(str(error)) from None
    if json:
        render.as_json(found)
        return
    for name, report in sorted(found.items()):
        for line in report.get("why") or [report.get("error", "no answer")]:
            print(f"{name}  {line}")


def _measure(
    run: Runner,
    cases: list[tuple[str, str]],
    algorithm: str,
    settings: dict[str, Any],
    ranks: int,
    transport: str,
    timeout: float,
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
            found = run(ranks, settings | how, transport, timeout)
            dumps += [rank["recorder"] for rank in found]
            rows += [_as_nccl(row, type_, reduction) for row in perf_rows(found)]
    report = {
        "ranks": len(found),
        "fabric": found[0]["fabric"],
        "results": rows,
        "average_bus_bandwidth": _average(rows),
        "out_of_bounds": sum(row["out_of_place"]["nwrong"] or 0 for row in rows),
    }
    return report, dumps


def _report(found: dict[str, Any], settings: dict[str, Any], *, json: bool, json_file: str) -> None:
    if json_file:
        Path(json_file).write_text(json_.dumps(found, indent=2), encoding="utf-8")
    if json:
        render.as_json(found)
        return
    how = f"warmup iters: {settings['warmup']} iters: {settings['iterations']}"
    _print(found, settings["sizes"], f"{how} validation: {int(settings['check'])}")


def _cases(dtype: str, op: str) -> list[tuple[str, str]]:
    from ddp.client import FLOATS, OPS, TYPES

    types = [t for t in TYPES if t != "uint8"] if dtype == "all" else [dtype]
    ops = list(OPS) if op == "all" else [{"avg": "mean", "prod": "product"}.get(op, op)]
    for name, known in ((types[0], TYPES), (ops[0], OPS)):
        if name not in known:
            raise Usage(f"there is no {name}; there are {', '.join(known)}, all")
    pairs = [(t, o) for t in types for o in ops if o != "mean" or t in FLOATS]
    if not pairs:
        raise Usage(f"a mean of {dtype} is no {dtype}")
    return pairs


def _in_processes(
    ranks: int, arguments: dict[str, Any], transport: str, timeout: float
) -> list[dict[str, Any]]:
    from ddp.client import Launch

    with Launch(
        ranks, "ddp.perf:measure", arguments, transport=transport, timeout_s=timeout, quiet=True
    ) as launch:
        return launch.results()


def _on_workers(
    ranks: int, arguments: dict[str, Any], transport: str, timeout: float
) -> list[dict[str, Any]]:
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
        "algorithm": row["algorithm"],
        "rounds": row["rounds"],
        "bytes_max": row["sent_max"],
        "bytes_mean": row["sent_mean"],
        "fan_in": row["fan_in"],
    }
    for kind in ("out_of_place", "in_place"):
        found[kind] = {**row[kind], "nwrong": row["wrong"]}
    return found


def _average(rows: list[dict[str, Any]]) -> float:
    found: list[float] = [
        row[kind]["bus_bw"] for row in rows for kind in ("out_of_place", "in_place")
    ]
    return sum(found) / len(found)


def _print(report: dict[str, Any], wanted: list[int], settings: str) -> None:
    print("# Collective test starting: allreduce")
    print(
        f"# ranks {report['ranks']} over {report['fabric']} minBytes {wanted[0]} "
        f"maxBytes {wanted[-1]} {settings}"
    )
    print("#")
    both = ("", "", "", "", "", "out-of-place", "", "", "", "in-place", "", "", "", "", "", "")
    print((HEAD % both).rstrip())
    names = ("time", "algbw", "busbw", "#wrong")
    more = ("rounds", "max sent", "fan-in")
    print(HEAD % ("size", "count", "type", "redop", "root", *names, *names, *more) + "  algorithm")
    units = ("(us)", "(GB/s)", "(GB/s)", "")
    print((HEAD % ("(B)", "(elements)", "", "", "", *units, *units, "", "(B)", "")).rstrip())
    for row in report["results"]:
        cells = []
        for kind in ("out_of_place", "in_place"):
            found = row[kind]
            wrong = "N/A" if found["nwrong"] is None else found["nwrong"]
            speeds = (f"{found['alg_bw']:.2f}", f"{found['bus_bw']:.2f}")
            cells += [f"{found['time']:.1f}", *speeds, wrong]
        first = (row["size"], row["count"], row["type"][:8], row["redop"][:6], row["root"])
        last = (row["rounds"], row["bytes_max"], row["fan_in"])
        print(HEAD.replace("#", " ", 1) % (*first, *cells, *last) + f"  {row['algorithm']}")
    verdict = "OK" if not report["out_of_bounds"] else "FAILED"
    print(f"# Out of bounds values : {report['out_of_bounds']} {verdict}")
    print(f"# Avg bus bandwidth    : {report['average_bus_bandwidth']:.4f}")
