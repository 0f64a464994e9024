"""A write's way to the disks: the replicas' copies are under way before the owner's own sync."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace

import pytest

from dht.chord import wire
from dht.chord.journal import Journal
from dht.chord.keeper import Keeper, Write
from dht.chord.node import ChordNode
from dht.chord.options import ChordOptions
from dht.chord.records import Record, RecordStore
from dht.chord.replicas import Span
from dht.chord.ring import contact_of
from dht.chord.writer import Writer
from dht.requests import Requests
from netstack.rpc.errors import Failed, Interrupted, Unavailable
from netstack.runtime.disk import Disk
from netstack.runtime.memory_disk import MemoryStorage

ME, *OTHERS = (contact_of(f"d{i}", "127.0.0.1", 7000 + i, 0) for i in range(1, 6))
RECORD = Record(b"key", b"value", 1, "d1")


class Executor:
    """Makes each call on the loop, one turn after it was submitted, as the real one may."""

    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    def submit(self, function, done) -> None:
        def run() -> None:
            self.seen.append("sync")
            function()
            done(None, None)

        asyncio.get_running_loop().call_soon(run)


class Peers:
    """Others: what is pushed to them leaves at the end of the turn, as the transport has it."""

    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    def begin(self, to, method, body):
        asyncio.get_running_loop().call_soon(self.seen.append, "leaves")
        return SimpleNamespace(to=to, answer=self._answer)

    async def _answer(self):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return 1


class Member(SimpleNamespace):
    """One of the process's identifiers; hashable as the real one is."""

    __hash__ = object.__hash__

    def __init__(self, core: ChordNode) -> None:
        super().__init__(core=core)


def made(seen: list[str]) -> tuple[Keeper, SimpleNamespace]:
    core = ChordNode(ME, ChordOptions(successors=4), random.Random(0))
    core.bootstrap([ME, *OTHERS], 0.0)
    runtime = SimpleNamespace(executor=lambda name: Executor(seen))
    settings = SimpleNamespace(replicas=3, copies_min=2)
    store = RecordStore(1 << 20)
    journal, _, _ = Journal.open(Disk(MemoryStorage(), lambda seconds: None))
    keeper = Keeper(runtime, settings, Peers(seen), store, Writer(runtime, journal, store))
    return keeper, Member(core)


async def test_the_copies_leave_before_the_owner_s_own_sync_takes_the_loop():
    seen: list[str] = []
    keeper, member = made(seen)
    holders = await keeper.spread(member, RECORD)
    assert seen == ["leaves", "leaves", "sync"]
    followers = [c.name for c in member.core.succ[:2]]
    assert holders == ["d1", *followers]
    assert keeper.store.get(b"key") == RECORD


@pytest.mark.parametrize("longest_s", [0.4, 1.0, 30.0])
def test_a_successor_s_word_counts_for_two_of_the_ring_s_own_rounds(longest_s):
    """However rare they are set to be, a calm owner answers from memory, and a replaced one soon
    no more."""
    keeper, member = made([])
    member.core.options = ChordOptions(successors=4, stabilise_s=(0.1, longest_s))
    keeper.spans[member] = SimpleNamespace(settled=lambda core: True)
    member.alone, member.confirmed_at = False, 100.0
    for rounds, sure in ((1.0, True), (1.9, True), (2.6, False)):
        member.now = 100.0 + rounds * longest_s
        assert keeper.sure(member) is sure


class Begun:
    """A copy at a replica; the test says what becomes of it."""

    def __init__(self, to) -> None:
        self.to = to
        self.future = asyncio.get_running_loop().create_future()

    def when_over(self, call) -> None:
        self.future.add_done_callback(call)

    def answered(self) -> bool:
        return self.future.done() and self.future.exception() is None

    async def answer(self):
        return await self.future


def writing() -> tuple[Keeper, Member, list[Begun], list[asyncio.Future]]:
    """A keeper that is sure of its range, the copies that it asks for, the tasks that it spawns."""
    keeper, member = made([])
    member.tag, member.run = "d1", lambda: None
    member.now = member.confirmed_at = 0.0
    member.alone = False
    keeper.spans[member] = SimpleNamespace(settled=lambda core: True)
    copies: list[Begun] = []
    tasks: list[asyncio.Future] = []

    def begin(to, method, body):
        copies.append(Begun(to))
        return copies[-1]

    keeper.peers = SimpleNamespace(begin=begin)
    keeper._runtime.clock = SimpleNamespace(wall=lambda: 1000.0)
    keeper._runtime.spawn = lambda work, name: tasks.append(asyncio.ensure_future(work))
    return keeper, member, copies, tasks


async def turns_of_the_loop(count: int = 6) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_write_that_all_keep_is_acknowledged_without_a_task_and_not_before():
    keeper, member, copies, tasks = writing()
    told: list = []
    assert keeper.write_now(member, Write(b"key", b"v", None, 0.0), lambda *what: told.append(what))
    await turns_of_the_loop()
    assert keeper.store.get(b"key") is not None  # on the own disk
    copies[0].future.set_result(1)
    await turns_of_the_loop()
    assert told == []
    copies[1].future.set_result(1)
    await turns_of_the_loop()
    [(record, holders, error)] = told
    assert (record.version, holders, error) == (1, ["d1", *(c.to.name for c in copies)], None)
    assert tasks == []


