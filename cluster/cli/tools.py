"""`ring bench`: figures beside those of others."""

from __future__ import annotations

import importlib
import shlex
from typing import Annotated, Final

import typer

from cluster import render
from cluster.errors import Unhealthy, Usage

# What can be measured, and the module whose `run(peers, seconds)` measures it.
BENCHES: Final = {
    "transport": "cluster.bench.transport",
    "rpc": "cluster.bench.rpc",
    "raft": "cluster.bench.raft",
    "dht": "cluster.bench.dht",
    "torrent": "cluster.bench.torrent",
    "mapreduce": "cluster.bench.mapreduce",
    "ddp": "cluster.bench.ddp",
    "recovery": "cluster.bench.recovery",
}

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


def bench(
    name: Annotated[str, typer.Argument(help=f"{' | '.join(BENCHES)} | all")] = "all",
    peers: Annotated[bool, typer.Option("--peers", help="Beside what people use today.")] = False,
    seconds: Annotated[float, typer.Option(help="Seconds a round.")] = 3.0,
    lossy: Annotated[bool, typer.Option("--lossy", help="transport: over lossy lines.")] = False,
    json: Json = False,
) -> None:
    """Benchmarks; with --peers each figure beside another system's, taken in turn in one run."""
    from cluster.bench.harness import Report

    modules = BENCHES
    if lossy:
        if name != "transport":
            raise Usage("--lossy goes with: ring bench transport")
        modules = {"transport": "cluster.bench.lossy"}
    if name != "all" and name not in modules:
        raise Usage(f"there is no benchmark {name!r}; there are: {', '.join(modules)}")
    reports: list[Report] = []
    for bench_name, module in modules.items():
        if name in ("all", bench_name):
            flags = [*(["--lossy"] if lossy else []), *(["--peers"] if peers else [])]
            command = shlex.join(["ring", "bench", bench_name, *flags])
            render.say(f"{command}: takes a minute or more; leave the machine alone meanwhile")
            run = importlib.import_module(module).run
            reports.append(run(peers=peers, seconds=seconds))
    if json:
        rows = [report.to_json() for report in reports]
        render.as_json(rows[0] if len(rows) == 1 else rows)
    else:
        for report in reports:
            _show(report)
    if not all(report.holds for report in reports):
        raise Unhealthy("a bar does not hold")


def _show(report: object) -> None:
    from cluster.bench.harness import Report

    assert isinstance(report, Report)
    rows = []
    for row in report.rows:
        theirs = f"{row.theirs:,.2f}" if row.theirs is not None else row.note or "-"
        ratio = f"{row.ratio:.2f}" if row.ratio is not None else "-"
        bar = "-" if row.bar is None else f"{row.bar:g}"
        holds = {True: "yes", False: "NO", None: "-"}[row.holds]
        figures = (f"{row.ours:,.2f}", row.peer, theirs, ratio, bar, holds)
        rows.append((row.case, row.metric, row.unit, *figures))
    columns = ("CASE", "METRIC", "UNIT", "OURS", "PEER", "THEIRS", "RATIO", "BAR", "HOLDS")
    render.table(columns, rows, right=("OURS", "THEIRS", "RATIO", "BAR"))
