"""One connection an address, dialled when it is first needed; what all presets stand on.

Both ends hold certificates of one service, and speak to nobody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from netstack.runtime.endpoint import Address
from netstack.runtime.runtime import Runtime
from netstack.transport.config import TransportConfig
from netstack.transport.errors import ConnectionClosed
from netstack.transport.host import Host
from netstack.transport.peer import Peer
from security.identity import Identity

FOREIGN = 1  # code of the CLOSE for a peer of another service


class Connections:
    """The connections of one socket.

    Args:
        adopt: called with each new one, dialled or accepted, before anything comes of it.
    """

    def __init__(
        self,
        runtime: Runtime,
        identity: Identity,
        service: str,
        config: TransportConfig | None,
        adopt: Callable[[Peer], None],
    ) -> None:
        self.runtime = runtime
        self.service = service
        self._adopt = adopt
        self._peers: dict[Address, Peer] = {}
        self._dials: dict[Address, asyncio.Task[Peer]] = {}
        self.host = Host(runtime, identity, service=service, config=config, on_peer=self._accepted)

    def __repr__(self) -> str:
        return f"<Connections {self.service} open={len(self._peers)} dials={len(self._dials)}>"

    def get(self, address: Address) -> Peer | None:
        """The open connection with `address`."""
        return self._peers.get(address)

    async def to(self, address: Address, timeout_s: float) -> Peer:
        """The connection with `address`, a new one if need be; raises TransportError."""
        peer = self._peers.get(address)
        if peer is not None:
            return peer
        dial = self._dials.get(address)
        if dial is None:
            dial = self._dials[address] = asyncio.ensure_future(self._dial(address, timeout_s))
            dial.add_done_callback(lambda done: self._dialled(address, done))
        await asyncio.wait((dial,))
        if dial.cancelled():
            raise ConnectionClosed("the socket was closed")
        return dial.result()

    def _dialled(self, address: Address, dial: asyncio.Task[Peer]) -> None:
        del self._dials[address]
        if not dial.cancelled():
            dial.exception()  # whoever waited has it; perhaps nobody does any more

    async def _dial(self, address: Address, timeout_s: float) -> Peer:
        peer = await self.host.connect(address, service=self.service, timeout_s=timeout_s)
        self._keep(peer)
        return peer

    def _accepted(self, peer: Peer) -> None:
        if peer.identity.service == self.service:
            self._keep(peer)
        else:
            self.host.end(peer, FOREIGN, f"this is a {self.service}")

    def _keep(self, peer: Peer) -> None:
        address = peer.address
        self._peers[address] = peer
        peer.on_close.append(lambda error: self._ended(address, peer))
        self._adopt(peer)

    def _ended(self, address: Address, peer: Peer) -> None:
        if self._peers.get(address) is peer:
            del self._peers[address]

    async def close(self) -> None:
        """End all connections and the socket."""
        for dial in list(self._dials.values()):
            dial.cancel()
        await self.host.close()
