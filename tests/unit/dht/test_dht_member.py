"""Who has confirmed an owner: its successor, by naming it as its predecessor."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace

import pytest

from dht.chord import wire
from dht.chord.member import Member
from dht.chord.node import ChordNode
from dht.chord.options import ChordOptions
from dht.chord.outputs import NOTIFY, STATE, State
from dht.chord.ring import contact_of

ALL = sorted(contact_of(f"d{i}", "127.0.0.1", 7000 + i, 0) for i in range(1, 6))
ME, FIRST, *REST = ALL


class Ring:
    """One member, and a successor that says what it is told to."""

    def __init__(self, pred, takes: bool = False) -> None:
        self.asked: list[str] = []
        self.pred, self.takes = pred, takes
        core = ChordNode(ME, ChordOptions(successors=3), random.Random(0))
        core.bootstrap(ALL, 0.0)
        clock = SimpleNamespace(now=lambda: 7.0)
        runtime = SimpleNamespace(clock=clock, spawn=self._spawn, call_at=lambda at, call: None)
        self.tasks: list[asyncio.Task] = []
        self.member = Member(runtime, core, self, lambda member: None)

    def _spawn(self, coroutine, name):
        self.tasks.append(asyncio.ensure_future(coroutine))

    async def call(self, to, method, body, **_):
        self.asked.append(body[1])
        if body[1] == NOTIFY:
            return self.takes
        assert body[1] == STATE
        return wire.pack_state(State(self.pred if to == FIRST else ME, (*REST,)))

    async def stabilised(self) -> Member:
        self.member.core.stabilise(7.0)
        self.member.run()
        while self.tasks:
            await self.tasks.pop(0)
        return self.member


async def test_a_successor_that_names_it_confirms_it_by_that():
    ring = Ring(pred=ME)
    member = await ring.stabilised()
    assert (member.confirmed_by, member.confirmed_at) == (FIRST, 7.0)
    assert member.taken_in == 0
    assert ring.asked == [STATE]


@pytest.mark.parametrize("takes", [True, False])
async def test_one_that_names_another_is_notified_and_confirms_by_taking_it(takes):
    ring = Ring(pred=REST[-1], takes=takes)
    member = await ring.stabilised()
    assert member.confirmed_by == (FIRST if takes else None)
    assert member.serving == takes
    assert member.taken_in == takes
    assert ring.asked == [STATE, NOTIFY]


async def test_nobody_but_the_first_successor_confirms():
    """Somebody between is asked and names it: it is adopted, and then notified."""
    ring = Ring(pred=ME)
    ring.member.core._ask(REST[0], STATE, (), lambda answer, now: None, lambda now: None)
    ring.member.run()
    while ring.tasks:
        await ring.tasks.pop(0)
    assert ring.asked == [STATE]
    assert ring.member.confirmed_by is None
