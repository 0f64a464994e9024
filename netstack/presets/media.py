"""RTP-like: media sent in step over datagrams, and played in step behind a jitter buffer.

    sender = MediaSender(runtime, socket, address, clock_rate=8000, headway=160)
    await sender.stream(frames)                           one each 20 ms

    buffer = JitterBuffer(segments_needed(960, 160, 160), headway=160)
    receiver = MediaReceiver(runtime, socket, buffer, clock_rate=8000, play=show)

Nothing is sent again: a segment that is late is as good as lost, and so is one that waits for it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable

from netstack.presets.datagrams import DatagramSocket
from netstack.presets.jitter import JitterBuffer, JitterEstimate, Slot
from netstack.presets.rtp import (
    SEQUENCE_BITS,
    TIMESTAMP_BITS,
    MalformedRtp,
    RtpPacket,
    Unwrapped,
    decode,
    encode,
)
from netstack.runtime.endpoint import Address
from netstack.runtime.runtime import Runtime


class MediaSender:
    """One source of media.

    Args:
        clock_rate: ticks a second of the media's clock.
        headway: ticks between two segments.
    """

    def __init__(
        self,
        runtime: Runtime,
        socket: DatagramSocket,
        address: Address,
        *,
        clock_rate: int,
        headway: int,
    ) -> None:
        rng = runtime.rng
        self._runtime = runtime
        self._socket = socket
        self._address = address
        self._headway = headway
        self._headway_s = headway / clock_rate
        self._source = rng.getrandbits(32)
        self._sequence = rng.getrandbits(SEQUENCE_BITS)
        self._timestamp = rng.getrandbits(TIMESTAMP_BITS)

    def __repr__(self) -> str:
        return f"<MediaSender {self._source:08x} sequence={self._sequence}>"

    def send(self, payload: bytes) -> None:
        """The next segment, now; raises ValueError if it is too large for a packet."""
        packet = RtpPacket(self._sequence, self._timestamp, self._source, payload)
        self._socket.send(encode(packet), self._address)
        self._sequence = (self._sequence + 1) % (1 << SEQUENCE_BITS)
        self._timestamp = (self._timestamp + self._headway) % (1 << TIMESTAMP_BITS)

    async def stream(self, payloads: Iterable[bytes]) -> None:
        """One segment each headway, the first at once; late wake-ups do not add up."""
        clock = self._runtime.clock
        at = clock.now()
        for payload in payloads:
            await asyncio.sleep(clock.true_delay(at))
            self.send(payload)
            at += self._headway_s


class MediaReceiver:
    """Plays one source: the first that is heard on the socket.

    Args:
        buffer: its headway is the sender's.
        play: called with each slot when it is due, in order.
    """

    def __init__(
        self,
        runtime: Runtime,
        socket: DatagramSocket,
        buffer: JitterBuffer,
        *,
        clock_rate: int,
        play: Callable[[Slot], None],
    ) -> None:
        self.buffer = buffer
        self.estimate = JitterEstimate()
        self.counters: Counter[str] = Counter()
        self._runtime = runtime
        self._socket = socket
        self._clock_rate = clock_rate
        self._play = play
        self._source: int | None = None
        self._sequence = Unwrapped(SEQUENCE_BITS)
        self._timestamp = Unwrapped(TIMESTAMP_BITS)
        self._timer: asyncio.TimerHandle | None = None
        self._task = runtime.spawn(self._receive(), "media")

    def __repr__(self) -> str:
        return f"<MediaReceiver {self.buffer!r} {self.estimate!r}>"

    def stats(self) -> dict[str, float]:
        """What a person wants to see of the play-out, and what it would take to have no gap."""
        buffer, estimate, per_ms = self.buffer, self.estimate, self._clock_rate / 1000
        return {
            "played": buffer.played,
            "concealed": buffer.concealed,
            "late": buffer.late,
            "jitter_ms": estimate.jitter / per_ms,
            "spread_ms": estimate.spread / per_ms,
            "segments": buffer.segments,
            "segments_needed": estimate.segments_needed(buffer.headway),
        }

    async def _receive(self) -> None:
        while True:
            data, _ = await self._socket.receive()
            try:
                packet = decode(data)
            except MalformedRtp:
                self.counters["malformed"] += 1
                continue
            if self._source is None:
                self._source = packet.source
            if packet.source == self._source:
                self._arrived(packet)
            else:
                self.counters["other_sources"] += 1

    def _arrived(self, packet: RtpPacket) -> None:
        now = self._ticks()
        self.estimate.receive(self._timestamp.extend(packet.timestamp), now)
        self.buffer.receive(self._sequence.extend(packet.sequence), packet.payload, now)
        self._play_due()

    def _ticks(self) -> int:
        # Rounded, not cut: the time of a tick must not come out as the tick before it.
        return round(self._runtime.clock.now() * self._clock_rate)

    def _play_due(self) -> None:
        for slot in self.buffer.play(self._ticks()):
            self._play(slot)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self.buffer.next_deadline()
        if due is not None:
            self._timer = self._runtime.call_at(due / self._clock_rate, self._play_due)

    def stop(self) -> None:
        """Play no more."""
        self._task.cancel()
        if self._timer is not None:
            self._timer.cancel()
