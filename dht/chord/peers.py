"""Calls to other identifiers, wherever they are: another process, or this one.

One connection a process serves all its identifiers. Who did not answer is not asked again for a
moment by those who only look for a way (`patient=False`); the protocol itself always asks.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final

from dht.chord.ring import Contact
from dht.config import SERVICE
from netstack.rpc.client import RpcClient
from netstack.rpc.errors import ConnectionLost, DeadlineExceeded, Unavailable
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
        now = self._node.runtime.clock.now
        if self.here(to):
            return await self._local(method, body)
        if not patient:
            self._refuse_silent(to)
        limit_s = timeout_s or self.timeout_s
        client = await self._reach(to, limit_s)
        for last in (False, False, True):
            began = now()
            try:
                answer = await client.call(method, body, timeout_s=limit_s)
            except (DeadlineExceeded, Unavailable) as error:
                if not last and now() - began > limit_s + LATE_S:
                    continue  # this process itself was not awake: that says nothing about others
                self._silent[to.name] = now()
                raise error
            self._silent.pop(to.name, None)
            return answer

    async def stream(
        self, to: Contact, method: str, body: Any, *, limit_s: float
    ) -> AsyncGenerator[Any, None]:
        """The items of a stream of another process, none of which may take longer than `limit_s`.

        Raises RpcError. Only for those who look for a way.
        """
        self._refuse_silent(to)
        client = await self._reach(to, limit_s)
        try:
            async with contextlib.aclosing(client.stream(method, body, timeout_s=limit_s)) as items:
                async for item in items:
                    self._silent.pop(to.name, None)
                    yield item
        except (DeadlineExceeded, ConnectionLost, Unavailable):
            self._silent[to.name] = self._node.runtime.clock.now()
            raise

    def here(self, contact: Contact) -> bool:
        """Whether it is an identifier of this very process."""
        return contact.name == self._node.runtime.node

    def _refuse_silent(self, to: Contact) -> None:
        now = self._node.runtime.clock.now()
        if now - self._silent.get(to.name, float("-inf")) < SILENT_S:
            raise Unavailable(f"{to.name} was silent a moment ago")

    async def _reach(self, to: Contact, limit_s: float) -> RpcClient:
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
