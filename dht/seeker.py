"""Finds owners and brings requests to them, over and over until the deadline.

A client is no member of the ring: it asks peers, hop by hop, beginning with those of the cluster
file and with those that it has heard of since.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any, Final

from dht.chord import recursion, wire
from dht.chord.lookup import HOPS_MAX, Lookup, Route
from dht.chord.recursion import FIND, Answer, Question
from dht.chord.ring import BITS, Contact, contact_of
from dht.config import SERVICE
from dht.ranges import Ranges
from dht.results import NotReached, Path
from netstack.rpc.client import RpcClient
from netstack.rpc.errors import BadRequest, DeadlineExceeded, Failed, NotListening, RpcError
from netstack.rpc.node import RpcNode
from netstack.runtime.endpoint import Address

# One hop's limit, one request's to an owner, and the pause before the next attempt: the ring needs
# a moment to heal, and a look-up that fails at once should not be made a thousand times. A read can
# be asked again without harm, so the first waits for an owner that may have died no longer than an
# owner takes that asks its replicas; each next one waits twice as long. An owner that has let a
# call run out is not asked again for SILENT_S: if it is dead, others will own its keys by then.
HOP_S: Final = 0.6
READ_S: Final = 1.0
ATTEMPT_S: Final = 3.0
PAUSE_S: Final[tuple[float, ...]] = (0.01, 0.3)

# In a look-up, a peer that did not answer is asked last for so long.
SILENT_S: Final = 1.5

# With less than this left nothing more is begun.
MOMENT_S: Final = 0.001

# Hops of a walk round the largest ring that anybody would want to walk round.
WALK_MAX: Final = 10_000


class Seeker:
    """The way to owners.

    Args:
        node: a started RpcNode to call from.
        members: name -> address of the peers known at first; others are learnt.
    """

    def __init__(self, node: RpcNode, members: dict[str, Address]) -> None:
        self.ranges = Ranges()
        self._node = node
        self._runtime = node.runtime
        self._now = node.runtime.clock.now
        self._clients: dict[str, RpcClient] = {}
        self._silent: dict[str, float] = {}
        self._mute: dict[str, float] = {}
        self._start = [contact_of(name, *at, 0) for name, at in members.items()]

    async def _call(
        self, to: Contact, method: str, body: Any, timeout_s: float, *, once: bool = False
    ) -> Any:
        """One request to one process; raises RpcError."""
        try:
            answer = await self._client(to).call(method, body, timeout_s=timeout_s, once=once)
        except RpcError as error:
            self._note_silence(to, error)
            raise
        self._note_answer(to)
        return answer

    def _client(self, to: Contact) -> RpcClient:
        client = self._clients.get(to.name)
        if client is None:
            client = self._clients[to.name] = self._node.client(to.address, SERVICE, to.name)
        return client

    def _note_silence(self, of: Contact, error: RpcError) -> None:
        """Remember that it did not answer, if that is what the error means."""
        if not isinstance(error, (Failed, BadRequest)):
            self._silent[of.name] = self._now()
        if isinstance(error, (DeadlineExceeded, NotListening)):
            self._mute[of.name] = self._now()

    def _note_answer(self, of: Contact) -> None:
        if self._silent:
            self._silent.pop(of.name, None)
            self._mute.pop(of.name, None)

    def entrances(self) -> list[Contact]:
        """Whom to begin with: in random order, those who were silent lately last.

        If all of the cluster file were, it may be old: then those heard of since come first.
        """
        known = list(self._start)
        self._runtime.rng.shuffle(known)
        if all(map(self._was_silent, known)):
            known += self.ranges.contacts()
        return sorted(known, key=self._was_silent)

    def _is_mute(self, peer: Contact) -> bool:
        """Whether it let a call run out or was not there just now, and has answered none since."""
        return self._now() - self._mute.get(peer.name, -1e9) < SILENT_S

    def _was_silent(self, peer: Contact) -> bool:
        return self._now() - self._silent.get(peer.name, -1e9) < SILENT_S

    # -- look-ups

    async def find(
        self, target: int, *, walk: bool = False, confirm: bool = True, timeout_s: float = 5.0
    ) -> Path:
        """The owner of an identifier, hop by hop; raises NotReached.

        confirm: it is asked itself. Who has a request for it anyway need not do that.
        """
        began, deadline = self._now(), self._now() + timeout_s
        timeouts: list[Contact] = []
        pause_s = PAUSE_S[0]
        while True:
            for entrance in self.entrances():
                lookup = Lookup(
                    target,
                    [entrance],
                    bits=BITS,
                    hops_max=WALK_MAX if walk else HOPS_MAX,
                    walk=walk,
                    confirm=confirm,
                )
                await self._follow(lookup, walk, deadline)
                timeouts += lookup.dead
                if lookup.found is not None:
                    took_s = self._now() - began
                    return _path(target, lookup.found.owner, lookup.path, timeouts, took_s)
                if deadline - self._now() < MOMENT_S:
                    raise NotReached("no way to the owner was found in time")
            await asyncio.sleep(min(pause_s, max(0.0, deadline - self._now())))
            pause_s = min(2 * pause_s, PAUSE_S[1])

    async def _follow(self, lookup: Lookup, walk: bool, deadline: float) -> None:
        target = wire.pack_id(lookup.target)
        while (peer := lookup.next()) is not None and (left_s := deadline - self._now()) > 0:
            try:
                limit_s = min(self._hop_s(peer), left_s)
                answer = await self._call(peer, "chord.step", [peer.vnode, target, walk], limit_s)
                lookup.answered(peer, wire.read_route(answer))
            except RpcError:
                lookup.failed(peer)

    def _hop_s(self, peer: Contact) -> float:
        """One who was silent just now gets less time to answer."""
        return HOP_S / 2 if self._was_silent(peer) else HOP_S

    async def find_recursively(self, target: int, *, timeout_s: float = 5.0) -> Path:
        """The same, but the peers hand the question on among themselves; raises NotReached."""
        began, deadline = self._now(), self._now() + timeout_s
        timeouts: list[Contact] = []
        failure: object = "no way to the owner was found in time"
        pause_s = PAUSE_S[0]
        while deadline - self._now() > MOMENT_S:
            for entrance in self.entrances():
                if (left_s := deadline - self._now()) < MOMENT_S:
                    break
                question = Question(target, (), frozenset(), left_s)
                try:
                    answer = await self._hand_over(entrance, question)
                except RpcError as error:
                    failure = error
                    timeouts.append(entrance)
                    continue
                timeouts += answer.dead
                if answer.owner is not None:
                    took_s = self._now() - began
                    return _path(target, answer.owner, answer.path, timeouts, took_s)
            await asyncio.sleep(min(pause_s, max(0.0, deadline - self._now())))
            pause_s = min(2 * pause_s, PAUSE_S[1])
        raise NotReached(f"nobody found the owner in time: {failure}")

    async def _hand_over(self, to: Contact, question: Question) -> Answer:
        """`to` says over and over that it is at it, and once what it has found; raises RpcError."""
        limit_s = min(self._hop_s(to), question.left_s)
        body = recursion.pack_question(to, question)
        try:
            async with asyncio.timeout(question.left_s):
                async with contextlib.aclosing(
                    self._client(to).stream(FIND, body, timeout_s=limit_s)
                ) as items:
                    async for item in items:
                        if item is not None:
                            answer = recursion.read_answer(item)
                            self._note_answer(to)
                            return answer
        except TimeoutError:
            pass
        except RpcError as error:
            self._note_silence(to, error)
            raise
        raise DeadlineExceeded(f"{to.name} found no owner in time")

    # -- requests to an owner

    async def owner_of(self, target: int, deadline: float) -> Contact:
        """Who should own it; from memory if possible."""
        known = self.ranges.owner(target)
        if known is not None:
            return known
        left_s = max(0.05, deadline - self._now())
        return (await self.find(target, confirm=False, timeout_s=left_s)).owner

    def misdirected(self, owner: Contact, error: Failed) -> Contact | None:
        """`owner` says that it is none; who is, if it knew."""
        self.ranges.forget(owner)
        try:
            route: Route = wire.read_route(error.details)
        except BadRequest:
            return None
        return route.contacts[0] if route.final and route.contacts else None


def _path(
    target: int, owner: Contact, asked: Iterable[Contact], silent: list[Contact], took_s: float
) -> Path:
    hops = tuple(asked)
    if owner not in hops:
        hops = (*hops, owner)
    return Path(target, owner, hops, tuple(silent), took_s)
