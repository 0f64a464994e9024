"""Which packets have arrived, which are lost, and when to ask (RFC 9002 §6).

    acknowledged     named by an ACK: out of flight, feeds RTT and the congestion window
    lost             one sent PACKET_THRESHOLD later was acknowledged, or one sent a TIME_THRESHOLD
                     of a round trip later: its frames go back to their queues, never the packet
                     itself
    overdue          nothing acknowledged for a probe time-out: send what asks for an answer

Each packet remembers how much had been delivered when it left, so that its acknowledgement tells
at which rate the path delivers.

Packets are kept in a dict in the order of their numbers, so the oldest is the first key, an ACK's
range is a run of pops, and nothing is ever sorted.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

from netstack.transport.congestion.base import Acked, CongestionController
from netstack.transport.ecn import EcnPath
from netstack.transport.rtt import GRANULARITY_S, RttEstimator

PACKET_THRESHOLD: Final = 3  # the lecture's three duplicate acknowledgements
TIME_THRESHOLD: Final = 9 / 8
PERSISTENT_TIMEOUTS: Final = 3  # RFC 9002 §7.6.1


class SentPacket:
    """What is known of a packet in flight. `frames` are owned by it until it is acked or lost."""

    __slots__ = (
        "delivered",
        "delivered_at",
        "frames",
        "number",
        "order",
        "probe_size",
        "sent_at",
        "size",
    )

    def __init__(
        self, number: int, sent_at: float, size: int, frames: list[Any], probe_size: int
    ) -> None:
        self.number = number
        self.sent_at = sent_at
        self.size = size
        self.frames = frames
        self.probe_size = probe_size  # of a path-MTU probe; else 0
        self.order = 0  # among those that ask for an answer
        self.delivered = 0  # by the connection, in bytes, when this left
        self.delivered_at = 0.0  # when the last of these were acknowledged


class Recovery:
    """Packets in flight, and the timers over them."""

    __slots__ = (
        "_asked",
        "_last_eliciting_at",
        "_limited",
        "bytes_in_flight",
        "congestion",
        "delivered",
        "delivered_at",
        "in_flight",
        "largest_acked",
        "loss_at",
        "losses",
        "max_ack_delay_s",
        "probe_max_s",
        "probes_sent",
        "rtt",
        "timeouts",
    )

    def __init__(
        self,
        rtt: RttEstimator,
        congestion: CongestionController,
        max_ack_delay_s: float,
        probe_max_s: float = float("inf"),
    ) -> None:
        self.rtt = rtt
        self.congestion = congestion
        self.max_ack_delay_s = max_ack_delay_s
        self.probe_max_s = probe_max_s
        self.in_flight: dict[int, SentPacket] = {}
        self.bytes_in_flight = 0
        self.delivered = 0  # bytes, so far
        self.delivered_at = 0.0
        self.largest_acked = -1
        self.loss_at: float | None = None
        self.losses = 0
        self.timeouts = 0  # in a row, without an answer
        self.probes_sent = 0
        self._last_eliciting_at = 0.0
        self._limited = False
        self._asked = 0  # packets that ask for an answer, so far

    def __repr__(self) -> str:
        return (
            f"<Recovery in_flight={len(self.in_flight)} bytes={self.bytes_in_flight} "
            f"cwnd={self.congestion.cwnd} losses={self.losses} timeouts={self.timeouts}>"
        )

    def room(self) -> int:
        """Bytes that the congestion window still allows."""
        return self.congestion.cwnd - self.bytes_in_flight

    def window_is_full(self) -> None:
        """The window, not the application, is what bounds the flight now."""
        self._limited = True

    def sent(self, packets: Sequence[SentPacket]) -> None:
        """Ack-eliciting packets have left, all at the same time."""
        in_flight, now = self.in_flight, packets[0].sent_at
        if not in_flight:
            self.delivered_at = now  # idle time is not the path's
        delivered, delivered_at, size = self.delivered, self.delivered_at, 0
        order = self._asked
        for packet in packets:
            packet.order = order
            order += 1
            packet.delivered = delivered
            packet.delivered_at = delivered_at
            in_flight[packet.number] = packet
            size += packet.size
        self._asked = order
        self.bytes_in_flight += size
        self._last_eliciting_at = now

    def acknowledge(
        self,
        ranges: list[tuple[int, int]],
        ack_delay_s: float,
        now: float,
        path: EcnPath | None = None,
        counts: tuple[int, int] | None = None,
    ) -> list[SentPacket]:
        """Take an ACK's ranges (first, last); returns the packets that it newly acknowledges.

        `path` learns from the peer's `counts` how many of them were marked.
        """
        in_flight = self.in_flight
        if not in_flight:
            self.largest_acked = max(self.largest_acked, ranges[0][1])
            return []
        oldest = next(iter(in_flight))
        largest = ranges[0][1]
        # A request or an answer, alone: nothing else can be named.
        newly = [in_flight.pop(oldest)] if oldest == largest else self._taken_out(ranges, oldest)
        if newly:
            latest = newly[-1]
            if latest.number == largest and largest > self.largest_acked:
                most_s, took_s = self.max_ack_delay_s, now - latest.sent_at
                held_s = ack_delay_s if ack_delay_s < most_s else most_s
                self.rtt.sample(took_s if took_s > 1e-6 else 1e-6, held_s)
            self.timeouts = 0
            size = 0
            for packet in newly:
                size += packet.size
            self.bytes_in_flight -= size
            self.delivered += size
            self.delivered_at = now
            marks = path.acknowledged(len(newly), counts) if path is not None else 0
            if self._limited or marks or self.congestion.always_listens:
                self._tell(newly, size, now, marks)
        if largest > self.largest_acked:
            self.largest_acked = largest
        return newly

    def _taken_out(self, ranges: list[tuple[int, int]], oldest: int) -> list[SentPacket]:
        """Those in flight that the ranges name, `oldest` the first of all."""
        in_flight = self.in_flight
        newly: list[SentPacket] = []
        for first, last in reversed(ranges):
            if last < oldest:
                continue
            for number in range(max(first, oldest), last + 1):
                packet = in_flight.pop(number, None)
                if packet is not None:
                    newly.append(packet)
        return newly

    def _tell(self, newly: list[SentPacket], size: int, now: float, marks: int) -> None:
        """Let the congestion controller know."""
        latest = newly[-1]
        # Over the longer of the times in which it was sent and acknowledged: a burst of
        # acknowledgements does not make the path faster.
        took_s = max(now - latest.delivered_at, latest.sent_at - newly[0].sent_at)
        rate = (self.delivered - latest.delivered) / took_s if took_s > 0 else 0.0
        self.congestion.on_acknowledged(
            Acked(
                now,
                size,
                latest.sent_at,
                self._limited,
                self.bytes_in_flight,
                min(1.0, marks / len(newly)) if marks else 0.0,
                self.delivered,
                latest.delivered,
                rate,
            )
        )
        self._limited = False

    def detect_lost(self, now: float) -> list[SentPacket]:
        """Packets that are lost by now; sets `loss_at` for the next that may become so."""
        self.loss_at = None
        lost: list[SentPacket] = []
        slowest = max(self.rtt.latest, self.rtt.smoothed)
        wait_s = max(TIME_THRESHOLD * slowest, GRANULARITY_S)
        for number, packet in self.in_flight.items():
            if number > self.largest_acked:
                break
            late = packet.sent_at + wait_s
            if self.largest_acked - number >= PACKET_THRESHOLD or late <= now:
                lost.append(packet)
            else:
                self.loss_at = late
                break
        if lost:
            self._take_out(lost, now)
        return lost

    def _take_out(self, lost: list[SentPacket], now: float) -> None:
        for packet in lost:
            del self.in_flight[packet.number]
            self.bytes_in_flight -= packet.size
            if packet.probe_size:
                continue  # a probe's loss speaks of the path's MTU, not of congestion (RFC 8899 §3)
            self.losses += 1
            self.congestion.on_lost(packet.sent_at, now, self.bytes_in_flight)
        limit_s = PERSISTENT_TIMEOUTS * self.probe_timeout(back_off=0)
        # Looked at only where it can be: the losses of one moment are mostly close together.
        far_apart = lost[-1].sent_at - lost[0].sent_at > limit_s
        if far_apart and self.rtt.samples and _longest_outage(lost) > limit_s:
            self.congestion.on_persistent_congestion()

    def probe_timeout(self, back_off: int | None = None) -> float:
        """How long after the last packet an answer is overdue (RFC 9002 §6.2.1)."""
        doublings = self.timeouts if back_off is None else back_off
        if not doublings:
            wait_s = self.rtt.rto_s + self.max_ack_delay_s
        else:
            wait_s = self.rtt.rto(doublings) + self.max_ack_delay_s * float(2 ** min(doublings, 16))
        return wait_s if wait_s < self.probe_max_s else self.probe_max_s

    def deadline(self) -> float | None:
        """When to call `detect_lost` or to send a probe."""
        if self.loss_at is not None:
            return self.loss_at
        if not self.in_flight:
            return None
        return self._last_eliciting_at + self.probe_timeout()

    def overdue(self, now: float) -> SentPacket | None:
        """If an answer is overdue, the oldest packet with frames: they go again, as a probe."""
        if self.loss_at is not None or not self.in_flight:
            return None
        if now < self._last_eliciting_at + self.probe_timeout():
            return None
        self.timeouts += 1
        self.probes_sent += 1
        packets = self.in_flight.values()
        # What an earlier probe took over has left its packet: the next one's is older now.
        return next((packet for packet in packets if packet.frames), next(iter(packets)))


def _longest_outage(lost: list[SentPacket]) -> float:
    """The longest time of which everything was lost: no packet between them arrived."""
    longest, begin = 0.0, lost[0]
    for before, packet in pairwise(lost):
        if packet.order != before.order + 1:
            begin = packet
        longest = max(longest, packet.sent_at - begin.sent_at)
    return longest
