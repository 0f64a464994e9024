"""`ring kill|pause|resume|restart NODE`: what happens to processes."""

from __future__ import annotations

import random
from typing import Annotated, Any

import typer

from cluster import render, topology
from cluster.control import Control
from cluster.errors import Unhealthy, Usage
from cluster.quantities import probability
from cluster.selectors import NodeView, resolve

Target = Annotated[
    str,
    typer.Argument(
        help="n1 | n1,n3 | leader | followers | one | minority | majority | all | raft:*"
        " | raft:one …"
    ),
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


def apply_faults(control: Control, changes: dict[str, Any]) -> dict[str, Any]:
    """What each node answers (netstack.runtime.faults); raises Unhealthy if one refuses."""
    answers: dict[str, Any] = control.ask("faults", changes=changes)["faults"]
    failed = {name: a["error"] for name, a in answers.items() if "error" in a}
    if failed:
        name, why = next(iter(failed.items()))
        raise Unhealthy(f"{name} did not take the fault: {why}")
    return answers


def heal_faults(part: str) -> None:
    """One part of every node is good again."""
    with Control(topology.home()) as control:
        names = [row["name"] for row in control.ask("status")["nodes"]]
        apply_faults(control, {name: {"heal": [part]} for name in names})
    render.say(f"✓ {part} healed on {', '.join(names)}")


def _act(verb: str, target: str, done: str, hint: str) -> None:
    with Control(topology.home()) as control:
        answer = control.ask(verb, nodes=select(control, target))
    for why in answer["refused"]:
        render.say(why)
    render.say(f"✓ {done} {', '.join(answer['nodes'])}")
    render.say(f"try next   {hint}")


def kill(
    target: Target,
    host: Annotated[
        bool, typer.Option("--host", help="The machine is lost: nothing refuses in its place.")
    ] = False,
) -> None:
    """SIGKILL; the node stays down until `ring restart`."""
    hint = "ring status  ·  ring restart all"
    if not host:
        _act("kill", target, "killed", hint)
        return
    with Control(topology.home()) as control:
        names = control.ask("lose", nodes=select(control, target))["nodes"]
    render.say(f"✓ lost {', '.join(names)}: killed, and silent")
    render.say(f"try next   {hint}")


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


def slow(
    target: Target,
    share: Annotated[str, typer.Argument(help="Of its time that it runs: 30%. 100% ends it.")],
) -> None:
    """Let a node run only part of the time (SIGSTOP and SIGCONT, fifty times a second)."""
    part = probability(share)
    if not part:
        raise Usage(f"a node that never runs is paused: ring pause {target}")
    with Control(topology.home()) as control:
        names = select(control, target)
        control.ask("slow", nodes=names, share=part)
    render.say(f"✓ {', '.join(names)} runs {part:.0%} of the time")


def restart(target: Target) -> None:
    """Stop if it runs, then start. `all` means all that are down, if any are."""
    with Control(topology.home()) as control:
        names = select(control, target)
        if target == "all":
            rows = control.ask("status")["nodes"]
            names = [row["name"] for row in rows if row["pid"] == 0] or names
        control.ask("restart", nodes=names)
    render.say(f"✓ restarted {', '.join(names)}")
