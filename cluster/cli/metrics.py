"""`ring metrics`: counters and gauges of all nodes, in the text format of Prometheus."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cluster import render, topology
from cluster.control import Control


def metrics(
    nodes: Annotated[list[str] | None, typer.Argument(help="Nodes; all if none are named.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Counters and gauges of the nodes, in the text format of Prometheus."""
    with Control(topology.home()) as control:
        answers: dict[str, dict[str, Any]] = control.ask("metrics", nodes=nodes or [])["metrics"]
    for name, values in answers.items():
        if "error" in values:
            render.say(f"{name}: {values.pop('error')}")
    if json:
        render.as_json(answers)
        return
    from cluster.exposition import exposition

    print(exposition(answers), end="")
