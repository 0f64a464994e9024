"""The sending half of a connection: what waits, what may leave, what became of it.

    control, datagrams, streams ──(window, pace, room in a packet)──> packets ──> recovery
    acknowledged ──> streams are done with it        lost, overdue ──> back to where it waited

A frame is in one place at a time: its queue, or the packet that carries it. Frames are resent,
packets never; a number is used once.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from netstack.transport import frames as f
from netstack.transport.acks import AckState
from netstack.transport.config import BASE_MTU, TransportConfig
from netstack.transport.controllers import controller
from netstack.transport.ecn import EcnPath
from netstack.transport.errors import ProtocolViolation, TransportError
from netstack.transport.mtu import MtuDiscovery
from netstack.transport.pacing import Pacer
from netstack.transport.packet import DATA, HEADER, OVERHEAD
from netstack.transport.path_rate import PathRate
from netstack.transport.qlog import Trace
from netstack.transport.recovery import PACKET_THRESHOLD, Recovery, SentPacket
from netstack.transport.rtt import ESTIMATORS
from netstack.transport.stream_set import StreamSet
from netstack.transport.streams import SendStream
from security.channel import Session

# Packets and bytes built in one go; what is left goes in the next turn of the loop, after others
# had theirs: the peer works on these meanwhile, and they are still in the processor's cache when
# the kernel copies them.
BURST_PACKETS_MAX: Final = 256
BURST_BYTES_MAX: Final = 512 * 1024

# Unreliable datagrams that wait for room in the window; older ones give way to newer.
DATAGRAMS_WAITING_MAX: Final = 256

# However slow the path: so many packets may be under way, or each would wait for a delayed
# acknowledgement.
CAPPED_PACKETS_MIN: Final = 4

STREAM_OVERHEAD: Final = f.STREAM_HEAD_SIZE

NEVER: Final = float("inf")

# No answer is quicker than this; a division by zero would be.
RTT_S_MIN: Final = 1e-6

PING_FRAME: Final = (f.PING, b"\x01")


class Outgoing:
    """Queues, numbers and packets of one side. `session` is set once the keys are agreed."""

    def __init__(self, config: TransportConfig, acks: AckState, now: float) -> None:
        self.mtu = MtuDiscovery(config.max_mtu)
        self.size = self.mtu.current  # of full packets: what passes, and passes in time
        self.path_rate = PathRate()
        self.rtt = ESTIMATORS[config.timer](config.initial_rtt_s)
        self._controller = controller(config.congestion)
        congestion = self._controller(self.size, self.rtt)
        self.recovery = Recovery(self.rtt, congestion, config.max_ack_delay_s, config.probe_max_s)
        self.ecn = EcnPath(wanted=config.ecn)
        self.control: deque[tuple[int, bytes]] = deque()
        self.trace: Trace | None = None
        self.session: Session | None = None
        self.remote_id = 0
        self.streams: StreamSet
        self.last_sent = now
        self.next_number = 0
        self.paced_until: float | None = None
        self._acks = acks
        self._max_ack_delay_s = config.max_ack_delay_s
        self._queue_s_max = config.queue_s_max
        self._capped = False  # whether that, not the controller, bounds what is in flight
        self._datagrams: deque[bytes] = deque()
        self._pacer = Pacer(BASE_MTU) if config.pacing or congestion.needs_pacing else None
        self._probe_wanted = False
        self._budget = 0.0  # bytes that may still leave now
        self._allowed = 0.0  # what it was at first, by the pace

    def __repr__(self) -> str:
        return f"<Outgoing next={self.next_number} waiting={len(self.control)} {self.recovery!r}>"

    @property
    def burst(self) -> int:
        """Packets built in one go at the most; after so many there may be more."""
        return min(BURST_PACKETS_MAX, BURST_BYTES_MAX // self.size)

    # -- what waits

    def ping(self) -> None:
        """Ask the peer for a sign of life."""
        self.control.append(PING_FRAME)

    def send_datagram(self, data: bytes) -> None:
        """Send unreliably; raises TransportError if it fits no packet."""
        if len(data) > self.mtu.current - OVERHEAD - f.BLOB_HEAD.size:
            raise TransportError(f"a datagram of {len(data)} bytes fits no packet of this path")
        if len(self._datagrams) >= DATAGRAMS_WAITING_MAX:
            self._datagrams.popleft()
        self._datagrams.append(data)

    def keep(self, stream: SendStream) -> None:
        """Copy what this stream was lent, queued or under way: it may have to be sent again."""
        stream.keep()
        for packet in self.recovery.in_flight.values():
            for at, frame in enumerate(packet.frames):
                if frame[0] == f.STREAM and frame[1] is stream:
                    packet.frames[at] = (*frame[:3], bytes(frame[3]), frame[4])

    def _has_something(self, now: float) -> bool:
        """Whether there is anything to send, windows aside."""
        acks = self._acks
        if self.streams.sendable or self.control or acks.due_now or self._probe_wanted:
            return True
        due_at = acks.due_at
        return bool(self._datagrams) or (due_at is not None and now >= due_at)

    # -- what leaves

    def packets(self, now: float) -> list[bytes]:
        """Packets that should leave now, in order."""
        out: list[bytes] = []
        self._fit()
        if self._has_something(now):
            session, recovery, acks = self.session, self.recovery, self._acks
            assert session is not None
            if session.rekey_due(now) and recovery.largest_acked >= session.phase_began:
                session.rekey(now)
            window = self._window() - recovery.bytes_in_flight
            self._budget = window if self._pacer is None else self._paced(self._pacer, window, now)
            burst = self.burst
            while len(out) < burst:
                alone = len(self.streams.sendable) == 1 and not acks.rides(now)
                if alone and self._add_train(out, now):
                    continue
                packet = self._build_packet(now)
                if packet is None:
                    break
                out.append(packet)
                if not self._has_something(now):
                    break
            if self._pacer is not None:
                self._pause(self._pacer, window, now)
        if self.mtu.searching and (size := self.mtu.next_probe(self.path_rate.packet_bytes_max)):
            out.append(self._build_mtu_probe(size, now))
        return out

    def _fit(self) -> None:
        """Let packets be as large as the path carries, and carries in time."""
        size, limit = self.mtu.current, self.path_rate.packet_bytes_max
        if size > limit:
            size = self.mtu.fit(limit, self.size)
        if size != self.size:
            self.size = size
            self.recovery.congestion.on_mtu(size)

    def _window(self) -> int:
        """Bytes that may be in flight."""
        cwnd = self.recovery.congestion.cwnd
        if self._queue_s_max == NEVER or not self.rtt.samples:
            return cwnd
        waits_s = 2 * self.rtt.minimum + self._queue_s_max
        most = max(self.path_rate.bytes_per_s * waits_s, CAPPED_PACKETS_MIN * self.size)
        self._capped = most < cwnd
        return int(most) if self._capped else cwnd

    def _paced(self, pacer: Pacer, window: int, now: float) -> float:
        """How much of the window may leave now."""
        rate = self.recovery.congestion.pacing_rate
        self._allowed = min(window, pacer.allowance(now, rate, self.size))
        return self._allowed

    def _pause(self, pacer: Pacer, window: int, now: float) -> None:
        """A burst has left: until when the rest must wait."""
        spent = self._allowed - self._budget
        pacer.sent(int(spent))
        waits = self._budget <= 0 and window > spent and self._has_something(now)
        rate = self.recovery.congestion.pacing_rate
        self.paced_until = pacer.next_at(rate, self.size) if waits else None

    def _build_packet(self, now: float) -> bytes | None:
        """One DATA packet with as much as fits and may be sent; None if nothing may."""
        sendable, acks = self.streams.sendable, self._acks
        parts: list[bytes | memoryview] = []
        frames: list[Any] = []
        room = (self._size_for_datagram() if self._datagrams else self.size) - OVERHEAD
        rides = acks.rides(now)
        if rides:
            ack = acks.frame(now)
            parts.append(ack)
            room -= len(ack)
        if self._budget > 0 or self._probe_wanted:
            if self.control or self._datagrams:
                room = self._add_control(parts, frames, room)
            if sendable:
                room = self._add_streams(parts, frames, room, now)
        elif sendable and not self._capped:
            self.recovery.window_is_full()
        if not frames:
            if self._probe_wanted:
                parts.append(PING_FRAME[1])
                frames.append(PING_FRAME)
            elif not acks.is_due(now):
                return None
        if self._probe_wanted and not rides:
            self._add_known_ack(parts, room, now)
        if rides:
            if frames:
                frames.append((f.ACK, acks.received.highest))
            acks.sent(now)
        number = self.next_number
        packet = self.seal(bytes(parts[0]) if len(parts) == 1 else b"".join(parts))
        if frames:
            self._probe_wanted = False
            self.last_sent = now
            self._budget -= len(packet)
            self.recovery.sent((SentPacket(number, now, len(packet), frames, 0),))
        return packet

    def _add_known_ack(self, parts: list[bytes | memoryview], room: int, now: float) -> None:
        """Who asks because an answer is overdue tells again what has come, if there is room: where
        much is lost the peer waits as well, for an acknowledgement that did not arrive."""
        if self._acks.received:
            ack = self._acks.frame(now)
            if len(ack) <= room:
                parts.append(ack)

    def _size_for_datagram(self) -> int:
        """Of a packet for the next datagram: it cannot be cut, only let through or not."""
        wanted = OVERHEAD + f.BLOB_HEAD.size + len(self._datagrams[0])
        return max(self.size, min(wanted, self.mtu.current))

    def _add_train(self, out: list[bytes], now: float) -> bool:
        """The case that speed depends on: one stream with much to say, and nothing else to send.

        No acknowledgement is owed. Adds packets that this stream fills as `_build_packet` would
        build them, one after the other; returns whether there were any.
        """
        session = self.session
        if session is None or self.trace is not None:
            return False
        if self.control or self._datagrams or self._probe_wanted:
            return False
        size = self.size
        room = size - OVERHEAD - STREAM_OVERHEAD
        count = min(-(-int(self._budget) // size), self.burst - len(out))
        stream, credit = next(iter(self.streams.sendable.values())), self.streams.send_credit
        offset = stream.next_offset
        pieces = stream.take_full(room, count, credit.room()) if count > 0 else ()
        if not pieces:
            return False
        first = number = self.next_number
        flags, packets = DATA | session.send_phase, []
        for data in pieces:
            header = HEADER.pack(flags, self.remote_id, number)
            frame = f.STREAM_HEAD.pack(f.STREAM, stream.id, offset, room) + data
            out.append(header + session.seal(number, header, frame))
            sent = [(f.STREAM, stream, offset, data, False)]
            packets.append(SentPacket(number, now, size, sent, 0))
            number += 1
            offset += room
        self.next_number = number
        self.last_sent = now
        self._budget -= size * (number - first)
        credit.used += room * (number - first)
        self.recovery.sent(packets)
        self.mtu.packet_was_full(now)
        if not stream.has_something():
            del self.streams.sendable[stream.id]
        return True

    def _add_control(self, parts: list[bytes | memoryview], frames: list[Any], room: int) -> int:
        control = self.control
        while control and len(control[0][1]) <= room:
            frame = control.popleft()
            parts.append(frame[1])
            frames.append(frame)
            room -= len(frame[1])
        datagrams, most = self._datagrams, self.mtu.current - OVERHEAD - f.BLOB_HEAD.size
        while datagrams:
            size = len(datagrams[0])
            if size > room - f.BLOB_HEAD.size and size <= most:
                break  # it has its place in the next packet
            data = datagrams.popleft()
            if size > most:
                continue  # the path carried more when it was taken; it is lost, as it may be
            parts.append(f.BLOB_HEAD.pack(f.DATAGRAM, len(data)) + data)
            frames.append((f.DATAGRAM,))
            room -= len(data) + f.BLOB_HEAD.size
        return room

    def _add_streams(
        self, parts: list[bytes | memoryview], frames: list[Any], room: int, now: float
    ) -> int:
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
            if not stream.has_something():
                del sendable[stream_id]
            elif len(sendable) > 1:
                del sendable[stream_id]
                sendable[stream_id] = stream  # to the end of the queue: the others are next
        if room <= STREAM_OVERHEAD:
            self.mtu.packet_was_full(now)
        return room

    def _build_mtu_probe(self, size: int, now: float) -> bytes:
        number = self.next_number
        packet = self.seal(PING_FRAME[1].ljust(size - OVERHEAD, b"\0"))
        self.recovery.sent((SentPacket(number, now, len(packet), [], size),))
        return packet

    def seal(self, payload: bytes) -> bytes:
        """A DATA packet of these frames, under the next number."""
        session = self.session
        assert session is not None
        number = self.next_number
        self.next_number = number + 1
        header = HEADER.pack(DATA | session.send_phase, self.remote_id, number)
        if self.trace is not None:
            self.trace.sent(number, payload, len(payload) + OVERHEAD)
        return header + session.seal(number, header, payload)

    # -- what became of it

    def on_ack(
        self,
        ranges: list[tuple[int, int]],
        delay_s: float,
        counts: tuple[int, int] | None,
        now: float,
    ) -> None:
        """The peer has these packets; `counts` of its marks of congestion, if it saw any."""
        if ranges[0][1] >= self.next_number:
            raise ProtocolViolation("acknowledgement of a packet never sent")
        recovery = self.recovery
        newest = ranges[0][1] > recovery.largest_acked
        # An older acknowledgement has older counts.
        path = self.ecn if newest and self.ecn.codepoint else None
        acknowledged = recovery.acknowledge(ranges, delay_s, now, path, counts)
        if acknowledged:
            held_s = delay_s if acknowledged[-1].number == ranges[0][1] else 0.0
            self._measure(acknowledged, held_s, now)
        for packet in acknowledged:
            if packet.probe_size:
                self.mtu.probe_arrived(packet.probe_size, now)
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
                    self._acks.received.drop_below(frame[1])
        if recovery.in_flight:
            self._lost(recovery.detect_lost(now), now)
        else:
            recovery.loss_at = None
        if self.trace is not None:
            self.trace.metrics(recovery)

    def _measure(self, acknowledged: list[SentPacket], held_s: float, now: float) -> None:
        """What these tell of the path's rate; the peer held its answer back for `held_s`."""
        latest = acknowledged[-1]
        most_s = self._max_ack_delay_s
        took_s = now - latest.delivered_at - (held_s if held_s < most_s else most_s)
        # Acknowledgements that come in a burst do not make the path faster.
        apart_s = latest.sent_at - acknowledged[0].sent_at
        if took_s < apart_s:
            took_s = apart_s
        if took_s < RTT_S_MIN:
            took_s = RTT_S_MIN
        delivered = self.recovery.delivered - latest.delivered
        self.path_rate.sample(delivered, took_s, latest.size, self.rtt.minimum)

    def new_path(self) -> None:
        """The peer has moved: what was learnt of the way there is void (RFC 9000 §9.4)."""
        self.mtu.restart()
        self.rtt.restart()
        self.path_rate.restart()
        self.size = self.mtu.current
        self.recovery.congestion = self._controller(self.size, self.rtt)

    def on_deadline(self, now: float) -> None:
        """Look for what is lost or overdue."""
        recovery = self.recovery
        if recovery.loss_at is not None and now >= recovery.loss_at:
            self._lost(recovery.detect_lost(now), now)
        overdue = recovery.overdue(now)
        if overdue is not None:
            self._probe(overdue, now)

    def next_deadline(self) -> float | None:
        """When to look, or when the pace allows the next packet."""
        at = self.recovery.deadline()
        if self.paced_until is not None and (at is None or self.paced_until < at):
            return self.paced_until
        return at

    def _probe(self, overdue: SentPacket, now: float) -> None:
        """An answer is overdue: ask again, with the oldest frames, whatever the window says."""
        self.mtu.timed_out(self.recovery.timeouts, now)
        frames, overdue.frames = overdue.frames, []
        self._requeue(frames)
        self._probe_wanted = True

    def _lost(self, packets: list[SentPacket], now: float) -> None:
        for packet in packets:
            if self.trace is not None:
                behind = self.recovery.largest_acked - packet.number
                self.trace.lost(packet.number, overtaken=behind >= PACKET_THRESHOLD)
            if packet.probe_size:
                self.mtu.probe_lost(packet.probe_size, now)
                continue
            self.mtu.lost(packet.size, now)
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
                self.control.append(frame)

    def check(self) -> None:
        """Invariants; raises AssertionError with what is wrong."""
        flight = sum(packet.size for packet in self.recovery.in_flight.values())
        assert flight == self.recovery.bytes_in_flight, f"{self!r}: {flight} bytes are in flight"
        numbers = list(self.recovery.in_flight)
        assert numbers == sorted(numbers), f"{self!r}: in flight out of order: {numbers}"
        assert all(n < self.next_number for n in numbers), f"{self!r}: a number of the future"
        self.streams.check()
