"""One connection, without I/O: datagrams and the time in; datagrams, events, a deadline out.

    receive_datagram(data, now)     what came from the peer's address
    datagrams_to_send(now)          what should leave now; call it after anything else was called
    next_deadline(), on_deadline(now)
    take_events()                   what the application should know, in order
    write, send_datagram, close; and, on `streams`, open, reset, stop, consume

    HANDSHAKE ──(keys agreed)──> OPEN ──(close, reset, silence, violation)──> CLOSED

Streams of the side that dialled have even ids, of the other odd ones; a stream may be used both
ways, and naming one opens all below it. Frames are resent, packets never; a number is used once.

Guarantees: the bytes written to a stream are the bytes read, in order, once, or the connection
fails; what is queued, in flight or out of order is bounded by the windows and buffers of
TransportConfig. Datagrams that are malformed or forged raise SecurityError or Malformed for the
host to count; they change nothing.
"""

from __future__ import annotations

import hmac
from collections import deque
from typing import Any, Final

from netstack.transport import frames as f
from netstack.transport.config import BASE_MTU, TransportConfig
from netstack.transport.congestion.newreno import NewReno
from netstack.transport.errors import (
    ConnectionClosed,
    ConnectTimeout,
    IdleTimeout,
    PeerRejected,
    PeerRestarted,
    ProtocolViolation,
    TransportError,
)
from netstack.transport.events import (
    Closed,
    DatagramReceived,
    Handshaken,
    TokenReceived,
)
from netstack.transport.handshake import Initiator, Responder
from netstack.transport.mtu import MtuDiscovery
from netstack.transport.packet import DATA, HEADER, OVERHEAD, PHASE_BIT, Malformed
from netstack.transport.parser import parse_frames
from netstack.transport.ranges import RangeSet
from netstack.transport.recovery import Recovery, SentPacket
from netstack.transport.rtt import RttEstimator
from netstack.transport.stream_set import StreamSet
from security.channel import Session

HANDSHAKE, OPEN, CLOSED = "handshake", "open", "closed"

# An acknowledgement is due after this many packets that ask for one (RFC 9000 §13.2.2).
ACK_EVERY: Final = 2

# Packets built in one go; what is left goes in the next turn of the loop, after others had theirs.
BURST_PACKETS_MAX: Final = 256

# Unreliable datagrams that wait for room in the window; older ones give way to newer.
DATAGRAMS_WAITING_MAX: Final = 256

STREAM_OVERHEAD: Final = f.STREAM_HEAD.size

PROTOCOL_VIOLATION: Final = 2  # code of the CLOSE that answers one


