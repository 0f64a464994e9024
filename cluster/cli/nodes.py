"""`ring kill|pause|resume|restart NODE`: what happens to processes."""

from __future__ import annotations

import random
from typing import Annotated, Any

import typer

from cluster import render, topology
from cluster.control import Control
from cluster.selectors import NodeView, resolve

Target = Annotated[
    str, typer.Argument(help="n1 | n1,n3 | leader | followers | one | minority | majority | all")
]


def views(status: dict[str, Any]) -> list[NodeView]:
    """What selectors ask about, from a status."""
    return [
        NodeView(
            node["name"],
            node["service"],
            node["says"].get("role", "-"),
            node["state"] in ("running", "paused", "starting"),
        )
        for node in status["nodes"]
    ]


def select(control: Control, target: str) -> list[str]:
    """The nodes that `target` means now."""
    return resolve(target, views(control.ask("status")), random.Random())


def _act(verb: str, target: str, done: str, hint: str) -> None:
    with Control(topology.home()) as control:
        answer = control.ask(verb, nodes=select(control, target))
    for why in answer["refused"]:
        render.say(why)
    render.say(f"✓ {done} {', '.join(answer['nodes'])}")
    render.say(f"try next   {hint}")


def kill(target: Target) -> None:
    """SIGKILL; the node stays down until `ring restart`."""
    _act("kill", target, "killed", "ring status  ·  ring kv get greeting  ·  ring restart all")


def pause(target: Target) -> None:
    """SIGSTOP: the process stands still and notices nothing."""
    _act("pause", target, "paused", "ring status  ·  ring resume all")


def resume(target: Target) -> None:
    """SIGCONT. `all` means all that are paused."""
    with Control(topology.home()) as control:
        if target == "all":
            rows = control.ask("status")["nodes"]
            names = [row["name"] for row in rows if row["state"] == "paused"]
        else:
            names = select(control, target)
        control.ask("resume", nodes=names)
    render.say(f"✓ resumed {', '.join(names) or 'nothing: no node was paused'}")


def restart(target: Target) -> None:
    """Stop if it runs, then start. `all` means all that are down, if any are."""
    with Control(topology.home()) as control:
        names = select(control, target)
        if target == "all":
            rows = control.ask("status")["nodes"]
            names = [row["name"] for row in rows if row["pid"] == 0] or names
        control.ask("restart", nodes=names)
    render.say(f"✓ restarted {', '.join(names)}")
