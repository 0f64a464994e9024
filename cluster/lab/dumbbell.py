"""Flows that share one bottleneck: real connections over a simulated line, in virtual time.

    sender 1 ─┐                          ┌─> receiver 1
    sender 2 ─┼─> port (rate, queue) ────┼─> receiver 2       acknowledgements return unhindered
    sender 3 ─┘                          └─> receiver 3

The connections are those of the daemons, handshake and encryption included; only the host and its
socket are missing. Time jumps from one event to the next, and the same seed gives the same run.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from cluster.lab.port import FairPort, Line, Parcel, Port
from netstack.transport.config import TransportConfig
from netstack.transport.connection import OPEN, Connection
from netstack.transport.events import StreamData
from netstack.transport.handshake import Context, Initiator, Parameters, Responder
from netstack.transport.packet import INITIAL_XX, Malformed
from security.errors import SecurityError
from security.identity import Authority, Identity

WALL = 1_800_000_000.0  # any time within the certificates made for it
NEVER = float("inf")

# A sender that always has more: kept in its buffer.
BACKLOG_BYTES = 1 << 20
# So large that only congestion bounds the flight.
WINDOW_BYTES = 1 << 26

MTU = 1200


@dataclass(slots=True)
class Sample:
    """A flow at one moment."""

    at: float
    cwnd: int
    in_flight: int
    rtt_s: float
    received: int  # bytes by the receiving application
    lost: int
    backlog: int  # of the port


@dataclass(slots=True)
class _Side:
    """One connection, and when its timer is set to."""

    connection: Connection | None = None
    wakes_at: float = NEVER


@dataclass
class Flow:
    """A transfer from `start_s` on, for ever."""

    number: int
    name: str
    config: TransportConfig
    rtt_s: float
    start_s: float
    sender: _Side = field(default_factory=_Side)
    receiver: _Side = field(default_factory=_Side)
    received: int = 0
    leaves_at: float = 0.0
    samples: list[Sample] = field(default_factory=list)
    stream: int | None = None

    def between(self, begin: float, end: float) -> float:
        """Bytes a second that the receiving application got in this time."""
        inside = [s for s in self.samples if begin <= s.at <= end]
        if len(inside) < 2:
            return 0.0
        return (inside[-1].received - inside[0].received) / (inside[-1].at - inside[0].at)


class Dumbbell:
    """An experiment's network and its clock."""

    def __init__(self, line: Line, *, seed: int = 1, fair: bool = False) -> None:
        self.now = 0.0
        self.flows: list[Flow] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.port = (FairPort if fair else Port)(line, self, random.Random(f"line {seed}"))
        self._dice = random.Random(f"hosts {seed}")
        self._entropy = random.Random(f"keys {seed}").randbytes
        authority = Authority.create("lab", now=WALL, entropy=self._entropy)
        self._identities = {
            role: authority.issue(role, "lab", now=WALL, entropy=self._entropy)
            for role in ("sender", "receiver")
        }

    def __repr__(self) -> str:
        return f"<Dumbbell t={self.now:.3f} flows={len(self.flows)} {self.port!r}>"

    def later(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Call back after `delay_s` of virtual time."""
        self._count += 1
        heapq.heappush(self._events, (self.now + delay_s, self._count, callback))

    def add(self, congestion: str, *, rtt_s: float, start_s: float = 0.0, name: str = "") -> Flow:
        """A flow with a congestion controller of this name."""
        config = TransportConfig(
            congestion=congestion,
            max_mtu=MTU,
            initial_rtt_s=0.1,
            stream_window=WINDOW_BYTES,
            connection_window=WINDOW_BYTES,
            max_ack_delay_s=0.001,
            idle_timeout_s=3600.0,
            keep_alive_s=0.0,
        )
        flow = Flow(len(self.flows), name or congestion, config, rtt_s, start_s)
        self.flows.append(flow)
        self.later(start_s, lambda: self._start(flow))
        return flow

    def run(self, seconds: float, sample_s: float = 0.02) -> None:
        """Let time pass, taking samples."""
        end = self.now + seconds
        sample_at = self.now
        while self._events and self._events[0][0] <= end:
            at, _, callback = heapq.heappop(self._events)
            while sample_at < at:
                self._sample(sample_at)
                sample_at += sample_s
            self.now = at
            callback()
        self.now = end

    # -- connections

    def _context(self, identity: Identity, config: TransportConfig, local_id: int) -> Context:
        return Context(
            identity=identity,
            service="lab",
            config=config,
            entropy=self._entropy,
            wall=WALL,
            local_id=local_id,
            parameters=Parameters.of(config, bytes(16), local_id),
        )

    def _start(self, flow: Flow) -> None:
        context = self._context(self._identities["sender"], flow.config, 2 * flow.number)
        initiator = Initiator(context, remote_static=None, token=b"", now=self.now)
        flow.sender.connection = Connection(flow.config, initiator, context.local_id, self.now)
        self._pump(flow)

    def _accept(self, flow: Flow, data: bytes) -> None:
        if flow.receiver.connection is not None:
            flow.receiver.connection.repeated_initial(data)
            return
        context = self._context(self._identities["receiver"], flow.config, 2 * flow.number + 1)
        responder = Responder(context, data, self.now)
        flow.receiver.connection = Connection(flow.config, responder, context.local_id, self.now)

    def _pump(self, flow: Flow) -> None:
        """Let both sides say what they have to."""
        self._feed(flow)
        for side, send in ((flow.sender, self._forward), (flow.receiver, self._backward)):
            connection = side.connection
            if connection is None:
                continue
            self._consume(flow, connection)
            for datagram in connection.datagrams_to_send(self.now):
                send(flow, datagram, connection.outgoing.ecn.codepoint)
            deadline = connection.next_deadline()
            if deadline is not None and deadline < side.wakes_at:
                side.wakes_at = deadline
                self.later(max(0.0, deadline - self.now), partial(self._wake, flow, side))

    def _wake(self, flow: Flow, side: _Side) -> None:
        side.wakes_at = NEVER
        if side.connection is not None:
            side.connection.on_deadline(self.now)
            self._pump(flow)

    def _feed(self, flow: Flow) -> None:
        connection = flow.sender.connection
        if connection is None or connection.state != OPEN:
            return
        if flow.stream is None:
            flow.stream = connection.streams.open()
        missing = BACKLOG_BYTES - connection.streams.buffered(flow.stream)
        if missing > BACKLOG_BYTES // 2:
            connection.write(flow.stream, bytes(missing))

    def _consume(self, flow: Flow, connection: Connection) -> None:
        for event in connection.take_events():
            if type(event) is StreamData:
                flow.received += len(event.data)
                connection.streams.consume(event.stream_id, len(event.data))

    # -- the way there and back

    def _forward(self, flow: Flow, data: bytes, mark: int) -> None:
        def arrived(parcel: Parcel) -> None:
            self.later(flow.rtt_s / 2, lambda: self._deliver(flow, flow.receiver, parcel))

        # Hosts are not clockwork. If they were, a full queue would drop the same packets for ever:
        # each would return to it in the same phase (Floyd and Jacobson, 1992).
        at = self.now + self._dice.random() * MTU / self.port.line.rate
        flow.leaves_at = max(flow.leaves_at, at)
        parcel = Parcel(flow.number, data, mark, arrived)
        self.later(flow.leaves_at - self.now, lambda: self.port.take(parcel))

    def _backward(self, flow: Flow, data: bytes, mark: int) -> None:
        parcel = Parcel(flow.number, data, mark, lambda parcel: None)
        self.later(flow.rtt_s / 2, lambda: self._deliver(flow, flow.sender, parcel))

    def _deliver(self, flow: Flow, side: _Side, parcel: Parcel) -> None:
        if side is flow.receiver and parcel.data[0] == INITIAL_XX:
            self._accept(flow, parcel.data)
        elif side.connection is not None:
            try:
                side.connection.receive_datagram(parcel.data, self.now, parcel.mark)
            except (SecurityError, Malformed):
                return  # what overtook the handshake; it is sent again
        self._pump(flow)

    def _sample(self, at: float) -> None:
        for flow in self.flows:
            connection = flow.sender.connection
            if connection is not None:
                recovery = connection.recovery
                flow.samples.append(
                    Sample(
                        at,
                        recovery.congestion.cwnd,
                        recovery.bytes_in_flight,
                        connection.rtt.latest,
                        flow.received,
                        recovery.losses,
                        self.port.backlog,
                    )
                )
