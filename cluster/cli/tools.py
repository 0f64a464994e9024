"""`ring bench`: figures beside those of others."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from cluster import render
from cluster.errors import Unhealthy, Usage

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


def bench(
    name: Annotated[str, typer.Argument(help="raft | rpc | transport | torrent | all")] = "all",
    peers: Annotated[bool, typer.Option("--peers", help="Beside what people use today.")] = False,
    seconds: Annotated[float, typer.Option(help="Seconds a round.")] = 3.0,
    lossy: Annotated[bool, typer.Option("--lossy", help="transport: over lossy lines.")] = False,
    json: Json = False,
) -> None:
    """Benchmarks; with --peers each figure beside another system's, taken in turn in one run."""
    from cluster.bench import lossy as lossy_lines
    from cluster.bench import raft, rpc, torrent, transport
    from cluster.bench.harness import Report

    runners = {
        "transport": transport.run,
        "rpc": rpc.run,
        "raft": raft.run,
        "torrent": torrent.run,
    }
    if lossy:
        if name != "transport":
            raise Usage("--lossy goes with: ring bench transport")
        runners = {"transport": lossy_lines.run}
    if name != "all" and name not in runners:
        raise Usage(f"there is no benchmark {name!r}; there are: {', '.join(runners)}")
    reports: list[Report] = []
    for bench_name, run in runners.items():
        if name in ("all", bench_name):
            flags = [*(["--lossy"] if lossy else []), *(["--peers"] if peers else [])]
            command = shlex.join(["ring", "bench", bench_name, *flags])
            render.say(f"{command}: takes a minute or more; leave the machine alone meanwhile")
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
