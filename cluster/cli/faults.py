"""`ring net …`, `ring disk …`, `ring clock …`: what is made wrong around live nodes."""

from __future__ import annotations

import random
from typing import Annotated, Any

import typer

from cluster import render, topology
from cluster.chaos.grudges import GRUDGES, Grudge, apart
from cluster.cli import tunnel
from cluster.cli.lab import laboratory
from cluster.cli.nodes import Target, apply_faults, heal_faults, select, views
from cluster.control import Control
from cluster.errors import Usage
from cluster.quantities import probability, seconds
from cluster.selectors import resolve

net = typer.Typer(no_args_is_help=True, help="Faults of links between live nodes.")
disk = typer.Typer(no_args_is_help=True, help="Faults of live nodes' disks.")
clock = typer.Typer(no_args_is_help=True, help="Faults of live nodes' clocks.")
net.command("lab")(
    laboratory(
        "net",
        "cluster.lab.experiments",
        "Experiments that a lecturer would project; exit status 1 if a claim does not hold.",
    )
)
net.add_typer(tunnel.app, name="tunnel")


def _links(target: str, **policy: Any) -> None:
    """Give all edges from and to the target's nodes a policy."""
    with Control(topology.home()) as control:
        rows = control.ask("status")["nodes"]
        chosen = select(control, target)
        changes: dict[str, Any] = {}
        for row in rows:
            edges = {
                other["address"]: policy
                for other in rows
                if other is not row and (row["name"] in chosen or other["name"] in chosen)
            }
            if edges:
                changes[row["name"]] = {"links": edges}
        apply_faults(control, changes)
    what = ", ".join(f"{name}={value:g}" for name, value in policy.items())
    render.say(f"✓ links of {', '.join(chosen)}: {what}")
    render.say("try next   ring net show  ·  ring net heal")


@net.command()
def partition(
    groups: Annotated[list[str], typer.Argument(help="n1,n2 n3: groups; or a shape")],
) -> None:
    """Cut every edge between groups; who is named in none is one more group.

    Or a shape, drawn anew each time: halves, isolate, bridge, ring, chain, one-way.
    """
    with Control(topology.home()) as control:
        status = control.ask("status")
        nodes = views(status)
        if groups[0] in GRUDGES:
            _shape(control, status, groups)
            return
        sets = [resolve(group, nodes, random.Random()) for group in groups]
        named = {name for group in sets for name in group}
        if sum(map(len, sets)) != len(named):
            raise Usage("a node can be in one group only")
        rest = [node.name for node in nodes if node.name not in named]
        sets += [rest] if rest else []
        if len(sets) < 2:
            raise Usage("that leaves everybody in one group; name fewer nodes")
        _cut(control, status, apart(sets))
    render.say("✓ partitioned: " + "  |  ".join(", ".join(group) for group in sets))
    render.say("try next   ring status  ·  ring net heal")


def _shape(control: Control, status: dict[str, Any], words: list[str]) -> None:
    if len(words) > 1:
        raise Usage(f"{words[0]} is a shape of the whole cluster; write nothing behind it")
    names = [row["name"] for row in status["nodes"]]
    grudge = GRUDGES[words[0]](names, random.Random())
    _cut(control, status, grudge)
    cut = ", ".join(f"{a}→{b}" for a, b in sorted(grudge))
    render.say(f"✓ partitioned ({words[0]}); cut: {cut or 'nothing, with so few nodes'}")
    render.say("try next   ring status  ·  ring net heal")


def _cut(control: Control, status: dict[str, Any], grudge: Grudge) -> None:
    """These edges are cut, and all others are not."""
    address = {row["name"]: row["address"] for row in status["nodes"]}
    changes = {
        a: {"links": {address[b]: {"cut": (a, b) in grudge} for b in address if b != a}}
        for a in address
    }
    apply_faults(control, changes)


@net.command("one-way")
def one_way(
    source: Annotated[str, typer.Argument(help="whose datagrams are lost")],
    destination: Annotated[str, typer.Argument(help="on their way to whom")],
) -> None:
    """Cut one direction: what the first sends does not reach the second."""
    with Control(topology.home()) as control:
        rows = control.ask("status")["nodes"]
        address = {row["name"]: row["address"] for row in rows}
        senders, receivers = select(control, source), select(control, destination)
        edges = [(a, b) for a in senders for b in receivers if a != b]
        if not edges:
            raise Usage("a node always hears itself; name two")
        apply_faults(
            control,
            {
                a: {"links": {address[b]: {"cut": True} for c, b in edges if c == a}}
                for a, _ in edges
            },
        )
    render.say("✓ cut " + ", ".join(f"{a}→{b}" for a, b in edges))
    render.say("try next   ring net show  ·  ring net heal")


@net.command()
def isolate(target: Target) -> None:
    """Cut a node off from all others."""
    partition([target])


@net.command()
def loss(target: Target, chance: Annotated[str, typer.Argument(help="0.1 or 10%")]) -> None:
    """Lose datagrams."""
    _links(target, loss=probability(chance))


@net.command()
def burst(
    target: Target,
    begin: Annotated[str, typer.Argument(help="chance that a burst begins: 1%")],
    length: Annotated[float, typer.Argument(help="mean length in datagrams")],
) -> None:
    """Lose datagrams in bursts (Gilbert-Elliott)."""
    _links(target, burst_begin=probability(begin), burst_end=min(1.0, 1 / max(length, 1.0)))