async def test_the_next_write_of_the_key_has_to_wait_for_its_turn():
    keeper, member, copies, _ = writing()
    told: list = []
    assert keeper.write_now(member, Write(b"key", b"1", None, 0.0), lambda *what: told.append(what))
    assert not keeper.write_now(member, Write(b"key", b"2", None, 0.0), lambda *what: None)
    second = asyncio.ensure_future(keeper.write(member, Write(b"key", b"2", 1, 0.0)))
    for copy in copies[:2]:
        copy.future.set_result(1)
    await turns_of_the_loop()
    for copy in copies[2:]:
        copy.future.set_result(1)
    record, _ = await asyncio.wait_for(second, 1)
    assert record.version == 2  # it saw the first
    assert keeper.write_now(member, Write(b"key", b"3", 2, 0.0), lambda *what: None)


async def test_who_is_silent_is_replaced_by_the_next_along_the_list():
    keeper, member, copies, tasks = writing()
    told: list = []
    assert keeper.write_now(member, Write(b"key", b"v", None, 0.0), lambda *what: told.append(what))
    copies[0].future.set_exception(Unavailable("silent"))
    copies[1].future.set_result(1)
    await turns_of_the_loop()
    assert told == []
    copies[2].future.set_result(1)
    await asyncio.gather(*tasks)
    [(_, holders, error)] = told
    followers = [c.name for c in member.core.succ]
    assert (holders, error) == (["d1", followers[1], followers[2]], None)


async def test_a_replica_that_owns_the_key_by_now_ends_the_write_unacknowledged():
    keeper, member, copies, tasks = writing()
    told: list = []
    assert keeper.write_now(member, Write(b"key", b"v", None, 0.0), lambda *what: told.append(what))
    copies[0].future.set_exception(Failed("mine", "this key is mine"))
    copies[1].future.set_result(1)
    await turns_of_the_loop()
    await asyncio.gather(*tasks)
    [(_, _, error)] = told
    assert isinstance(error, Interrupted)
    assert keeper.write_now(member, Write(b"key", b"w", None, 0.0), lambda *what: None)


async def test_a_version_that_is_not_there_is_a_conflict_at_once_and_keeps_nobody_waiting():
    keeper, member, copies, _ = writing()
    with pytest.raises(Failed, match="version 0, not 3"):
        keeper.write_now(member, Write(b"key", b"v", 3, 0.0), lambda *what: None)
    assert copies == []
    assert keeper.write_now(member, Write(b"key", b"v", 0, 0.0), lambda *what: None)


async def test_an_owner_that_is_not_sure_of_its_range_begins_nothing():
    keeper, member, copies, _ = writing()
    keeper.spans[member] = SimpleNamespace(settled=lambda core: False)
    assert not keeper.write_now(member, Write(b"key", b"v", None, 0.0), lambda *what: None)
    assert copies == []
    assert keeper._turns.take(b"key")


def put(keeper: Keeper, member: Member, *, wanted: bool) -> list:
    """What becomes of a put whose caller still waits for it, or does not."""
    keeper.members = [member]
    member.serving = True
    member.core.owns = lambda identifier: True
    told: list = []
    call = SimpleNamespace(open=wanted, reply=told.append, fail=told.append)
    Requests(keeper._runtime, keeper).put([0, b"key", b"v", None, 0], call)
    return told


async def test_a_put_that_was_cancelled_in_the_train_that_brought_it_is_not_begun():
    """A process that slept finds both: what was given up is done elsewhere, perhaps undone."""
    keeper, member, copies, _ = writing()
    put(keeper, member, wanted=False)
    await turns_of_the_loop()
    assert copies == []
    assert keeper.store.get(b"key") is None


async def test_a_put_is_answered_with_its_version_and_who_holds_it():
    keeper, member, copies, tasks = writing()
    told = put(keeper, member, wanted=True)
    await turns_of_the_loop()
    for copy in copies:
        copy.future.set_result(1)
    await turns_of_the_loop()
    [(version, holders, low)] = told
    assert (version, holders) == (1, ["d1", *(c.to.name for c in copies)])
    assert low == wire.pack_id(member.core.pred.id)
    assert tasks == []


def test_an_owner_that_is_taken_in_again_has_to_compare():
    """Its successor had another predecessor: this one was thought dead, and writes went past it."""
    _, member = made([])
    span = Span(3)
    span.moved(member.core)
    span.settled_low = member.core.pred.id
    span.moved(member.core)
    assert span.settled(member.core)
    span.moved(member.core, taken_in=1)
    assert not span.settled(member.core)
    span.settled_low = member.core.pred.id
    span.moved(member.core, taken_in=1)
    assert span.settled(member.core)
