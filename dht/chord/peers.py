"""Calls to other identifiers, wherever they are: another process, or this one.

One connection a process serves all its identifiers. Who did not answer is not asked again for a
moment by those who only look for a way (`patient=False`); the protocol itself always asks.

    await peers.call(to, method, body)              one question, one answer
    begun = peers.begin(to, method, body)           under way at once, if there is a connection;
    await begun.answer()                            several at a time need no task each
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

from dht.chord.ring import Contact
from dht.config import SERVICE
from netstack.rpc.client import RpcClient
from netstack.rpc.errors import DeadlineExceeded, RpcError, Unavailable
from netstack.rpc.node import RpcNode

# Silent this short a time ago: not worth waiting for again.
SILENT_S: Final = 1.0

# A limit that is noticed so late was noticed by a process that had not run meanwhile.
LATE_S: Final = 0.1

# A handshake takes milliseconds of both sides' time. When many peers start at once and all dial all
# that they know, none is done in time, and all begin anew: so each dials so many at a time, and one
# that does not answer keeps the others waiting for no longer than its turn.
DIALS: Final = 2
TURN_S: Final = 0.25

# Processes to which a connection is kept; the ring of a laptop has fewer.
PEERS_MAX: Final = 1024

Handler = Callable[[str, Any], Awaitable[Any]]


class Peers:
    """The other processes of the ring.

    Args:
        node: a started RpcNode.
        local: answers a call to an identifier of this very process.
        timeout_s: silence for so long is taken for death.
        turns: of those that dial; one for several peers, where one process has several.
    """

    def __init__(
        self,
        node: RpcNode,
        local: Handler,
        timeout_s: float,
        turns: asyncio.Semaphore | None = None,
    ) -> None:
        self.timeout_s = timeout_s
        self.now = node.runtime.clock.now
        self._node = node
        self._local = local
        self._clients: dict[str, RpcClient] = {}
        self._silent: dict[str, float] = {}
        self._turns = turns or asyncio.Semaphore(DIALS)

    def __repr__(self) -> str:
        return f"<Peers {len(self._clients)} known, {len(self._silent)} silent>"

    async def call(
        self,
        to: Contact,
        method: str,
        body: Any,
        *,
        timeout_s: float | None = None,
        patient: bool = True,
    ) -> Any:
        """The answer of the process of `to`; raises RpcError."""
        now = self.now
        if self.here(to):
            return await self._local(method, body)
        if not patient:
            self.refuse_silent(to)
        limit_s = timeout_s or self.timeout_s
        client = await self.reach(to, limit_s)
        for last in (False, False, True):
            began = now()
            try:
                answer = await client.call(method, body, timeout_s=limit_s)
            except (DeadlineExceeded, Unavailable) as error:
                if not last and now() - began > limit_s + LATE_S:
                    continue  # this process itself was not awake: that says nothing about others
                self.unheard(to)
                raise error
            self.heard(to)
            return answer

    def begin(self, to: Contact, method: str, body: Any) -> Begun:
        """Ask now; the answer is waited for later. As `call` with `patient=False`."""
        future: asyncio.Future[Any] | None = None
        client = self._clients.get(to.name)
        if client is not None and not self.was_silent(to):
            future = client.begin(method, body, self.timeout_s)
        return Begun(self, to, method, body, future)

    def here(self, contact: Contact) -> bool:
        """Whether it is an identifier of this very process."""
        return contact.name == self._node.runtime.node

    def heard(self, of: Contact) -> None:
        """Its process has answered."""
        if self._silent:
            self._silent.pop(of.name, None)

    def unheard(self, of: Contact) -> None:
        """Its process did not answer in time."""
        self._silent[of.name] = self.now()

    def was_silent(self, of: Contact) -> bool:
        """Whether its process let somebody wait in vain a moment ago."""
        if not self._silent:
            return False
        silent_at = self._silent.get(of.name, float("-inf"))
        return self.now() - silent_at < SILENT_S

    def refuse_silent(self, to: Contact) -> None:
        """Raises Unavailable for one that was silent a moment ago."""
        if self.was_silent(to):
            raise Unavailable(f"{to.name} was silent a moment ago")

    async def reach(self, to: Contact, limit_s: float) -> RpcClient:
        """Its client, with a connection if it is there."""
        client = self._client(to)
        if not client._ready():
            await self._dial(client, limit_s)
        return client

    async def _dial(self, client: RpcClient, limit_s: float) -> None:
        """Begin to connect, when it is this one's turn; the call itself waits for the rest."""
        async with self._turns:
            with contextlib.suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(TURN_S):
                    await client.connect(limit_s)

    def _client(self, to: Contact) -> RpcClient:
        client = self._clients.get(to.name)
        if client is None:
            if len(self._clients) >= PEERS_MAX:
                raise Unavailable(f"{PEERS_MAX} processes are known already")
            client = self._clients[to.name] = self._node.client(to.address, SERVICE, to.name)
        return client


class Begun:
    """A question that is under way, or will be as soon as there is a connection."""

    def __init__(
        self,
        peers: Peers,
        to: Contact,
        method: str,
        body: Any,
        future: asyncio.Future[Any] | None,
    ) -> None:
        self.to = to
        self._peers = peers
        self._again = (method, body)
        self._at_once = future is not None
        self._began = peers.now()
        if future is None:
            future = asyncio.ensure_future(peers.call(to, method, body, patient=False))
            future.add_done_callback(_seen)
        self._future = future

    def __repr__(self) -> str:
        return f"<Begun {self._again[0]} at {self.to!r}>"

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self._future.cancel()

    def when_over(self, call: Callable[[Any], None]) -> None:
        """Have `call` called once there is an answer, or will be none."""
        self._future.add_done_callback(call)

    def answered(self) -> bool:
        """Whether there is an answer, no error; if not, `answer` says what became of it."""
        future = self._future
        if not future.done() or future.cancelled() or future.exception() is not None:
            return False
        if self._at_once:
            self._peers.heard(self.to)
        return True

    async def answer(self) -> Any:
        """Raises RpcError."""
        try:
            answer = await self._future
        except RpcError as error:
            if not self._at_once or not isinstance(error, (DeadlineExceeded, Unavailable)):
                raise
            if self._peers.now() - self._began > self._peers.timeout_s + LATE_S:
                # This process itself was not awake: ask once more.
                method, body = self._again
                return await self._peers.call(self.to, method, body, patient=False)
            self._peers.unheard(self.to)
            raise
        if self._at_once:
            self._peers.heard(self.to)
        return answer


def _seen(ended: asyncio.Future[Any]) -> None:
    """Its error, if it has one, is for whoever waits; there may be nobody any more."""
    if not ended.cancelled():
        ended.exception()
