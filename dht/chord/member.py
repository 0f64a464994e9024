"""The shell of one identifier: runs its core by the clock, and carries its questions.

core ──Ask──► Peers ──► another process's `chord.ask`      its answer, or `failed`
     ──Changed──► on_change: ranges have moved
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from dht.chord import wire
from dht.chord.lookup import Lookup, Route
from dht.chord.node import MEMBER, ChordNode
from dht.chord.outputs import GONE, NOTIFY, STATE, STEP, Ask, State
from dht.chord.peers import Peers
from dht.chord.ring import Contact
from netstack.rpc.errors import BadRequest, RpcError, brief
from netstack.runtime.runtime import Runtime

ASK: Final = "chord.ask"
QUESTIONS: Final = frozenset({STATE, STEP, NOTIFY, GONE, "ping"})


class Member:
    """One identifier of this process."""

    def __init__(
        self, runtime: Runtime, core: ChordNode, peers: Peers, on_change: Callable[[Member], None]
    ) -> None:
        self.core = core
        self.tag = repr(core.me)  # of the versions that it gives
        self.confirmed_by: Contact | None = None  # the successor that took us for its predecessor
        self.confirmed_at = float("-inf")
        self.taken_in = 0  # how often a successor that had another predecessor took us for it
        self._runtime = runtime
        self._peers = peers
        self._on_change = on_change
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<Member {self.core!r}>"

    @property
    def alone(self) -> bool:
        """Nobody follows."""
        return not self.core.succ[0].real

    @property
    def serving(self) -> bool:
        """Whether it may answer as an owner: its successor has given up its range to it."""
        return self.core.state == MEMBER and (self.alone or self.confirmed_by is not None)

    @property
    def now(self) -> float:
        """This node's clock."""
        return self._runtime.clock.now()

    def answer(self, what: Any, arguments: Any) -> Any:
        """A question from another process, in wire form; raises BadRequest or NotMember."""
        if what not in QUESTIONS or type(arguments) is not list:
            raise BadRequest(f"no question: {brief(what)}")
        body: tuple[Any, ...] = ()
        if what == STEP:
            if len(arguments) != 2 or type(arguments[1]) is not bool:
                raise BadRequest("step: expected an identifier and whether to walk")
            body = (wire.read_id(arguments[0]), arguments[1])
        elif what in (NOTIFY, GONE):
            body = (wire.read_contact(arguments[0] if arguments else None),)
        answer = self.core.receive(what, body, self.now)
        if what in (NOTIFY, GONE):
            self.run()
        if what == STATE:
            return wire.pack_state(answer)
        return wire.pack_route(answer) if what == STEP else answer

    def run(self) -> None:
        """After anything that may have moved the core: carry out its outputs, set the timer."""
        changed = False
        for output in self.core.take_outputs():
            if isinstance(output, Ask):
                name = f"ask {output.to.name}"
                self._runtime.spawn(self._carry(output), name)
            else:
                changed = True
        if changed:
            self._on_change(self)
        self._arm()

    async def _carry(self, ask: Ask) -> None:
        body = [ask.to.vnode, ask.what, _packed(ask)]
        try:
            answer = await self._peers.call(ask.to, ASK, body, patient=ask.what != STEP)
            if ask.what == STATE:
                answer = wire.read_state(answer)
            elif ask.what == STEP:
                answer = wire.read_route(answer)
        except RpcError:
            self.core.failed(ask.token, self.now)
        else:
            if self._confirms(ask, answer):
                self.confirmed_by, self.confirmed_at = ask.to, self.now
                self.taken_in += ask.what == NOTIFY
                self._on_change(self)
            self.core.answered(ask.token, answer, self.now)
        if not self._closed:
            self.run()

    def _confirms(self, ask: Ask, answer: Any) -> bool:
        """Whether our successor has just said that we are its predecessor."""
        if ask.what == NOTIFY:
            return answer is True
        mine = ask.what == STATE and ask.to == self.core.succ[0] and self.core.state == MEMBER
        return mine and isinstance(answer, State) and answer.pred == self.core.me

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self.core.next_deadline()
        if deadline is not None and not self._closed:
            self._timer = self._runtime.call_at(deadline, self._due)

    def _due(self) -> None:
        self._timer = None
        self.core.on_deadline(self.now)
        self.run()

    async def find(self, target: int, *, start: list[Contact] | None = None) -> Lookup:
        """An iterative look-up by this identifier."""
        lookup = Lookup(target, start or [self.core.me], bits=self.core.options.bits)
        await self.follow(lookup)
        return lookup

    async def follow(self, lookup: Lookup, deadline: float = float("inf")) -> None:
        """Bring a look-up to its end, if it comes to one in time."""
        me, target = self.core.me, lookup.target
        while (peer := lookup.next()) is not None and (left_s := deadline - self.now) > 0:
            if peer == me and self.core.state == MEMBER:
                lookup.answered(peer, self.core.route(target))
                continue
            try:
                lookup.answered(peer, await self._step(peer, target, left_s))
            except RpcError:
                lookup.failed(peer)

    async def _step(self, peer: Contact, target: int, left_s: float) -> Route:
        body = [peer.vnode, STEP, [wire.pack_id(target), False]]
        limit_s = min(self._peers.timeout_s, left_s)
        answer = await self._peers.call(peer, ASK, body, timeout_s=limit_s, patient=False)
        return wire.read_route(answer)

    def close(self) -> None:
        """No timer any more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _packed(ask: Ask) -> list[Any]:
    if ask.what == STEP:
        target, walk = ask.body
        assert isinstance(target, int)
        return [wire.pack_id(target), walk]
    return [wire.pack_contact(c) for c in ask.body if isinstance(c, Contact)]