@net.command()
def delay(
    target: Target,
    time: Annotated[str, typer.Argument(help="20ms")],
    jitter: Annotated[str, typer.Option(help="5ms")] = "0ms",
) -> None:
    """Delay datagrams, and vary the delay."""
    _links(target, delay_s=seconds(time), jitter_s=seconds(jitter))


@net.command()
def duplicate(target: Target, chance: Annotated[str, typer.Argument(help="0.1 or 10%")]) -> None:
    """Deliver datagrams twice."""
    _links(target, duplicate=probability(chance))


@net.command()
def reorder(target: Target, chance: Annotated[str, typer.Argument(help="0.1 or 10%")]) -> None:
    """Hold datagrams back, so that others overtake them."""
    _links(target, reorder=probability(chance))


@net.command()
def corrupt(target: Target, chance: Annotated[str, typer.Argument(help="0.1 or 10%")]) -> None:
    """Flip a bit in datagrams."""
    _links(target, corrupt=probability(chance))


@net.command()
def rate(target: Target, bytes_per_second: Annotated[float, typer.Argument(min=1)]) -> None:
    """Bound the rate of links, with a queue of 64 KiB before them."""
    _links(target, rate_bytes_s=bytes_per_second)


@net.command()
def heal() -> None:
    """All links good again."""
    heal_faults("links")


@net.command()
def show(json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """What is wrong with which edge, and what that has done so far."""
    with Control(topology.home()) as control:
        rows = control.ask("status")["nodes"]
        names = {row["address"]: row["name"] for row in rows}
        answers = apply_faults(control, {row["name"]: {} for row in rows})
    if json:
        render.as_json(answers)
        return
    lines = []
    for name, answer in answers.items():
        for address, link in answer["links"].items():
            counts = link.pop("counts")
            policy = ", ".join(f"{k}={v}" for k, v in link.items())
            counted = ", ".join(f"{k} {v}" for k, v in counts.items() if v)
            lines.append([f"{name} → {names.get(address, address)}", policy, counted])
    if lines:
        render.table(("EDGE", "POLICY", "SO FAR"), lines)
    else:
        render.say("all links are good")


def _set(target: str, part: str, **values: Any) -> None:
    with Control(topology.home()) as control:
        names = select(control, target)
        apply_faults(control, {name: {part: values} for name in names})
    what = ", ".join(f"{name}={value}" for name, value in values.items())
    render.say(f"✓ {part} of {', '.join(names)}: {what}")


@disk.command()
def full(target: Target) -> None:
    """Writes fail with ENOSPC until healed."""
    _set(target, "disk", full=True)


@disk.command()
def slow(target: Target, time: Annotated[str, typer.Argument(help="200ms")]) -> None:
    """Each sync takes this much longer."""
    _set(target, "disk", slow_s=seconds(time))


@disk.command()
def error(target: Target, nth: Annotated[int, typer.Argument(min=1)] = 1) -> None:
    """The n-th write or sync from now fails with EIO."""
    _set(target, "disk", eio_at=nth)


@disk.command()
def lie(
    target: Target,
    once: Annotated[bool, typer.Option("--once", help="Only the next sync.")] = False,
) -> None:
    """Syncs report success and write nothing (with --power-cut clusters)."""
    if once:
        _set(target, "disk", lie_once=True)
    else:
        _set(target, "disk", sync_lies=True)


@disk.command()
def torn(target: Target) -> None:
    """The next sync writes half of what it should, then fails."""
    _set(target, "disk", torn=True)


Seed = Annotated[int, typer.Option(help="Decides which file, byte and bit.")]


@disk.command()
def flip(target: Target, seed: Seed = 0) -> None:
    """Change one bit of what a node that is down has written."""
    _damage(target, "flip", seed)


@disk.command()
def truncate(target: Target, seed: Seed = 0) -> None:
    """Let a file of a node that is down end before its end."""
    _damage(target, "truncate", seed)


@disk.command()
def wipe(target: Target) -> None:
    """Delete all data of a node that is down."""
    _damage(target, "wipe", 0)


@disk.command()
def keep(target: Target) -> None:
    """Keep a copy of the files of a node that is down."""
    _damage(target, "keep", 0)


@disk.command("put-back")
def put_back(target: Target) -> None:
    """Let a node that is down have the files of the time when they were kept."""
    _damage(target, "put-back", 0)


def _damage(target: str, how: str, seed: int) -> None:
    with Control(topology.home()) as control:
        done = control.ask("damage", nodes=select(control, target), how=how, seed=seed)["done"]
    for name, what in done.items():
        render.say(f"✓ {name}: {what}")
    name = next(iter(done))
    render.say(f"try next   ring restart {name}  ·  ring status  ·  ring repair {name}")


@disk.command("heal")
def heal_disk() -> None:
    """All disks good again."""
    heal_faults("disk")


# A time that is put back begins like an option, and is none.
@clock.command(context_settings={"ignore_unknown_options": True})
def skew(target: Target, time: Annotated[str, typer.Argument(help="30s or -500ms")]) -> None:
    """Set the wall clock off by this much."""
    sign = -1 if time.startswith("-") else 1
    _set(target, "clock", offset_s=sign * seconds(time.lstrip("+-")))


@clock.command("rate")
def clock_rate(target: Target, factor: Annotated[float, typer.Argument(min=0.1, max=10)]) -> None:
    """Let the steady clock run faster or slower."""
    _set(target, "clock", rate=factor)


@clock.command("heal")
def heal_clock() -> None:
    """All clocks right again."""
    heal_faults("clock")
