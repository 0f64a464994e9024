"""Planted bugs of the ring: each a subclass that overrides a method or two."""

from __future__ import annotations

import asyncio
from typing import Any

from dht.chord.copies import Copies
from dht.chord.journal import Journal
from dht.chord.keeper import Gathered, Keeper
from dht.chord.lookup import Route
from dht.chord.node import ChordNode
from dht.chord.outputs import PING, STATE, STEP, State
from dht.chord.recursion import Answer, Recursion, pack_answer
from dht.chord.replicas import Span, followers
from dht.chord.turns import Turns
from dht.chord.writer import settling
from dht.server import DhtService

# -- the protocol


class WrapsWrong(ChordNode):
    """Compares identifiers as numbers: wrong for the one range that spans zero."""

    def owns(self, target):
        return self.pred is not None and self.pred.id < target <= self.me.id


class RoutesPastZeroWrong(ChordNode):
    """The same in a look-up's step: the interval to the successor never wraps."""

    def route(self, target, walk=False):
        first = self.succ[0]
        if self.me.id < target <= first.id:
            return Route(True, tuple(self.succ))
        return Route(False, (first,))


class NeverStabilises(ChordNode):
    """Nobody learns of newcomers, nor of deaths."""

    def stabilise(self, now):
        return


class NotPadded(ChordNode):
    """A dead head is dropped, and the list is shorter from then on."""

    def _drop_head(self, head, now):
        if self.succ[0] == head:
            self._set(self.pred, self.succ[1:] or [head], f"{head!r} is dead")


class AdoptsUnseen(ChordNode):
    """Takes its successor's predecessor for its successor without asking whether it lives."""

    def _ask_closer(self, candidate, now):
        if self._closer(candidate):
            self._set(self.pred, self._padded([candidate, *self.succ[:-1]]), f"closer {candidate}")
        self._notify(now)


class JumpsAhead(ChordNode):
    """Where the head of the list is dead, it forgets the next one with it."""

    def _drop_head(self, head, now):
        super()._drop_head(head, now)
        self._set(self.pred, self._padded(self.succ[1:]), "and the next")


class JoinsWithOneSuccessor(ChordNode):
    """As published: a newcomer knows its successor, and nothing of those behind it."""

    def _become(self, pred, succ, now, how):
        super()._become(pred, succ if how == "bootstrap" else self._padded(succ[:1]), now, how)


class Published(AdoptsUnseen):
    """Chord of 2001: joins knowing one successor and no predecessor, forgets a silent predecessor,
    takes whoever its successor names, and rebuilds nothing of its list but by stabilising."""

    def _become(self, pred, succ, now, how):
        if how == "bootstrap":
            super()._become(pred, succ, now, how)
        else:
            super()._become(None, self._padded(succ[:1]), now, how)

    def rectify(self, candidate, now):
        taken = super().rectify(candidate, now)
        pred = self.pred
        if pred is not None and pred != candidate and not self._step:
            self._ask(
                pred, PING, (), lambda a, t: None, lambda t: self._set(None, self.succ, "nil")
            )
        return taken

    def receive(self, what, body, now):
        if what == STATE and self.state == "member":
            return State(self.pred, tuple(self.succ))
        return super().receive(what, body, now)


class NeverProbes(ChordNode):
    """Two rings that have parted never hear of each other again."""

    def probe(self, now):
        return


class TrustsFingers(ChordNode):
    """Whoever is a finger, and alive, stays one: somebody may have come before it."""

    def _ask_finger(self, finger, start, search, now):
        self._ask(finger, PING, (), lambda answer, now: None, search)


class KeepsDeadFingers(ChordNode):
    """A finger that does not answer stays one."""

    def _ask_finger(self, finger, start, search, now):
        def heard(route, now):
            if not (route.final and route.contacts[0] == finger):
                search(now)

        self._ask(finger, STEP, (start, False), heard, lambda now: None)


class TakesAnybodyForPredecessor(ChordNode):
    """Whoever notifies is the predecessor, closer or not, and nobody is pinged."""

    def rectify(self, candidate, now):
        if candidate != self.me:
            self._set(candidate, self.succ, f"rectify {candidate!r}")
        return True


# -- look-ups


class WalksIntoTheDead(ChordNode):
    """A walk is told of one successor: if that one is dead, it ends there."""

    def route(self, target, walk=False):
        route = super().route(target, walk)
        return route if route.final or not walk else Route(False, route.contacts[:1])


