"""`ring crashpoint`: nodes that die, stumble or hesitate at a named line of their code."""

from __future__ import annotations

from typing import Annotated

import typer

from cluster import render, topology
from cluster.cli.nodes import apply_faults, heal_faults, select
from cluster.control import Control
from cluster.errors import Usage
from netstack.runtime.failpoints import ACTIONS
from netstack.runtime.failpoints import catalogue as failpoints


def crashpoint(
    target: Annotated[
        str,
        typer.Argument(help="Node; or heal: none is armed. Without one, the points are listed."),
    ] = "",
    point: Annotated[str, typer.Argument(help="Its name.")] = "",
    after: Annotated[int, typer.Option(min=1, help="At the how manieth time.")] = 1,
    action: Annotated[str, typer.Option(help=", ".join(ACTIONS))] = "crash",
) -> None:
    """Let a node die at a named line of its code, once; without arguments, list the lines."""
    points = failpoints("raftd")
    if not target:
        render.table(("POINT", "WHERE"), [[name, f"raftd/{at}"] for name, at in points.items()])
        return
    if target == "heal" and not point:
        heal_faults("points")
        return
    if not point:
        raise Usage(f"{target} at which line? They are listed by: ring crashpoint")
    if point not in points:
        raise Usage(f"there is no point {point!r}; they are listed by: ring crashpoint")
    if action not in ACTIONS:
        raise Usage(f"nothing called {action!r} can happen there; write {', '.join(ACTIONS)}")
    with Control(topology.home()) as control:
        names = select(control, target)
        change = {"points": {point: {"action": action, "after": after}}}
        apply_faults(control, dict.fromkeys(names, change))
    render.say(f"✓ {', '.join(names)}: {action} at {point}")
    render.say("try next   ring kv put greeting hello  ·  ring status  ·  ring crashpoint heal")
