"""`ring up`, `ring status`, `ring down`: from nothing to healthy, and back."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster import render, topology
from cluster.control import Control, running, start_supervisor
from cluster.errors import NotInTime, NotRunning, Unhealthy, Usage
from cluster.services import SERVICES
from netstack.runtime.config import ClusterConfig

POLL_S = 0.05

# What stands between two hints.
BETWEEN = "  ·  "

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


def up(
    nodes: Annotated[list[str] | None, typer.Argument(help="How many of what: raft=3.")] = None,
    config: Annotated[Path | None, typer.Option(help="A cluster file to start from.")] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait until healthy.")] = 30.0,
    any_port: Annotated[bool, typer.Option("--any-port", help="Pick free ports.")] = False,
    power_cut: Annotated[
        bool, typer.Option("--power-cut", help="kill -9 also loses what was not synced.")
    ] = False,
    json: Json = False,
) -> None:
    """Start the cluster and wait until it is healthy; again, it changes only what differs."""
    started = time.monotonic()
    home = topology.home()
    counts = topology.parse_counts(nodes or [])
    if config is not None and not topology.exists(home):
        topology.check(config)
        home.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(config, home / "cluster.toml")
    fresh = not running(home)
    current = _topology(home, counts, any_port=any_port, power_cut=power_cut, fresh=fresh)
    if fresh:
        start_supervisor(home)
    try:
        with Control(home, timeout_s=wait + 60) as control:
            changed = _bring_about(home, control, current, counts, wait)
            status = wait_healthy(control, wait)
    except KeyboardInterrupt:
        if fresh:
            _end(home)
        raise
    if json:
        render.as_json(status)
        return
    healthy = len(status["nodes"])
    took = time.monotonic() - started
    what = "healthy" if changed or fresh else "healthy already; nothing was changed"
    render.say(f"✓ {healthy} nodes {what} ({took:.1f} s)")
    render.show_status(status)
    render.say(f"try next   {_hints({node['service'] for node in status['nodes']})}")


def _hints(present: set[str]) -> str:
    """Commands to try: all that one service has, or the first of each of several."""
    hints = [kind.hint.split(BETWEEN) for name, kind in SERVICES.items() if name in present]
    chosen = [hint[:1] if len(present) > 1 else hint for hint in hints]
    return BETWEEN.join([*(hint for some in chosen for hint in some if hint), "ring status"])


def _topology(
    home: Path, counts: dict[str, int], *, any_port: bool, power_cut: bool, fresh: bool
) -> ClusterConfig:
    if not topology.exists(home):
        return topology.create(home, counts, any_port=any_port, power_cut=power_cut)
    current = topology.load(home)
    if fresh:
        topology.refuse_taken_ports(current.nodes)
        for name in topology.renew_due_certificates(home, current):
            render.say(f"renewed the certificate of {name}")
    return current


def _bring_about(
    home: Path, control: Control, current: ClusterConfig, counts: dict[str, int], wait: float
) -> bool:
    """Start what is missing, then grow or shrink; True if anything changed."""
    changed = bool(control.ask("reload")["started"])
    for service, count in topology.complete(counts, _services(current)).items():
        present = current.of_service(service)
        if count == len(present):
            continue
        wait_healthy(control, wait)
        wanted = topology.resize(home, current, service, count)
        names = {node.name for node in wanted.nodes}
        removed = [node.name for node in present if node.name not in names]
        if removed and SERVICES[service].elects:
            # Out of the membership first: a majority must never count on a node that is gone.
            change_members(home, {}, removed)
        if len(removed) > 1 and SERVICES[service].leaves_in_turn:
            _shrink_in_turn(home, control, current, service, count, wait)
        topology.write(home, wanted)
        control.ask("reload")
        added = [node for node in wanted.nodes if node not in current.nodes]
        if added and SERVICES[service].elects:
            change_members(home, {node.name: node.address for node in added}, [])
        for name in removed:
            topology.forget_node(home, name)
        current, changed = wanted, True
    return changed


def _shrink_in_turn(
    home: Path, control: Control, current: ClusterConfig, service: str, count: int, wait: float
) -> None:
    """One node fewer, and the next when all are well: nobody hands its data to one that goes."""
    for size in range(len(current.of_service(service)) - 1, count, -1):
        topology.write(home, topology.resize(home, current, service, size))
        control.ask("reload")
        wait_healthy(control, wait)


def _services(config: ClusterConfig) -> set[str]:
    return {node.service for node in config.nodes}


def change_members(home: Path, add: dict[str, tuple[str, int]], remove: list[str]) -> None:
    """Have the store's cluster decide who belongs to it; raises Unhealthy."""
    from raftd.client import ClientError, RaftClient

    async def change() -> None:
        async with RaftClient.connect(home / "cluster.toml") as client:
            await client.change_members(add, remove)

    try:
        asyncio.run(change())
    except ClientError as error:
        raise Unhealthy(f"the membership could not be changed: {error}") from None


def wait_healthy(control: Control, wait: float) -> dict[str, Any]:
    """Status once every node is well; raises NotInTime with the evidence."""
    deadline = time.monotonic() + wait
    while True:
        status = control.ask("status")
        if _healthy(status):
            return status
        fatal = [node for node in status["nodes"] if node["state"] == "fatal"]
        if fatal or time.monotonic() > deadline:
            render.show_status(status)
            logs = ", ".join(f"{status['home']}/nodes/{n['name']}/output.log" for n in fatal)
            hint = f"; see {logs}" if fatal else ""
            raise NotInTime(f"the cluster is not healthy{hint}")
        time.sleep(POLL_S)


def _healthy(status: dict[str, Any]) -> bool:
    nodes = status["nodes"]
    raft = [node for node in nodes if node["service"] == "raft"]
    led_by = {node["says"].get("leader") for node in raft}
    # Who was removed while it led is named by the others for a moment, and leads nobody.
    leaders = {node["name"] for node in raft if node["says"].get("role") == "leader"}
    agreed = led_by == leaders and len(leaders) <= 1
    return bool(nodes) and agreed and all(node["health"] == "ok" for node in nodes)


def status(json: Json = False) -> None:
    """A row a node. Exit status 1 unless all are healthy."""
    home = topology.home()
    if not topology.exists(home):
        raise NotRunning(f"there is no cluster in {home}; start one with: ring up")
    with Control(home) as control:
        found = control.ask("status")
    if json:
        render.as_json(found)
    else:
        render.show_status(found)
    if not _healthy(found):
        raise typer.Exit(1)


def down(
    wipe: Annotated[bool, typer.Option("--wipe", help="Delete all data and keys too.")] = False,
) -> None:
    """Stop all daemons; their data stays unless wiped."""
    home = topology.home()
    stopped = _end(home)
    if wipe:
        if home.exists() and not topology.exists(home):
            raise Usage(f"{home} does not look like a cluster's folder; nothing was deleted")
        shutil.rmtree(home, ignore_errors=True)
    if stopped is None:
        render.say("no cluster is running" + ("; its data was deleted" if wipe else ""))
    else:
        kept = "data deleted" if wipe else f"data stays in {home}"
        render.say(f"✓ stopped {len(stopped)} nodes; {kept}")


def _end(home: Path) -> list[str] | None:
    """Stop the supervisor and its daemons; None if there was none."""
    try:
        with Control(home) as control:
            stopped: list[str] = control.ask("down")["stopped"]
    except NotRunning:
        return None
    deadline = time.monotonic() + 5
    while running(home) and time.monotonic() < deadline:
        time.sleep(0.02)
    return stopped