class ForgetsTheList(Recursion):
    """If all between a hop and the target are dead, it does not look behind them."""

    async def _confirmed(self, member, question, here, owners, dead, tried, deadline):
        final = member.core.route(question.target).final
        owners = owners if final else ()
        return await super()._confirmed(member, question, here, owners, dead, tried, deadline)


class GivesUpWithTheNext(Recursion):
    """What the next hop has not found, it does not look for in another way."""

    gave_up = False

    async def _hand_on(self, to, question):
        if self.gave_up:
            return Answer(None, (), (), (to,))
        answer = await super()._hand_on(to, question)
        self.gave_up = answer is not None and answer.owner is None
        return answer

    async def _confirmed(self, member, question, here, owners, *rest):
        return await super()._confirmed(
            member, question, here, () if self.gave_up else owners, *rest
        )


class TrustsTheList(Recursion):
    """Names the owner without asking it."""

    async def _confirmed(self, member, question, here, owners, dead, tried, deadline):
        owner = next(iter(owners), None)
        return Answer(owner, here if owner is None else (*here, owner), dead, tried)


class NeverBeats(Recursion):
    """Does not say that it is at it."""

    async def serve(self, member, question):
        yield pack_answer(await self._find(member, question))


# -- the data


class Promised:
    """A copy of which it is said that it is there."""

    def __init__(self, to) -> None:
        self.to = to

    def when_over(self, call) -> None:
        asyncio.get_running_loop().call_soon(call, None)

    def answered(self) -> bool:
        return True

    async def answer(self) -> int:
        return 1


class AcknowledgesTooSoon(Keeper):
    """Says who will hold a write before they do."""

    def begin(self, member, record):
        async def later() -> None:
            await asyncio.sleep(0.5)
            await self._gathered(member, record, Keeper.begin(self, member, record))

        self._runtime.spawn(later(), "replicate later")
        loop = asyncio.get_running_loop()
        own = loop.create_future()
        loop.call_soon(self.writer.submit, [record], settling(own))
        return Copies(member.core.me.name, own, list(map(Promised, followers(member.core)[:2])), ())


class AbsentIfNotHere(Keeper):
    """What is not in its own memory is absent."""

    def sure(self, member):
        return True


class SilenceIsAbsence(Keeper):
    """A replica that cannot be asked has nothing."""

    async def _gather(self, member, key):
        return Gathered((await super()._gather(member, key)).record, ())


class IgnoresExpectation(Keeper):
    """Compare-and-swap without the comparison."""

    def _next(self, member, write, current):
        return super()._next(member, write._replace(expect=None), current)


class ComparesTooEarly(Keeper):
    """Looks at the version before it is this write's turn."""

    def write_now(self, member, write, done):
        return False

    async def write(self, member, write):
        current = await self._current(member, write.key)
        if write.expect is not None and write.expect == (current.version if current else 0):
            write = write._replace(expect=None)
        await asyncio.sleep(0)
        return await super().write(member, write)


class NoTurns(Turns):
    """It is everybody's turn."""

    def take(self, key):
        return True

    def end(self, key):
        return


class TakesNoTurn(Keeper):
    """A write begins though another one of its key is under way."""

    def __init__(self, *parts) -> None:
        super().__init__(*parts)
        self._turns = NoTurns()


class NoFence(Keeper):
    """A replica keeps what a replaced owner writes."""

    def check_fence(self, owner, records):
        return


class ServiceWith(DhtService):
    """A service with one bug; `of` makes the class."""

    @classmethod
    def of(cls, bug: type) -> type[DhtService]:
        parts = {Keeper: "keeping", Recursion: "handing_on", ChordNode: "core"}
        part = next(name for kind, name in parts.items() if issubclass(bug, kind))
        return type(bug.__name__, (DhtService,), {part: bug})


class JoinsWithoutCopy(DhtService):
    """Takes over a range before its keys are there, and takes it for settled."""

    async def start(self, runtime, identity, config):
        await super().start(runtime, identity, config)

        async def nothing(*_: Any) -> None:
            return

        self.repair.copy_before_join = nothing

    def _found(self, member, record, sure):
        return super()._found(member, record, True)


class Unsynced(Journal):
    """Tells that a batch is durable when it is only written."""

    def append(self, items):
        real = self._file.sync
        self._file.sync = lambda: None
        try:
            super().append(items)
        finally:
            self._file.sync = real


class AlwaysSettled(Span):
    """An owner believes from the start that it has all there is."""

    def settled(self, core):
        return True