class Connection:
    """One side of one connection."""

    def __init__(
        self,
        config: TransportConfig,
        handshake: Initiator | Responder,
        local_id: int,
        now: float,
    ) -> None:
        self.config = config
        self.local_id = local_id
        self.state = HANDSHAKE
        self.error: TransportError | None = None
        self.is_initiator = isinstance(handshake, Initiator)
        self.mtu = MtuDiscovery(config.max_mtu)
        self.rtt = RttEstimator(config.initial_rtt_s)
        self.recovery = Recovery(self.rtt, NewReno(self.mtu.current), config.max_ack_delay_s)
        self.new_token: bytes | None = None  # a responder gives it to its peer once OPEN
        self.sent_packets = 0
        self.received_packets = 0
        self._handshake: Initiator | Responder | None = handshake
        self._session: Session | None = None
        self._remote_id = 0
        self._reset_token = b""
        self._events: list[Any] = []
        self._out: list[bytes] = []
        self._number = 0
        self._received = RangeSet()
        self._received_at = 0.0  # when the highest packet came
        self._unacked = 0  # packets that ask for an acknowledgement and have none
        self._ack_at: float | None = None
        self._ack_now = False
        self._last_received = now
        self._last_sent = now
        self._probe_wanted = False
        self._control: deque[tuple[int, bytes]] = deque()
        self._datagrams: deque[bytes] = deque()
        self.streams = StreamSet(config, self.is_initiator, self._events, self._control)

    def __repr__(self) -> str:
        rtt_ms = self.rtt.smoothed * 1000
        return (
            f"<Connection {self.local_id:016x} {self.state} streams={len(self.streams)} "
            f"cwnd={self.recovery.congestion.cwnd} in_flight={self.recovery.bytes_in_flight} "
            f"rtt={rtt_ms:.2f}ms mtu={self.mtu.current} lost={self.recovery.losses}>"
        )

    @property
    def remote_id(self) -> int:
        """The id by which the peer knows this connection."""
        return self._remote_id

    # -- what comes in

    def repeated_initial(self, data: bytes) -> None:
        """The initiator sent its INITIAL again: answer again."""
        if isinstance(self._handshake, Responder):
            self._handshake.repeated(data)

    def receive_datagram(self, data: bytes, now: float) -> None:
        """Take a datagram; raises SecurityError or Malformed for one that is to be dropped."""
        if self.state == CLOSED:
            return
        if data[0] & DATA:
            self._receive_data(data, now)
            return
        handshake = self._handshake
        if handshake is not None:
            try:
                handshake.receive(data, now)
            except PeerRejected as rejection:
                self._end(rejection)
            if handshake.session is not None and self._session is None:
                self._established(handshake)

    def _established(self, handshake: Initiator | Responder) -> None:
        parameters, self._session = handshake.parameters, handshake.session
        assert parameters is not None
        self._remote_id = handshake.remote_id
        self._reset_token = parameters.reset_token
        self.streams.established(parameters)
        self.mtu.maximum = min(self.mtu.maximum, parameters.max_datagram)
        if self.is_initiator:
            self._open(handshake)
            # The responder waits for something sealed with the new keys.
            self._control.append((f.PING, b"\x01"))

    def _open(self, handshake: Initiator | Responder) -> None:
        self.state = OPEN
        assert handshake.peer is not None
        self._events.append(Handshaken(handshake.peer))
        if self.new_token is not None:
            self._control.append(
                (f.NEW_TOKEN, f.BLOB_HEAD.pack(f.NEW_TOKEN, len(self.new_token)) + self.new_token)
            )

    def _receive_data(self, data: bytes, now: float) -> None:
        session = self._session
        if session is None:
            # IK's keys are there at once; XX's come with FINAL. What overtook it is sent again.
            handshake = self._handshake
            if handshake is None or handshake.session is None:
                return
            self._established(handshake)
            session = handshake.session
        if len(data) < OVERHEAD:
            raise Malformed("a DATA packet is too short")
        flags, _, number = HEADER.unpack_from(data)
        view = memoryview(data)
        payload = session.open(number, flags & PHASE_BIT, view[:17], view[17:])
        self.received_packets += 1
        self._last_received = now
        if self._handshake is not None:
            handshake, self._handshake = self._handshake, None
            handshake.confirmed()
            if self.state == HANDSHAKE:
                self._open(handshake)
        in_order = self._received.add(number)
        if number == self._received.highest:
            self._received_at = now
        try:
            eliciting = parse_frames(self, payload, now)
        except ProtocolViolation as violation:
            self.close(PROTOCOL_VIOLATION, str(violation), now)
            return
        if eliciting:
            self._unacked += 1
            if self._unacked >= ACK_EVERY or not in_order:
                self._ack_now = True
            elif self._ack_at is None:
                self._ack_at = now + self.config.max_ack_delay_s

    def receive_reset(self, token: bytes) -> bool:
        """A stateless reset for our remote id; False if the token is not the peer's."""
        if self.state == CLOSED or not self._reset_token:
            return False
        if not hmac.compare_digest(token, self._reset_token):
            return False
        self._end(PeerRestarted("the peer was restarted and does not know this connection"))
        return True

    # -- frames, called by the parser

    def on_ack(self, ranges: list[tuple[int, int]], delay_s: float, now: float) -> None:
        """The peer has these packets."""
        if ranges[0][1] >= self._number:
            raise ProtocolViolation("acknowledgement of a packet never sent")
        recovery = self.recovery
        for packet in recovery.acknowledge(ranges, delay_s, now):
            if packet.probe_size:
                if self.mtu.probe_arrived(packet.probe_size, now):
                    recovery.congestion.on_mtu(self.mtu.current)
                continue
            if packet.size > BASE_MTU:
                self.mtu.large_arrived()
            for frame in packet.frames:
                kind = frame[0]
                if kind == f.STREAM:
                    stream = frame[1]
                    stream.acknowledged(frame[3], frame[4])
                    if stream.fin_wanted and stream.finished:
                        self.streams.forget_if_over(stream.id)
                elif kind == f.ACK:
                    self._received.drop_below(frame[1])
        if recovery.in_flight:
            self._lost(recovery.detect_lost(now), now)
        else:
            recovery.loss_at = None

    def on_datagram(self, data: bytes) -> None:
        """An unreliable datagram."""
        self._events.append(DatagramReceived(data))

    def on_new_token(self, token: bytes) -> None:
        """A token for the next connection."""
        self._events.append(TokenReceived(token))

    def on_close(self, code: int, reason: str) -> None:
        """The peer has ended the connection."""
        self._end(ConnectionClosed(f"closed by the peer: {reason or 'goodbye'}", code))

    # -- the application's calls

    def write(self, stream_id: int, data: bytes, *, fin: bool = False) -> None:
        """Queue bytes on a stream; BufferFull (nothing was taken) or the connection's error."""
        if self.error is not None:
            raise self.error
        self.streams.write(stream_id, data, fin)

    def send_datagram(self, data: bytes) -> None:
        """Send unreliably; raises TransportError if it fits no packet."""
        if len(data) > self.mtu.current - OVERHEAD - f.BLOB_HEAD.size:
            raise TransportError(f"a datagram of {len(data)} bytes fits no packet of this path")
        if len(self._datagrams) >= DATAGRAMS_WAITING_MAX:
            self._datagrams.popleft()
        self._datagrams.append(data)

    def close(self, code: int, reason: str, now: float) -> None:
        """End the connection; the peer is told once, and by stateless resets if that is lost."""
        if self.state == CLOSED:
            return
        if self._session is not None:
            self._out.append(self._seal(f.encode_close(code, reason)))
        self._end(ConnectionClosed(f"closed: {reason or 'goodbye'}", code))

    def _end(self, error: TransportError) -> None:
        if self.state != CLOSED:
            self.state = CLOSED
            self.error = error
            self._events.append(Closed(error))

    # -- what goes out

    def datagrams_to_send(self, now: float) -> list[bytes]:
        """Datagrams that should leave now, in order."""
        out, self._out = self._out, []
        if self._handshake is not None:
            out += self._handshake.take()
        session = self._session
        if self.state != OPEN or session is None:
            return out
        if self._has_something(now):
            if session.rekey_due(now) and self.recovery.largest_acked >= session.phase_began:
                session.rekey(now)
            for _ in range(BURST_PACKETS_MAX):
                packet = self._build_packet(now)
                if packet is None:
                    break
                out.append(packet)
                if not self._has_something(now):
                    break
        if self.mtu.searching and (size := self.mtu.next_probe()):
            out.append(self._build_mtu_probe(size, now))
        return out

    def _has_something(self, now: float) -> bool:
        """Whether there is anything to send, windows aside."""
        if self.streams.sendable or self._control or self._ack_now or self._probe_wanted:
            return True
        ack_at = self._ack_at
        return bool(self._datagrams) or (ack_at is not None and now >= ack_at)

    def _build_packet(self, now: float) -> bytes | None:
        """One DATA packet with as much as fits and may be sent; None if nothing may."""
        sendable = self.streams.sendable
        parts: list[bytes] = []
        frames: list[Any] = []
        room = self.mtu.current - OVERHEAD
        if self._unacked:
            ack = f.encode_ack(self._received, now - self._received_at)
            parts.append(ack)
            room -= len(ack)
        may_send = self.recovery.room() > 0 or self._probe_wanted
        if may_send:
            if self._control or self._datagrams:
                room = self._add_control(parts, frames, room)
            if sendable:
                room = self._add_streams(parts, frames, room, now)
        elif sendable:
            self.recovery.window_is_full()
        if not frames:
            if self._probe_wanted:
                parts.append(b"\x01")
                frames.append((f.PING,))
            elif not self._ack_now and (self._ack_at is None or now < self._ack_at):
                return None
        if self._unacked:
            if frames:
                frames.append((f.ACK, self._received.highest))
            self._unacked = 0
            self._ack_now = False
            self._ack_at = None
        number = self._number
        packet = self._seal(parts[0] if len(parts) == 1 else b"".join(parts))
        if frames:
            self._probe_wanted = False
            self._last_sent = now
            self.recovery.sent(SentPacket(number, now, len(packet), frames, 0))
        return packet

    def _add_control(self, parts: list[bytes], frames: list[Any], room: int) -> int:
        control = self._control
        while control and len(control[0][1]) <= room:
            frame = control.popleft()
            parts.append(frame[1])
            frames.append(frame)
            room -= len(frame[1])
        datagrams = self._datagrams
        while datagrams and len(datagrams[0]) + f.BLOB_HEAD.size <= room:
            data = datagrams.popleft()
            parts.append(f.BLOB_HEAD.pack(f.DATAGRAM, len(data)) + data)
            frames.append((f.DATAGRAM,))
            room -= len(data) + f.BLOB_HEAD.size
        return room

    def _add_streams(self, parts: list[bytes], frames: list[Any], room: int, now: float) -> int:
        """Stream data, one frame a stream, in turn, until the packet is full."""
        sendable, credit = self.streams.sendable, self.streams.send_credit
        for _ in range(len(sendable)):
            if room <= STREAM_OVERHEAD:
                break
            stream_id, stream = next(iter(sendable.items()))
            before = stream.next_offset
            taken = stream.take(room - STREAM_OVERHEAD, credit.room())
            if taken is None:
                del sendable[stream_id]
                if stream.has_something():
                    # The connection's credit is used up; the stream keeps its place.
                    sendable[stream_id] = stream
                    break
                continue
            offset, data, fin = taken
            credit.used += stream.next_offset - before
            kind = f.STREAM_FIN if fin else f.STREAM
            parts.append(f.STREAM_HEAD.pack(kind, stream_id, offset, len(data)))
            parts.append(data)
            frames.append((f.STREAM, stream, offset, data, fin))
            room -= STREAM_OVERHEAD + len(data)
            del sendable[stream_id]
            if stream.has_something():
                sendable[stream_id] = stream  # to the end of the queue: the others are next
        if room <= STREAM_OVERHEAD:
            self.mtu.packet_was_full(now)
        return room

    def _build_mtu_probe(self, size: int, now: float) -> bytes:
        number = self._number
        packet = self._seal(b"\x01".ljust(size - OVERHEAD, b"\0"))
        self.recovery.sent(SentPacket(number, now, len(packet), [], size))
        return packet

    def _seal(self, payload: bytes) -> bytes:
        session = self._session
        assert session is not None
        number = self._number
        self._number = number + 1
        self.sent_packets += 1
        header = HEADER.pack(DATA | session.send_phase, self._remote_id, number)
        return header + session.seal(number, header, payload)

    # -- timers

    def next_deadline(self) -> float | None:
        """When `on_deadline` should be called; None when nothing will ever be due."""
        if self.state == CLOSED:
            return None
        nearest = self._last_received + self.config.idle_timeout_s
        if self._handshake is not None and (at := self._handshake.next_deadline()) is not None:
            nearest = min(nearest, at)
        if self.state != OPEN:
            return nearest
        at = self.recovery.deadline()
        if at is None and self.config.keep_alive_s:
            at = self._keep_alive_at()
        if at is not None and at < nearest:
            nearest = at
        ack_at = self._ack_at
        return ack_at if ack_at is not None and ack_at < nearest else nearest

    def _keep_alive_at(self) -> float:
        return max(self._last_received, self._last_sent) + self.config.keep_alive_s

    def on_deadline(self, now: float) -> None:
        """Whatever is due by `now`."""
        if self.state == CLOSED:
            return
        if now >= self._last_received + self.config.idle_timeout_s:
            self._end(IdleTimeout("nothing was received from the peer for too long"))
            return
        if self._handshake is not None:
            try:
                self._handshake.on_deadline(now)
            except ConnectTimeout as error:
                self._end(error)
                return
        if self.state != OPEN:
            return
        recovery = self.recovery
        if recovery.loss_at is not None and now >= recovery.loss_at:
            self._lost(recovery.detect_lost(now), now)
        overdue = recovery.overdue(now)
        if overdue is not None:
            self._probe(overdue, now)
        elif not recovery.in_flight and self.config.keep_alive_s and now >= self._keep_alive_at():
            self._control.append((f.PING, b"\x01"))

    def _probe(self, overdue: SentPacket, now: float) -> None:
        """An answer is overdue: ask again, with the oldest frames, whatever the window says."""
        if self.mtu.timed_out(self.recovery.timeouts, now):
            self.recovery.congestion.on_mtu(self.mtu.current)
        frames, overdue.frames = overdue.frames, []
        self._requeue(frames)
        self._probe_wanted = True

    def _lost(self, packets: list[SentPacket], now: float) -> None:
        for packet in packets:
            if packet.probe_size:
                self.mtu.probe_lost(packet.probe_size, now)
                continue
            if self.mtu.lost(packet.size, now):
                self.recovery.congestion.on_mtu(self.mtu.current)
            self._requeue(packet.frames)

    def _requeue(self, frames: list[Any]) -> None:
        """Frames of a packet that did not arrive: those that still matter queue again."""
        for frame in frames:
            kind = frame[0]
            if kind == f.STREAM:
                stream = frame[1]
                if stream.reset_code is None:
                    stream.lost(frame[2], frame[3], frame[4])
                    self.streams.sendable[stream.id] = stream
            elif kind not in (f.ACK, f.PING, f.DATAGRAM):
                self._control.append(frame)

    def take_events(self) -> list[Any]:
        """What happened since the last call."""
        if not self._events:
            return []
        events = self._events.copy()
        self._events.clear()
        return events

    def check(self) -> None:
        """Invariants; raises AssertionError with what is wrong."""
        flight = sum(packet.size for packet in self.recovery.in_flight.values())
        assert flight == self.recovery.bytes_in_flight, f"{self!r}: {flight} bytes are in flight"
        numbers = list(self.recovery.in_flight)
        assert numbers == sorted(numbers), f"{self!r}: in flight out of order: {numbers}"
        assert all(n < self._number for n in numbers), f"{self!r}: a number of the future"
        self.streams.check()
