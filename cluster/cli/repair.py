"""`ring repair NODE`: a new copy from the others for a node whose own copy cannot be trusted.

What such a node promised is lost with its log, so it may not simply start empty: it could vote as
if it had promised nothing. It leaves the membership first, by a decision of the others, and joins
again as a newcomer who has no vote until it has caught up.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from cluster import render, topology
from cluster.cli.lifecycle import change_members, wait_healthy
from cluster.control import Control
from cluster.errors import Unhealthy, Usage


def repair(
    name: Annotated[str, typer.Argument(help="The node.")],
    wait: Annotated[float, typer.Option(help="Seconds to wait until healthy.")] = 60.0,
) -> None:
    """Replace a damaged raft node's data by a copy from the others. The old data is kept aside."""
    home = topology.home()
    known = [node.name for node in topology.load(home).of_service("raft")]
    if name not in known:
        raise Usage(f"there is no raft node {name!r}; there are: {', '.join(known)}")
    aside = replace_node(home, name, wait)
    with Control(home) as control:
        render.show_status(wait_healthy(control, wait))
    render.say(f"✓ {name} has a new copy; its old data is in {aside}")


def replace_node(home: Path, name: str, wait: float) -> Path:
    """Have the others replace `name` in the membership by itself, empty; where its old data is.

    Raises Unhealthy if they are no majority, NotInTime if it takes longer than `wait` seconds.
    """
    config = topology.load(home)
    known = [node.name for node in config.of_service("raft")]
    with Control(home, timeout_s=wait + 60) as control:
        rows = {row["name"]: row for row in control.ask("status")["nodes"]}
        others = [other for other in known if other != name and rows[other]["health"] == "ok"]
        if len(others) <= len(known) // 2:
            raise Unhealthy(
                f"only {', '.join(others) or 'none'} of {', '.join(known)} would be left, which is"
                " no majority; bring others up first: ring restart all"
            )
        control.ask("stop", nodes=[name])
        change_members(home, {}, [name])
        aside = _set_aside(home / "nodes" / name / "data")
        settings = {**config.settings, "raft": {**config.settings["raft"], "bootstrap": others}}
        topology.write(home, dataclasses.replace(config, settings=settings))
        control.ask("restart", nodes=[name])
        change_members(home, {name: config.node(name).address}, [])
    return aside


def _set_aside(data: Path) -> Path:
    number = 1
    while (aside := data.with_name(f"data.damaged-{number}")).exists():
        number += 1
    if data.exists():
        data.rename(aside)
    return aside
