"""The recursive form of a look-up: each hop hands the question on, and brings back the answer.

    asker ──Question──► hop ──Question──► hop ──Question──► the owner's predecessor, which asks it
          ◄─working, working, Answer──── ◄────────────────

Who waits cannot tell a hop that died from one that waits itself for the next to die. So whoever has
a question says every BEAT_S that it is at it; who is silent for one hop's limit is passed over, and
the next best is asked: first all that precede the target, then, if they are all dead, who comes
behind it in the own successor list. A hop that finds no way says so, and whom it has tried, and the
one before goes on: nobody is asked twice. The time that is left travels with the question.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dht.chord import wire
from dht.chord.lookup import Lookup
from dht.chord.member import Member
from dht.chord.node import MEMBER
from dht.chord.peers import Peers
from dht.chord.ring import Contact
from netstack.rpc.errors import (
    BadRequest,
    ConnectionLost,
    DeadlineExceeded,
    RpcError,
    Unavailable,
    brief,
)
from netstack.runtime.runtime import Runtime

FIND: Final = "chord.find"

# How often a hop says that it is at it; well within HOP_S of a client (dht/seeker.py), and at most
# this share of what its own peers take for death.
BEAT_S: Final = 0.15
BEATS: Final = 4

# A look-up is handed on so often at the most.
PATH_MAX: Final = 200

LEFT_S_MAX: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Question:
    """Who owns `target`?"""

    target: int
    path: tuple[Contact, ...]  # by whom it came
    skip: frozenset[Contact]  # who is dead, or knows no way
    left_s: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Who owns it; None: no way was found from here on."""

    owner: Contact | None
    path: tuple[Contact, ...]  # all who were asked on the way, the owner last
    dead: tuple[Contact, ...]
    tried: tuple[Contact, ...]  # who found no way


def pack_question(to: Contact, question: Question) -> list[Any]:
    """In wire form."""
    path, skip = ([wire.pack_contact(c) for c in part] for part in (question.path, question.skip))
    return [to.vnode, wire.pack_id(question.target), path, skip, question.left_s]


def read_question(body: Any) -> tuple[Any, Question]:
    """(which identifier is asked, what); raises BadRequest."""
    if type(body) is not list or len(body) != 5:
        raise BadRequest("find: expected an index, an identifier, two lists and a time")
    index, target, path, skip, left_s = body
    if type(left_s) not in (int, float) or not 0 < left_s <= LEFT_S_MAX:
        raise BadRequest(f"find: no time: {brief(left_s)}")
    route, barred = wire.read_contacts(path), wire.read_contacts(skip)
    return index, Question(wire.read_id(target), tuple(route), frozenset(barred), left_s)


def pack_answer(answer: Answer) -> list[Any]:
    """In wire form; of those in the way only as many as a list may have."""
    lists = (answer.path, answer.dead, answer.tried)
    packed = [[wire.pack_contact(c) for c in part[: wire.CONTACTS_MAX]] for part in lists]
    return [wire.pack_contact(answer.owner), *packed]


def read_answer(item: Any) -> Answer:
    """Raises BadRequest."""
    if type(item) is not list or len(item) != 4:
        raise BadRequest(f"find: no answer: {brief(item)}")
    owner = None if item[0] is None else wire.read_contact(item[0])
    path, dead, tried = (tuple(wire.read_contacts(part)) for part in item[1:])
    return Answer(owner, path, dead, tried)


class Recursion:
    """What a process does with the questions of others."""

    def __init__(self, runtime: Runtime, peers: Peers, members: Sequence[Member]) -> None:
        self._runtime = runtime
        self._peers = peers
        self._members = members  # of this process
        self._now = runtime.clock.now

    def __repr__(self) -> str:
        return f"<Recursion of {self._members!r}>"

    async def serve(self, member: Member, question: Question) -> AsyncGenerator[Any, None]:
        """Items of the stream: nil while at it, then the answer."""
        if member.core.state != MEMBER:
            raise Unavailable(f"{member.core.me!r} is no member of the ring")
        work = self._runtime.spawn(self._find(member, question), "find")
        beat_s = min(BEAT_S, self._peers.timeout_s / BEATS)
        try:
            while not work.done():
                await asyncio.wait((work,), timeout=beat_s)
                if not work.done():
                    yield None
            yield pack_answer(work.result())
        finally:
            work.cancel()

    async def _find(self, member: Member, question: Question) -> Answer:
        """As this identifier knows the ring; what it cannot say, those closer to the target."""
        core, target = member.core, question.target
        deadline = self._now() + question.left_s
        here = (*question.path, core.me)
        route = core.route(target)
        if route.final:
            return await self._confirmed(member, question, here, route.contacts, (), (), deadline)
        dead: list[Contact] = []
        tried: list[Contact] = []
        for to in route.contacts if len(here) < PATH_MAX else ():
            skip = question.skip.union(dead, tried)
            left_s = deadline - self._now()
            if to in skip or to in here or left_s <= 0:
                continue
            answer = await self._hand_on(to, Question(target, here, skip, left_s))
            if answer is None:
                dead.append(to)
                continue
            dead += answer.dead
            tried += answer.tried
            if answer.owner is not None:
                return Answer(answer.owner, answer.path, tuple(dead), tuple(tried))
        barred = (tuple(dead), tuple(tried))
        return await self._confirmed(member, question, here, route.beyond, *barred, deadline)

    async def _hand_on(self, to: Contact, question: Question) -> Answer | None:
        """None: it does not answer."""
        body = pack_question(to, question)
        limit_s = min(self._peers.timeout_s, question.left_s)
        with contextlib.suppress(RpcError, TimeoutError):
            if self._peers.here(to):
                member = self._members[to.vnode]
                return await self._find(member, question) if member.core.state == MEMBER else None
            async with asyncio.timeout(question.left_s):
                async with contextlib.aclosing(self._stream(to, body, limit_s)) as items:
                    async for item in items:
                        if item is not None:
                            return read_answer(item)
        return None

    async def _stream(
        self, to: Contact, body: list[Any], limit_s: float
    ) -> AsyncGenerator[Any, None]:
        """Its items, none of which may take longer than `limit_s`; raises RpcError."""
        self._peers.refuse_silent(to)
        client = await self._peers.reach(to, limit_s)
        try:
            async with contextlib.aclosing(client.stream(FIND, body, timeout_s=limit_s)) as items:
                async for item in items:
                    self._peers.heard(to)
                    yield item
        except (DeadlineExceeded, ConnectionLost, Unavailable):
            self._peers.unheard(to)
            raise

    async def _confirmed(
        self,
        member: Member,
        question: Question,
        here: tuple[Contact, ...],
        owners: tuple[Contact, ...],
        dead: tuple[Contact, ...],
        tried: tuple[Contact, ...],
        deadline: float,
    ) -> Answer:
        """The last hop asks the owner itself, or the next behind it."""
        me = member.core.me
        lookup = Lookup(question.target, (), bits=member.core.options.bits, confirm=True)
        gone = question.skip.union(dead)
        lookup.propose((c for c in owners if c not in gone or c == me), me)
        await member.follow(lookup, deadline)
        dead = (*dead, *lookup.dead)
        if lookup.found is None:
            return Answer(None, here, dead, (*tried, me))
        return Answer(lookup.found.owner, (*here, *lookup.path), dead, tried)
