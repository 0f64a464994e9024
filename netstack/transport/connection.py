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
from typing import Any, Final

from netstack.transport import frames as f
from netstack.transport.acks import AckState
from netstack.transport.config import TransportConfig
from netstack.transport.errors import (
    ConnectionClosed,
    ConnectTimeout,
    IdleTimeout,
    NobodyThere,
    PeerRejected,
    PeerRestarted,
    ProtocolViolation,
    TransportError,
)
from netstack.transport.events import (
    Closed,
    DatagramReceived,
    Handshaken,
    PathAnswered,
    TokenReceived,
)
from netstack.transport.handshake import Initiator, Responder
from netstack.transport.outgoing import Outgoing
from netstack.transport.packet import DATA, HEADER, HEADER_SIZE, OVERHEAD, PHASE_BIT, Malformed
from netstack.transport.parser import parse_frames
from netstack.transport.stream_set import StreamSet
from netstack.transport.streams import COPIED_MAX
from security.channel import Session

HANDSHAKE, OPEN, CLOSED = "handshake", "open", "closed"

PROTOCOL_VIOLATION: Final = 2  # code of the CLOSE that answers one

# Answers overdue in a row before a responder asks whether the initiator's socket still exists.
RESPONDER_TIMEOUTS: Final = 2

# Frames that wait to be sent behind a packet of the peer's: a few for each of its streams. Who asks
# (CHALLENGE, STOP) and acknowledges no answer would otherwise fill the queue without end.
CONTROL_WAITING_MAX: Final = 8192


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
        self.acks = AckState(config.max_ack_delay_s)
        self.outgoing = Outgoing(config, self.acks, now)
        self.mtu, self.rtt = self.outgoing.mtu, self.outgoing.rtt
        self.recovery = self.outgoing.recovery
        self.send_datagram = self.outgoing.send_datagram
        self.new_token: bytes | None = None  # a responder gives it to its peer once OPEN
        self.received_packets = 0
        self._handshake: Initiator | Responder | None = handshake
        self._session: Session | None = None
        self._reset_token = b""
        self._events: list[Any] = []
        self._out: list[bytes] = []
        self._last_received = now
        control = self.outgoing.control
        self.streams = StreamSet(config, self.is_initiator, self._events, control)
        self.outgoing.streams = self.streams

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
        return self.outgoing.remote_id

    @property
    def sent_packets(self) -> int:
        """DATA packets sent so far."""
        return self.outgoing.next_number

    # -- what comes in

    def repeated_initial(self, data: bytes) -> None:
        """The initiator sent its INITIAL again: answer again."""
        if isinstance(self._handshake, Responder):
            self._handshake.repeated(data)
            if self.outgoing.trace is not None:
                self.outgoing.trace.handshake_received(data)

    def receive_datagram(self, data: bytes, now: float, mark: int = 0) -> None:
        """Take a datagram, with the two ECN bits it came with.

        Raises SecurityError or Malformed for one that is to be dropped.
        """
        if data[0] & DATA:
            self.receive_data(data, now, mark)
            return
        handshake = self._handshake
        if handshake is not None and self.state != CLOSED:
            rejection: PeerRejected | None = None
            try:
                handshake.receive(data, now)
            except PeerRejected as error:
                rejection = error
            if self.outgoing.trace is not None:
                self.outgoing.trace.handshake_received(data)
            if rejection is not None:
                self._end(rejection)
            if handshake.session is not None and self._session is None:
                self._established(handshake)

    def _established(self, handshake: Initiator | Responder) -> None:
        parameters, self._session = handshake.parameters, handshake.session
        assert parameters is not None
        self.outgoing.session, self.outgoing.remote_id = self._session, handshake.remote_id
        self._reset_token = parameters.reset_token
        self.streams.established(parameters)
        self.mtu.maximum = min(self.mtu.maximum, parameters.max_datagram)
        if self.is_initiator:
            self._open(handshake)
            # The responder waits for something sealed with the new keys.
            self.outgoing.ping()

    def _open(self, handshake: Initiator | Responder) -> None:
        self._enter(OPEN)
        assert handshake.peer is not None
        self._events.append(Handshaken(handshake.peer))
        if self.new_token is not None:
            self.outgoing.control.append(
                (f.NEW_TOKEN, f.BLOB_HEAD.pack(f.NEW_TOKEN, len(self.new_token)) + self.new_token)
            )

    def receive_data(self, data: bytes, now: float, mark: int) -> None:
        """Take a DATA packet; see `receive_datagram`."""
        if self.state == CLOSED:
            return
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
        sealed = data if len(data) <= COPIED_MAX else memoryview(data)
        payload = session.open(number, flags & PHASE_BIT, data[:HEADER_SIZE], sealed[HEADER_SIZE:])
        if self.outgoing.trace is not None:
            self.outgoing.trace.received(number, payload, len(data))
        self.received_packets += 1
        self._last_received = now
        if self._handshake is not None:
            handshake, self._handshake = self._handshake, None
            handshake.confirmed()
            if self.state == HANDSHAKE:
                self._open(handshake)
        try:
            eliciting = parse_frames(self, payload, now)
            if len(self.outgoing.control) > CONTROL_WAITING_MAX:
                raise ProtocolViolation("more is asked than answers are acknowledged")
        except ProtocolViolation as violation:
            self.close(PROTOCOL_VIOLATION, str(violation), now)
            return
        self.acks.arrived(number, mark, now, eliciting=eliciting)

    def receive_reset(self, token: bytes) -> bool:
        """A stateless reset for our remote id; False if the token is not the peer's."""
        if self.state == CLOSED or not self._reset_token:
            return False
        if not hmac.compare_digest(token, self._reset_token):
            return False
        if self.outgoing.trace is not None:
            self.outgoing.trace.reset()
        self._end(PeerRestarted("the peer was restarted and does not know this connection"))
        return True

    @property
    def patience_is_over(self) -> bool:
        """Whether it is time to ask if anybody is there still.

        Who was dialled lives where it was dialled, so one answer that is overdue is enough. Who
        dialled may have moved, and speaks for itself soon, if it lives.
        """
        if not self.is_initiator:
            return self.recovery.timeouts >= RESPONDER_TIMEOUTS
        return self.recovery.timeouts > 0 or self.state == HANDSHAKE

    def nobody_there(self) -> None:
        """No socket is bound to the peer's address."""
        self._end(NobodyThere("the peer's process is gone: nobody listens at its address"))

    # -- frames, called by the parser

    def on_ack(
        self,
        ranges: list[tuple[int, int]],
        delay_s: float,
        counts: tuple[int, int] | None,
        now: float,
    ) -> None:
        """The peer has these packets; see Outgoing."""
        self.outgoing.on_ack(ranges, delay_s, counts, now)

    def on_datagram(self, data: bytes) -> None:
        """An unreliable datagram."""
        self._events.append(DatagramReceived(data))

    def on_new_token(self, token: bytes) -> None:
        """A token for the next connection."""
        self._events.append(TokenReceived(token))

    def on_challenge(self, secret: bytes) -> None:
        """The peer asks whether we live where it sends to."""
        self.outgoing.control.append((f.ANSWER, f.SECRET.pack(f.ANSWER, secret)))

    def on_answer(self, secret: bytes) -> None:
        """The answer to a challenge of ours."""
        self._events.append(PathAnswered(secret))

    def on_close(self, code: int, reason: str) -> None:
        """The peer has ended the connection."""
        self._end(ConnectionClosed(f"closed by the peer: {reason or 'goodbye'}", code))

    # -- the application's calls

    def write(self, stream_id: int, data: bytes | memoryview, *, fin: bool = False) -> None:
        """Queue bytes on a stream; BufferFull (nothing was taken) or the connection's error."""
        if self.error is not None:
            raise self.error
        self.streams.write(stream_id, data, fin)

    def challenge(self, secret: bytes) -> bytes:
        """A packet for an address from which the peer seems to speak now (RFC 9000 §8.2)."""
        return self.outgoing.seal(f.SECRET.pack(f.CHALLENGE, secret))

    def close(self, code: int, reason: str, now: float) -> None:
        """End the connection; the peer is told once, and by stateless resets if that is lost."""
        if self.state == CLOSED:
            return
        if self._session is not None:
            self._out.append(self.outgoing.seal(f.encode_close(code, reason)))
        self._end(ConnectionClosed(f"closed: {reason or 'goodbye'}", code))

    def _end(self, error: TransportError) -> None:
        if self.state != CLOSED:
            self._enter(CLOSED)
            self.error = error
            self._events.append(Closed(error))

    def _enter(self, state: str) -> None:
        self.state = state
        if self.outgoing.trace is not None:
            self.outgoing.trace.state(state)

    # -- what goes out

    def datagrams_to_send(self, now: float) -> list[bytes]:
        """Datagrams that should leave now, in order."""
        out, self._out = self._out, []
        if self._handshake is not None:
            taken = self._handshake.take()
            if self.outgoing.trace is not None:
                for datagram in taken:
                    self.outgoing.trace.handshake_sent(datagram)
            out += taken
        if self.state == OPEN:
            packets = self.outgoing.packets(now)
            return out + packets if out else packets
        return out

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
        at = self.outgoing.next_deadline()
        if at is None and self.config.keep_alive_s:
            at = self._keep_alive_at()
        if at is not None and at < nearest:
            nearest = at
        ack_at = self.acks.due_at
        return ack_at if ack_at is not None and ack_at < nearest else nearest

    def _keep_alive_at(self) -> float:
        return max(self._last_received, self.outgoing.last_sent) + self.config.keep_alive_s

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
        self.outgoing.on_deadline(now)
        idle = not self.recovery.in_flight
        if idle and self.config.keep_alive_s and now >= self._keep_alive_at():
            self.outgoing.ping()

    def take_events(self) -> list[Any]:
        """What happened since the last call."""
        if not self._events:
            return []
        events = self._events.copy()
        self._events.clear()
        return events

    def check(self) -> None:
        """Invariants; raises AssertionError with what is wrong."""
        self.outgoing.check()
