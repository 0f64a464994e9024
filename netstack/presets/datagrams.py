"""UDP-like: messages with boundaries, and nothing else promised.

    socket = DatagramSocket(runtime, identity, service="game")
    await socket.bind(("127.0.0.1", 7600))
    socket.send(b"left", ("127.0.0.1", 7601))       # arrives whole, or not at all
    data, source = await socket.receive()

What it does not do is what makes it useful: nothing is sent again, and nothing waits for what was
sent before it. Unlike UDP's, every datagram is sealed, and its sender proven, so it may be lost or
overtaken, but is neither damaged nor doubled.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque

from netstack.presets.connections import Connections
from netstack.runtime.endpoint import Address
from netstack.runtime.runtime import Runtime
from netstack.transport import frames, packet
from netstack.transport.config import BASE_MTU, TransportConfig
from netstack.transport.errors import TransportError
from netstack.transport.peer import Peer
from security.identity import Identity

# No congestion control, as with UDP: the pace is the application's affair, and who sends more than
# the path carries loses the rest. A controller that takes overtaken datagrams for lost ones would
# hold the next ones back, and so add to the very jitter that media suffer from. The window bounds
# only what is remembered of datagrams under way.
CONFIG = TransportConfig(congestion="sliding:1024")

# What fits one packet on every path. Larger ones would get through or not as the path changes.
PAYLOAD_MAX = BASE_MTU - packet.OVERHEAD - frames.BLOB_HEAD.size

# Datagrams that wait while their receiver is dialled, as a kernel keeps a few while ARP asks.
DIALLING_MAX = 16

# Datagrams that wait to be received; what comes then is dropped.
RECEIVED_MAX = 1024

DIAL_TIMEOUT_S = 5.0


class DatagramSocket:
    """One UDP-like socket. `counters` says what became of what was dropped here."""

    def __init__(
        self,
        runtime: Runtime,
        identity: Identity,
        *,
        service: str,
        config: TransportConfig = CONFIG,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._connections = Connections(runtime, identity, service, config, self._adopt)
        self._dialling: dict[Address, deque[bytes]] = {}
        self._received: deque[tuple[bytes, Address]] = deque()
        self._arrival = asyncio.Event()

    def __repr__(self) -> str:
        return f"<DatagramSocket {self._connections!r} waiting={len(self._received)}>"

    @property
    def address(self) -> Address:
        """Where it is bound."""
        return self._connections.host.address

    async def bind(self, address: Address) -> None:
        """Take the port; raises PortTaken or EndpointError."""
        await self._connections.host.start(address)

    async def reach(self, address: Address) -> None:
        """Shake hands now, so that the first datagram need not wait; raises TransportError."""
        await self._connections.to(address, DIAL_TIMEOUT_S)

    def send(self, data: bytes, address: Address) -> None:
        """Send one message; raises ValueError if it is too large for a packet, and else never."""
        if len(data) > PAYLOAD_MAX:
            raise ValueError(f"a datagram of {len(data)} bytes: {PAYLOAD_MAX} are the most")
        peer = self._connections.get(address)
        if peer is not None:
            peer.send_datagram(data)
            return
        waiting = self._dialling.get(address)
        if waiting is None:
            waiting = self._dialling[address] = deque()
            self._connections.runtime.spawn(self._dial(address, waiting), f"dial {address}")
        if len(waiting) < DIALLING_MAX:
            waiting.append(data)
        else:
            self.counters["dropped_while_dialling"] += 1

    async def _dial(self, address: Address, waiting: deque[bytes]) -> None:
        try:
            peer = await self._connections.to(address, DIAL_TIMEOUT_S)
            for data in waiting:
                peer.send_datagram(data)
        except TransportError:
            self.counters["nobody_there"] += len(waiting)
        finally:
            del self._dialling[address]

    async def receive(self) -> tuple[bytes, Address]:
        """The next message and who sent it."""
        while not self._received:
            self._arrival.clear()
            await self._arrival.wait()
        return self._received.popleft()

    def _adopt(self, peer: Peer) -> None:
        source = peer.address  # though it move: an answer finds the same connection
        peer.on_datagram = lambda data: self._arrived(data, source)

    def _arrived(self, data: bytes, source: Address) -> None:
        if len(self._received) >= RECEIVED_MAX:
            self.counters["dropped_unread"] += 1
            return
        self._received.append((data, source))
        self._arrival.set()

    async def close(self) -> None:
        """Release the port."""
        await self._connections.close()
