"""Planted bugs of the ring: each is caught by the check that claims to catch its kind."""

from __future__ import annotations

import asyncio
import importlib
import sys
from pathlib import Path

import pytest
from evidence import caught

import dht.chord.repair
import dht.server
from dht.chord import oracle
from dht.chord.node import ChordNode
from dht.chord.ring import key_id
from dht.client import Conflict, DhtError
from netstack.rpc.errors import RpcError

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "unit" / "dht"), str(TESTS / "simulation"), str(TESTS / "zoo")]

bugs = importlib.import_module("chord_bugs")
rehearsal_kit = importlib.import_module("rehearsal_kit")
dht_kit = importlib.import_module("dht_kit")
lookup_kit = importlib.import_module("dht_lookup_kit")

FIRST = (3, 13, 23, 33, 43, 53)


# -- the protocol: schedules of the bare core


def schedules(kind: type[ChordNode], *, seeds: int = 40, steps: int = 300) -> None:
    """The invariant after every step of some random schedules."""
    for seed in range(seeds):
        ring = rehearsal_kit.Rehearsal(bits=6, successors=2, seed=seed, kind=kind)
        ring.bootstrap(*FIRST)
        for _ in range(steps):
            ring.chance(9)
        ring.quiet()
        ring.until_ideal()


def joins_and_look_ups(kind: type[ChordNode]) -> None:
    """Newcomers are found by everybody, and every key at the node that owns it."""
    ring = rehearsal_kit.Rehearsal(bits=6, successors=2, kind=kind, judged=False)
    ring.bootstrap(*FIRST)
    for number, through in ((58, 3), (8, 33), (28, 53)):
        ring.join(number, through)
        ring.quiet()
        assert ring.nodes[number].state == "member"
        ring.turn(2)
    ring.until_ideal(20)
    order = sorted(ring.nodes)
    for target in range(64):
        right = next((n for n in order if n >= target), order[0])
        for start in order:
            found = ring.look_up(target, start).found
            assert found is not None, target
            assert found.owner.id == right, (target, start)


def rectifies(kind: type[ChordNode]) -> None:
    """A predecessor that lives stays, whoever else comes along from behind it."""
    ring = rehearsal_kit.Rehearsal(bits=6, successors=2, kind=kind, judged=False)
    ring.bootstrap(*FIRST)
    ring.nodes[33].rectify(rehearsal_kit.contact(13), 0.0)
    ring.collect(ring.nodes[33])
    ring.quiet()
    assert ring.nodes[33].pred == rehearsal_kit.contact(23)


def fingers(kind: type[ChordNode]) -> None:
    """Newcomers and deaths are in everybody's finger table a cycle later."""
    ring = rehearsal_kit.Rehearsal(bits=6, successors=2, kind=kind, judged=False)
    ring.bootstrap(*FIRST, 17)  # so that 33 is beyond the two that 13 has in its list
    ring.join(31, 53)  # the first over 13 + 16, where 33 was
    ring.quiet()
    ring.turn(ring.bits + 3)
    assert ring.stale_fingers() == []
    ring.kill(43)
    ring.turn(ring.bits + 3)
    assert ring.stale_fingers() == []


