"""Finds owners and brings requests to them, over and over until the deadline.

A client is no member of the ring: it asks peers, hop by hop, beginning with those of the cluster
file and with those that it has heard of since.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from dht.chord import wire
from dht.chord.lookup import HOPS_MAX, Lookup, Route
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
PAUSE_S: Final = (0.01, 0.3)

# In a look-up, a peer that did not answer is asked last for so long.
SILENT_S: Final = 1.5


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
        client = self._clients.get(to.name)
        if client is None:
            client = self._clients[to.name] = self._node.client(to.address, SERVICE, to.name)
        try:
            answer = await client.call(method, body, timeout_s=timeout_s, once=once)
        except RpcError as error:
            if not isinstance(error, (Failed, BadRequest)):
                self._silent[to.name] = self._now()
            if isinstance(error, (DeadlineExceeded, NotListening)):
                self._mute[to.name] = self._now()
            raise
        if self._silent:
            self._silent.pop(to.name, None)
            self._mute.pop(to.name, None)
        return answer

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

    async def find(self, target: int, *, walk: bool = False, timeout_s: float = 5.0) -> Path:
        """The owner of an identifier, hop by hop; raises NotReached."""
        began, deadline = self._now(), self._now() + timeout_s
        timeouts: list[Contact] = []
        pause_s = PAUSE_S[0]
        while True:
            for entrance in self.entrances():
                lookup = Lookup(
                    target, [entrance], bits=BITS, hops_max=10_000 if walk else HOPS_MAX
                )
                await self._follow(lookup, walk, deadline)
                timeouts += lookup.dead
                if lookup.found is not None:
                    owner = lookup.found.owner
                    hops = tuple(lookup.path)
                    if owner not in hops:
                        hops = (*hops, owner)
                    return Path(target, owner, hops, tuple(timeouts), self._now() - began)
                if self._now() > deadline:
                    raise NotReached("no way to the owner was found in time")
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_S[1])

    async def _follow(self, lookup: Lookup, walk: bool, deadline: float) -> None:
        target = wire.pack_id(lookup.target)
        while (peer := lookup.next()) is not None and self._now() < deadline:
            try:
                # One who was silent just now gets less time to answer.
                limit_s = HOP_S / 2 if self._was_silent(peer) else HOP_S
                answer = await self._call(peer, "chord.step", [peer.vnode, target, walk], limit_s)
                lookup.answered(peer, wire.read_route(answer))
            except RpcError:
                lookup.failed(peer)

    async def find_recursively(self, target: int, *, timeout_s: float = 5.0) -> Path:
        """The same, but the peers hand the question on among themselves; raises NotReached."""
        began = self._now()
        failure: RpcError | None = None
        for entrance in self.entrances():
            body = [entrance.vnode, wire.pack_id(target), False, []]
            try:
                owners, path = await self._call(entrance, "chord.find", body, timeout_s)
            except RpcError as error:
                failure = error
                continue
            owner = wire.read_contacts(owners)[0]
            hops = tuple(wire.read_contacts(path))
            if owner not in hops:
                hops = (*hops, owner)
            return Path(target, owner, hops, (), self._now() - began)
        raise NotReached(f"nobody found the owner: {failure}")

    # -- requests to an owner

    async def owner_of(self, target: int, deadline: float) -> Contact:
        """Who should own it; from memory if possible."""
        known = self.ranges.owner(target)
        if known is not None:
            return known
        return (await self.find(target, timeout_s=max(0.05, deadline - self._now()))).owner

    def misdirected(self, owner: Contact, error: Failed) -> Contact | None:
        """`owner` says that it is none; who is, if it knew."""
        self.ranges.forget(owner)
        try:
            route: Route = wire.read_route(error.details)
        except BadRequest:
            return None
        return route.contacts[0] if route.final and route.contacts else None
