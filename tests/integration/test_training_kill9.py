"""Ranks that are killed, paused and started again, on a real cluster whose leader dies too."""

from __future__ import annotations

import asyncio
import signal

import pytest
from elastic_run_kit import Rank, wait
from ring_kit import PATIENCE

from ddp.card import Card
from ddp.membership import Member, Record
from ddp.records import RaftRecords
from netstack.rpc.caller import caller
from netstack.runtime.config import ClusterConfig
from raftd.client import RaftClient

pytest.importorskip("sklearn", reason="pip install 'ringleader[data]'")

# Some forty processes come and go in here, on a machine that may be busy with others.
pytestmark = pytest.mark.timeout(600)

JOB = {"model": "mlp", "data": "digits", "steps": 4000, "batch": 48, "width": 32, "depth": 1}


@pytest.fixture
def ranks(ring):
    """Starts ranks of one run; afterwards none is left."""
    ring.up()
    started = []

    def start(name, founders=3, **changes):
        config = ring.home / "cluster.toml"
        rank = Rank(config, JOB | changes, "run", name, founders)
        started.append(rank)
        return rank

    yield start
    for rank in started:
        rank.end()


def same_parameters(*ranks):
    """Whatever step two ranks have both applied in the end, they have the same bits."""
    sums = [{s["step"]: (s["epoch"], s["checksum"]) for s in rank.of("step")} for rank in ranks]
    common = set(sums[0]).intersection(*sums[1:])
    assert common
    for step in common:
        assert len({found[step] for found in sums}) == 1, f"step {step}: {[f[step] for f in sums]}"


def healed_before_it_stepped(rank):
    """Since it last was put out, it has taken a step; and was healed before, once or more often:
    an epoch that begins while it heals makes it heal again."""
    kinds = [s["kind"] for s in rank.update() if s["kind"] in ("step", "fenced", "healed")]
    if "fenced" not in kinds:
        return False
    since = kinds[len(kinds) - kinds[::-1].index("fenced") :]
    if "step" not in since:
        return False
    before = since[: since.index("step")]
    assert before, "it has stepped without being healed"
    return set(before) == {"healed"}


def steps_are_whole(rank):
    """One behind the other; who was put out by mistake goes on from where it was healed."""
    following = None
    for said in rank.update():
        if said["kind"] == "healed":
            assert said["step"] >= (following or 0), f"{rank.name} went back: {said}"
            following = said["step"]
        elif said["kind"] == "step":
            assert said["step"] == (following or 0), f"{rank.name} had done {following}: {said}"
            following = said["step"] + 1


def survives(name, alive, ranks):
    """Kill -9 of one: the others name it, go on without it, and heal its next life."""
    alive[name].kill()
    others = [rank for other, rank in alive.items() if other != name]

    def errors(rank):
        return [said["error"] for said in rank.of("lost") if said["name"] == name]

    wait(lambda: all(errors(rank) for rank in others), "a named error", others)
    assert all(f"{name} lost in epoch" in errors(rank)[0] for rank in others)
    assert any("its process ended" in errors(rank)[0] for rank in others), "nobody asked the kernel"
    before = max(rank.steps()[-1] for rank in others)
    wait(lambda: all(r.steps()[-1] > before + 3 for r in others), "steps without it", others)
    assert all(r.of("step")[-1]["members"] == len(others) for r in others)
    again = alive[name] = ranks(name)
    healed = wait(lambda: again.of("healed"), "healing", [again, *others])
    assert healed[0]["source"] in {rank.name for rank in others}
    wait(lambda: len(again.steps()) > 3, "steps of the healed", [again, *others])
    same_parameters(*alive.values())


@pytest.mark.slow
def test_whoever_is_killed_training_goes_on_bit_equal(ring, ranks):
    """A member; then the first, which commits; then the leader of raftd."""
    alive = {name: ranks(name) for name in ("w1", "w2", "w3")}
    every = list(alive.values())
    wait(lambda: all(len(r.steps()) > 5 for r in every), "steps", every)
    survives("w3", alive, ranks)
    survives("w1", alive, ranks)
    before = {rank: rank.steps()[-1] for rank in alive.values()}
    ring("kill", ring.leader())
    wait(lambda: all(r.steps()[-1] > before[r] + 3 for r in before), "steps", list(before))
    same_parameters(*before)
    for rank in before:
        steps_are_whole(rank)


@pytest.mark.slow
def test_the_parameter_server_is_killed_and_the_workers_go_on(ranks):
    """A process of its own, which computes nothing; without it the workers add for themselves."""
    alive = {name: ranks(name) for name in ("w1", "w2", "ps")}
    every = list(alive.values())
    wait(lambda: all(len(r.steps()) > 5 for r in every), "steps", every)
    assert {s["server"] for r in every for s in r.of("step")} == {"ps"}
    survives("ps", alive, ranks)
    assert {s["server"] for s in alive["w1"].of("step") if s["members"] == 2} == {""}
    wait(lambda: alive["w1"].of("step")[-1]["server"] == "ps", "its service", every)
    survives("w1", alive, ranks)
    wait(lambda: alive["w1"].of("step")[-1]["server"] == "ps", "its service", every)
    for rank in alive.values():
        steps_are_whole(rank)