def partitions(kind: type[ChordNode]) -> None:
    """Cut in two, and whole again."""
    ring = rehearsal_kit.Rehearsal(bits=7, successors=2, seed=1, kind=kind, judged=False)
    ring.bootstrap(*range(0, 120, 10))
    ring.cuts = {n: n // 10 % 2 for n in ring.nodes}
    ring.turn(12)
    ring.cuts = {}
    ring.until_ideal(40)


# What the kit says of a ring whose invariant a step has broken.
VIOLATED = "assert not found, f"


@pytest.mark.parametrize("check", [joins_and_look_ups, rectifies, fingers, partitions])
def test_the_protocol_itself_passes(check):
    check(ChordNode)


@pytest.mark.parametrize(
    ("bug", "check", "by"),
    [
        (bugs.WrapsWrong, joins_and_look_ups, "assert found.owner.id == right"),
        (bugs.RoutesPastZeroWrong, joins_and_look_ups, "assert ring.nodes[number].state =="),
        (bugs.NeverStabilises, joins_and_look_ups, "ring.until_ideal(20)"),
        (bugs.NotPadded, schedules, "BrokenNode: node.check()"),
        (bugs.AdoptsUnseen, schedules, "ring.until_ideal()"),
        (bugs.JoinsWithOneSuccessor, schedules, VIOLATED),
        (bugs.Published, schedules, VIOLATED),
        (
            bugs.TakesAnybodyForPredecessor,
            rectifies,
            "assert ring.nodes[33].pred == rehearsal_kit.contact(23)",
        ),
        (bugs.TrustsFingers, fingers, "assert ring.stale_fingers() == []"),
        (bugs.KeepsDeadFingers, fingers, "assert ring.stale_fingers() == []"),
        (bugs.NeverProbes, partitions, "ring.until_ideal(40)"),
    ],
)
def test_a_bug_of_the_protocol_is_caught(bug, check, by):
    with caught(by):
        check(bug)


async def a_death(ring) -> None:
    """Each step of the repair keeps the invariant, in whole peers too."""
    await ring.ideal()
    ring.world.crash("d3")
    await ring.ideal()
    assert ring.judge.steps > 0


@pytest.mark.parametrize("bug", [bugs.JumpsAhead])
def test_a_step_of_a_whole_peer_that_breaks_the_invariant_is_caught(bug):
    options = {"count": 7, "settings": {"successors": 3, "vnodes": 1}}
    dht_kit.run(a_death, **options)
    with caught('assert not found, f"a step of {node!r} broke the invariant'):
        dht_kit.run(a_death, kind=bugs.ServiceWith.of(bug), **options)


# -- look-ups: whole peers in virtual time


async def steps_over(ring) -> None:
    """A walk goes on behind the dead."""
    await lookup_kit.after(ring, "walk", (3, 4), "dead")


async def looks_behind(ring) -> None:
    """The recursive form finds the first behind the dead."""
    await lookup_kit.after(ring, "recursive", (3, 4), "dead")


async def asks_the_owner(ring) -> None:
    """Who is named as the owner lives."""
    await lookup_kit.after(ring, "recursive", (5,), "dead")


async def tries_another_way(ring) -> None:
    """A hop that finds nothing is not the end."""
    await lookup_kit.no_way_there(ring)


async def waits_for_who_is_at_it(ring) -> None:
    """A hop that meets the silent is not taken for one of them."""
    client, order = await lookup_kit.places(ring)
    for at in (2, 3, 4):
        ring.world.pause(order[at].name)
    lookup_kit.stand_still(ring)
    path = await lookup_kit.look_up(client, order[5].id, "recursive")
    assert not {order[0], order[5]} & set(path.timeouts)


LOOK_UPS = [
    (bugs.WalksIntoTheDead, steps_over, "NotReached: path = await look_up("),
    (bugs.ForgetsTheList, looks_behind, "NotReached: path = await look_up("),
    (bugs.TrustsTheList, asks_the_owner, "assert path.owner == right"),
    (bugs.GivesUpWithTheNext, tries_another_way, "NotReached: path = await look_up("),
    (bugs.NeverBeats, waits_for_who_is_at_it, "NotReached: path = await lookup_kit.look_up("),
]


SLOW_TO_BURY = {"count": 8, "settings": {"vnodes": 1, "timeout_ms": 400}}


@pytest.mark.parametrize("scenario", [scenario for _, scenario, _ in LOOK_UPS])
def test_look_ups_themselves_pass(scenario):
    dht_kit.run(scenario, **SLOW_TO_BURY)


@pytest.mark.parametrize(("bug", "scenario", "by"), LOOK_UPS)
def test_a_bug_of_look_ups_is_caught(bug, scenario, by):
    with caught(by):
        dht_kit.run(scenario, kind=bugs.ServiceWith.of(bug), **SLOW_TO_BURY)


# -- the data: whole peers in virtual time


async def death_of_two(ring) -> None:
    """Acknowledged writes outlive r-1 of their holders."""
    await ring.ideal()
    client = await ring.client()
    stored = [(b"k%d" % i, await client.put(b"k%d" % i, b"v")) for i in range(6)]
    _, last = stored[-1]
    for name in last.acks[:2]:
        ring.world.crash(name)
    await ring.ideal()
    for key, _ in stored:
        found = await client.get(key)
        assert found is not None, key


async def swaps(ring) -> None:
    """Increments by compare-and-swap all count."""
    await ring.ideal()
    clients = [await ring.client(name) for name in ("client", "other")]

    async def add(who) -> None:
        done = 0
        while done < 8:
            found = await who.get(b"counter")
            version, count = (found.version, int(found.value)) if found else (0, 0)
            try:
                await who.put(b"counter", b"%d" % (count + 1), expect=version)
            except Conflict:
                continue
            done += 1

    await asyncio.gather(*(add(who) for who in clients * 2))
    assert (await clients[0].get(b"counter")).value == b"32"


async def unreachable(ring) -> None:
    """Nobody says `absent` while those who hold the key cannot be asked."""
    await ring.ideal()
    client = await ring.client()
    stored = await client.put(b"key", b"value")
    for name in stored.acks:
        ring.world.crash(name)
    for _ in range(40):
        try:
            assert await client.get(b"key", timeout_s=0.3) is not None
        except DhtError:
            await asyncio.sleep(0.1)


async def replaced(ring) -> None:
    """An owner that was paused and replaced changes nothing behind its successor's back: what it
    acknowledges is a version after all that were written meanwhile."""
    await ring.ideal()
    client = await ring.client()
    stored = await client.put(b"key", b"before")
    victim = stored.owner.name
    ring.world.pause(victim)
    await asyncio.sleep(3)
    newer = await client.put(b"key", b"meanwhile", timeout_s=20)
    # It comes back without a timer running, and is asked before it hears of anything.
    service = ring.services[victim]
    member = service.members[stored.owner.vnode]
    member.confirmed_at = ring.world.now + 60
    ring.world.resume(victim)
    late = [stored.owner.vnode, b"key", b"\0late", None, 0]
    try:
        version, *_ = await client._call(stored.owner, "dht.put", late, 3)
    except RpcError:
        return
    if version <= newer.version:
        raise AssertionError(f"a write over {newer.version} was acknowledged by {victim}")


async def late_joiner(ring) -> None:
    """Keys are there the moment their new owner begins to answer for them: copy, then switch."""
    await ring.ideal()
    client = await ring.client()
    keys = [b"k%d" % i for i in range(60)]
    for key in keys:
        await client.put(key, b"v")
    ring.world.restart("d5")
    checked: set[int] = set()
    while len(checked) < ring.table["vnodes"]:
        await asyncio.sleep(0.0001)
        for member in ring.services["d5"].members if "d5" in ring.services else ():
            if member.serving and member.core.me.id not in checked:
                checked.add(member.core.me.id)
                held = ring.services["d5"].keeper.store
                missing = [k for k in keys if member.core.owns(key_id(k)) and not held.get(k)]
                assert missing == []


async def power_cut(ring) -> None:
    """All lose their power at once; what was acknowledged is on their disks."""
    await ring.ideal()
    client = await ring.client()
    for i in range(20):
        await client.put(b"k%d" % i, b"v")
    for name in ring.names:
        ring.world.crash(name)
    for name in ring.names:
        ring.world.restart(name)
    await asyncio.sleep(1)
    await ring.ideal()
    for i in range(20):
        found = await client.get(b"k%d" % i)
        assert found is not None


SCENARIOS = {
    death_of_two: {"count": 6, "settings": {"vnodes": 1}},
    swaps: {},
    unreachable: {"count": 4, "settings": {"vnodes": 1}},
    replaced: {"count": 5, "settings": {"vnodes": 1}},
    late_joiner: {"count": 4, "late": 1},
    power_cut: {"count": 4},
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_peer_itself_passes(scenario):
    dht_kit.run(scenario, **SCENARIOS[scenario])


@pytest.mark.parametrize(
    ("bug", "scenario", "by"),
    [
        (bugs.AcknowledgesTooSoon, death_of_two, "assert found is not None, key"),
        (bugs.IgnoresExpectation, swaps, 'assert (await clients[0].get(b"counter")).value =='),
        (bugs.ComparesTooEarly, swaps, 'assert (await clients[0].get(b"counter")).value =='),
        (bugs.TakesNoTurn, swaps, 'assert (await clients[0].get(b"counter")).value =='),
        (bugs.SilenceIsAbsence, unreachable, 'assert await client.get(b"key", timeout_s=0.3)'),
        (bugs.AbsentIfNotHere, unreachable, 'assert await client.get(b"key", timeout_s=0.3)'),
        (bugs.NoFence, replaced, 'raise AssertionError(f"a write over {newer.version}'),
    ],
)
def test_a_bug_of_the_data_is_caught(bug, scenario, by):
    with caught(by):
        dht_kit.run(scenario, kind=bugs.ServiceWith.of(bug), **SCENARIOS[scenario])


def test_one_that_switches_before_it_has_copied_is_caught(monkeypatch):
    monkeypatch.setattr(dht.chord.repair, "Span", bugs.AlwaysSettled)
    with caught("assert missing == []"):
        dht_kit.run(late_joiner, kind=bugs.JoinsWithoutCopy, **SCENARIOS[late_joiner])


def test_one_that_does_not_sync_is_caught(monkeypatch):
    monkeypatch.setattr(dht.server, "Journal", bugs.Unsynced)
    with caught("assert found is not None"):
        dht_kit.run(power_cut, **SCENARIOS[power_cut])


def test_the_oracle_knows_an_ideal_ring_and_a_broken_one():
    ring = rehearsal_kit.Rehearsal(bits=6, successors=2)
    ring.bootstrap(*FIRST)
    assert oracle.flaws(ring.ring(), 2) == []
    assert oracle.violations(ring.ring(), 2) == []
    node = ring.nodes[3]
    node.succ = [rehearsal_kit.contact(33), rehearsal_kit.contact(43)]
    assert oracle.flaws(ring.ring(), 2)
    assert len(oracle.principals(ring.ring())) == 4
    for other in (13, 33):
        ring.nodes[other].succ = [rehearsal_kit.contact(n) for n in (53, 3)]
    assert "principals" in oracle.violations(ring.ring(), 2)[0]
