"""`ring ddp …`: collectives between ranks, measured and explained.

What is measured is in ddp_allreduce.py, and training in ddp_train.py; here is what explains.
"""

from __future__ import annotations

from typing import Annotated

import typer

from cluster import render
from cluster.cli import ddp_allreduce, ddp_roofline, ddp_train
from cluster.cli.ddp_allreduce import RanksFailed
from cluster.errors import Unhealthy, Usage

app = typer.Typer(no_args_is_help=True, help="Collectives (allreduce) and distributed training.")
app.command()(ddp_allreduce.allreduce)
for command in (ddp_train.train, ddp_train.bubble, ddp_train.stale, ddp_roofline.roofline):
    app.command()(command)

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Ranks = Annotated[int, typer.Option("--ranks", "-P", help="Ranks, each a process.")]


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