@pytest.mark.slow
def test_who_was_stopped_is_fenced_and_comes_back(ranks):
    first, second, third = (ranks(name) for name in ("w1", "w2", "w3"))
    every = [first, second, third]
    wait(lambda: all(len(r.steps()) > 5 for r in every), "steps", every)
    first.signal(signal.SIGSTOP)
    wait(lambda: second.of("step")[-1]["members"] == 2, "going on without it", every)
    at = second.steps()[-1]
    wait(lambda: second.steps()[-1] > at + 3, "more steps", every)
    first.signal(signal.SIGCONT)
    wait(lambda: healed_before_it_stepped(first), "healing, and a step", every)
    wait(lambda: first.of("step")[-1]["members"] == 3, "all three", every)
    same_parameters(*every)


@pytest.mark.slow
def test_all_are_killed_and_begin_from_their_checkpoints(ranks):
    every = [ranks(name, 2) for name in ("w1", "w2")]
    wait(lambda: all(r.of("checkpoint") for r in every), "checkpoints", every)
    for rank in every:
        rank.kill()
    again = [ranks(name, 2) for name in ("w1", "w2")]
    wait(lambda: all(len(r.steps()) > 3 for r in again), "steps", again)
    kept = max(s["step"] for rank in every for s in rank.of("checkpoint"))
    begun = min(rank.steps()[0] for rank in again)
    assert begun >= 20
    assert begun <= kept
    same_parameters(*again)


def test_a_short_run_to_its_end(ranks):
    """Two ranks, two steps more than one checkpoint: the default run's sign of life."""
    every = [ranks(name, 2, steps=22) for name in ("w1", "w2")]
    ends = [wait(lambda r=r: r.of("finished"), "the end", every)[0] for r in every]
    assert ends[0]["checksum"] == ends[1]["checksum"]
    assert [r.steps() for r in every] == [list(range(22))] * 2
    assert [c["step"] for c in every[0].of("checkpoint")] == [20]


def test_a_parameter_server_has_what_the_workers_have(ranks):
    """It is one more copy, and computes nothing."""
    every = [ranks(name) for name in ("w1", "w2", "ps")]

    def served():
        return [[s for s in r.of("step") if s["server"] == "ps"][3:] for r in every]

    wait(lambda: all(served()), "its service", every)
    same_parameters(*every)


async def test_the_record_in_a_real_store(ring):
    """The twin of the store in memory, which the tests of the core stand on."""
    ring.up()
    async with caller(ClusterConfig.load(ring.home / "cluster.toml"), "cli") as node:
        nodes = ClusterConfig.load(ring.home / "cluster.toml").of_service("raft")
        addresses = {n.name: n.address for n in nodes}

        def records():
            return RaftRecords(node.runtime, RaftClient(node, addresses), "job")

        def member(name, life, **more):
            return Member(name, life, Card(name, "host", 7, ("127.0.0.1", 7)), **more)

        ours, theirs = records(), records()
        me, other = member("w1", "w1.1"), member("w2", "w2.1", healed=False)
        assert await ours.read() is None
        seen, given_up = asyncio.Queue(), asyncio.Queue()
        ours.start(lambda *news: seen.put_nowait(news), lambda: given_up.put_nowait("ours"))
        theirs.start(lambda *news: None, lambda: given_up.put_nowait("theirs"))

        async def until(record, *alive):
            wanted = {m.name: m for m in alive}
            async with asyncio.timeout(PATIENCE):
                while (news := await seen.get()) != (record, wanted):
                    print("passed over", news)

        ours.appear(me)
        await until(None, me)
        theirs.appear(other)
        await until(None, me, other)
        first = Record(1, 0, (me,))
        assert await ours.swap(None, first)
        assert not await ours.swap(None, Record(9, 9, ()))  # too late: it is there
        assert not await ours.swap(Record(1, 0, ()), Record(9, 9, ()))  # from what it is not
        assert await ours.read() == first
        second = Record(2, 1, (me, other), decided_in=1)
        assert await ours.swap(first, second)
        await until(second, me, other)
        # Who is put out is taken off the living with it, and told; he comes back as somebody else.
        third = second.changed([other.life], [])
        assert await ours.swap(second, third)
        await until(third, me)
        assert await asyncio.wait_for(given_up.get(), PATIENCE) == "theirs"
        again = member("w2", "w2.2", healed=False)
        theirs.appear(again)
        await until(third, me, again)
        # A swap that puts out a life does not touch the next one under its name.
        assert not await theirs.swap(second, third)
        await theirs.leave()
        await until(third, me)
        await ours.leave()
        assert given_up.empty()
