"""A write's way to the disks: the replicas' copies are under way before the owner's own sync."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace

import pytest

from dht.chord.journal import Journal
from dht.chord.keeper import Keeper
from dht.chord.node import ChordNode
from dht.chord.options import ChordOptions
from dht.chord.records import Record, RecordStore
from dht.chord.ring import contact_of
from dht.chord.writer import Writer
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
