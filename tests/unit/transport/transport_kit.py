"""Two connections over a fake link in virtual time: `Pair`.

The link may lose, repeat, delay, damage and cut what it carries; time jumps from one thing that
happens to the next.
"""

from __future__ import annotations

import heapq
import random

from netstack.runtime.policy import LinkPolicy, LinkShaper
from netstack.transport.config import TransportConfig
from netstack.transport.connection import Connection
from netstack.transport.events import Handshaken, StreamData, StreamOpened, TokenReceived
from netstack.transport.handshake import Context, Initiator, Parameters, Responder
from netstack.transport.packet import DATA, INITIAL_IK, INITIAL_XX, Malformed
from security.errors import SecurityError
from security.identity import Authority

NOW = 1_800_000_000.0


def entropy(seed: int):
    return random.Random(seed).randbytes


_authority = Authority.create("c1", now=NOW, entropy=entropy(1))
CLIENT = _authority.issue("client", "client", now=NOW, entropy=entropy(2))
SERVER = _authority.issue("server", "echo", now=NOW, entropy=entropy(3))


class Side:
    """A connection and what it told its application."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.events: list = []
        self.received: dict[int, bytearray] = {}
        self.fins: set[int] = set()
        self.dropped = 0
        self.unread: list[tuple[int, int]] = []
        self.wakes_at = float("inf")


class Pair:
    connection_class = Connection

    def __init__(
        self,
        config: TransportConfig | None = None,
        *,
        seed: int = 0,
        delay: float = 0.01,
        loss: float = 0.0,
        duplicate: float = 0.0,
        corrupt: float = 0.0,
        jitter: float = 0.0,
        mtu: int = 65_507,
        known_static: bytes | None = None,
        connect: bool = True,
        make: type[Connection] | None = None,
    ) -> None:
        self.config = config or TransportConfig()
        self.make = make or Connection
        self.rng = random.Random(seed)
        self.now = 0.0
        self.delay, self.loss, self.duplicate = delay, loss, duplicate
        self.corrupt, self.jitter, self.mtu = corrupt, jitter, mtu
        self.cut: set[str] = set()
        self.client, self.server = Side(), Side()
        self.carried: list[tuple[float, str, bytes]] = []  # (when, from, what) that left
        self.reads = True  # whether applications take what arrives
        self.filter = None  # (source, data) -> bool: whether to carry
        self.links: dict[str, LinkShaper] = {}  # of the direction from that side
        self._queue: list = []
        self._count = 0
        initiator = Initiator(
            self.context(CLIENT, 11), remote_static=known_static, token=b"", now=0.0
        )
        self.client.connection = self.make(self.config, initiator, 11, 0.0)
        if connect:
            self.flush()
            self.run(5.0, lambda: self.open)

    def context(self, identity, local_id: int) -> Context:
        return Context(
            identity=identity,
            service="echo",
            config=self.config,
            entropy=entropy(local_id),
            wall=NOW,
            local_id=local_id,
            parameters=Parameters.of(self.config, bytes([local_id]) * 16, local_id),
        )

    @property
    def open(self) -> bool:
        return all(s.connection and s.connection.state == "open" for s in self.sides)

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.client, self.server

    # -- the link

    def carry(self, source: str, data: bytes) -> None:
        self.carried.append((self.now, source, data))
        if source in self.cut or self.rng.random() < self.loss or len(data) > self.mtu:
            return
        if self.filter is not None and not self.filter(source, data):
            return
        for _ in range(1 + (self.rng.random() < self.duplicate)):
            copy = data
            if self.rng.random() < self.corrupt:
                damaged = bytearray(data)
                damaged[self.rng.randrange(len(damaged))] ^= 1 << self.rng.randrange(8)
                copy = bytes(damaged)
            arrives = self.now + self.delay + self.rng.random() * self.jitter
            passed = [(0.0, copy)]
            if source in self.links:
                shaped = self.links[source].shape(copy, self.now)
                passed = [(at - self.now, data) for at, data in shaped]
            for later, data in passed:
                self._count += 1
                heapq.heappush(self._queue, (arrives + later, self._count, source, data))

    def slow_down(self, source: str, rate: float, queue_bytes: int = 64 * 1024) -> None:
        """What `source` sends passes at so many bytes a second from now on; 0: as it comes."""
        policy = LinkPolicy(rate_bytes_s=rate, queue_bytes=queue_bytes)
        self.links[source] = LinkShaper(policy, self.rng)

    def deliver(self, source: str, data: bytes) -> None:
        side = self.server if source == "client" else self.client
        if side is self.server and data[:1] and data[0] in (INITIAL_XX, INITIAL_IK):
            self.accept(data)
            return
        if side.connection is None or not data:
            side.dropped += 1
            return
        try:
            side.connection.receive_datagram(data, self.now)
        except (SecurityError, Malformed):
            side.dropped += 1

    def accept(self, data: bytes) -> None:
        """What a host does once the address is validated."""
        connection = self.server.connection
        if connection is not None:
            try:
                connection.repeated_initial(data)
            except Malformed:
                self.server.dropped += 1
            return
        try:
            responder = Responder(self.context(SERVER, 22), data, self.now)
        except (SecurityError, Malformed):
            self.server.dropped += 1
            return
        self.server.connection = self.make(self.config, responder, 22, self.now)

    def read_all(self) -> None:
        """The applications take what they have left lying."""
        for side in self.sides:
            unread, side.unread = side.unread, []
            for stream_id, count in unread:
                side.connection.streams.consume(stream_id, count)

    # -- time

    def flush(self) -> None:
        for name, side in (("client", self.client), ("server", self.server)):
            if side.connection is None:
                continue
            self.collect(side)
            for datagram in side.connection.datagrams_to_send(self.now):
                self.carry(name, datagram)
            side.connection.check()
            deadline = side.connection.next_deadline()
            side.wakes_at = float("inf") if deadline is None else deadline

    def collect(self, side: Side) -> None:
        for event in side.connection.take_events():
            if isinstance(event, StreamData):
                side.received.setdefault(event.stream_id, bytearray()).extend(event.data)
                if self.reads:
                    side.connection.streams.consume(event.stream_id, len(event.data))
                else:
                    side.unread.append((event.stream_id, len(event.data)))
                if event.fin:
                    side.fins.add(event.stream_id)
            elif not isinstance(event, (Handshaken, StreamOpened, TokenReceived)):
                side.events.append(event)

    def run(self, seconds: float, until=None) -> bool:
        end = self.now + seconds
        self.flush()
        while until is None or not until():
            arrival = self._queue[0][0] if self._queue else float("inf")
            wake = min(side.wakes_at for side in self.sides)
            upcoming = min(arrival, wake)
            if upcoming > end:
                self.now = end
                return until is not None and until()
            self.now = max(self.now, upcoming)
            if arrival <= wake:
                _, _, source, data = heapq.heappop(self._queue)
                self.deliver(source, data)
            else:
                for side in self.sides:
                    if side.connection is not None and side.wakes_at <= self.now:
                        side.connection.on_deadline(self.now)
            self.flush()
        return True

    def data_packets(self, source: str) -> list[tuple[float, bytes]]:
        return [(t, d) for t, s, d in self.carried if s == source and d[0] & DATA]
