"""Planted bugs of the presets and the tunnel, each one thing that is easily got wrong."""

from __future__ import annotations

import asyncio
import math

from netstack.presets.bytestream import ByteStream, StreamSocket
from netstack.presets.connections import Connections
from netstack.presets.datagrams import DatagramSocket
from netstack.presets.jitter import JitterBuffer, JitterEstimate
from netstack.presets.rtp import Unwrapped
from netstack.transport.config import TransportConfig
from netstack.tunnel.relay import Relay

# -- the jitter buffer and its size


def rounds_down(longest, shortest, headway):
    return (longest - shortest) // headway


def divides_by_the_mean_delay(longest, shortest, headway):
    mean = (longest + shortest) / 2
    return math.ceil((longest - shortest) / mean) if mean else 0


def takes_one_more_to_be_safe(longest, shortest, headway):
    return math.ceil((longest - shortest) / headway) + 1


class BeginsWithTheLastOfTheFirst(JitterBuffer):
    """Waits until `segments` are there, the first among them: that is a headway too short."""

    def _begin(self, index, now):
        super()._begin(index, now)
        self._due = max(now, self._due - self.headway)


class PlaysWhatIsLate(JitterBuffer):
    def receive(self, index, payload, now):
        super().receive(max(index, self._next), payload, now)


class WaitsForWhatIsMissing(JitterBuffer):
    def play(self, now):
        slots = []
        while self._due is not None and self._due <= now and self._next in self._held:
            slots.append(self._play_next(self._due))
        return slots


class PlaysFromTheFirstToArrive(JitterBuffer):
    def _begin_earlier(self, index, now):
        return


class TakesCopiesForLate(JitterBuffer):
    def _come_late(self, index):
        self.late += 1


class NeverFallsSilent(JitterBuffer):
    def _conceal(self, index):
        super()._conceal(index)
        self._silent = 0


class KeepsWhateverComes(JitterBuffer):
    def receive(self, index, payload, now):
        super().receive(index, payload, now)
        self._held.setdefault(index, payload)


class DoesNotSmooth(JitterEstimate):
    def receive(self, timestamp, now):
        last = self._last
        super().receive(timestamp, now)
        if last is not None:
            self._scaled = abs(self._last - last) << 4


# -- numbers that wrap


class DoesNotWrap(Unwrapped):
    def extend(self, value):
        return value


class TakesLateForTheNextRound(Unwrapped):
    def extend(self, value):
        extended = super().extend(value)
        return extended if extended >= self._highest else extended + self._range


class KnowsOneRoundOnly(Unwrapped):
    def extend(self, value):
        return super().extend(value) % (2 * self._range)


# -- datagrams


class HasCongestionControl(DatagramSocket):
    def __init__(self, runtime, identity, *, service):
        super().__init__(runtime, identity, service=service, config=TransportConfig())


class SendsToBeSure(DatagramSocket):
    def send(self, data, address):
        super().send(data, address)
        super().send(data, address)


class JoinsMessages(DatagramSocket):
    async def receive(self):
        data, source = await super().receive()
        while self._received and self._received[0][1] == source:
            data += self._received.popleft()[0]
        return data, source


class KeepsAllThatNobodyReads(DatagramSocket):
    def _arrived(self, data, source):
        self._received.append((data, source))
        self._arrival.set()


class TalksToAnybody(Connections):
    def _accepted(self, peer):
        self._keep(peer)


# -- byte streams


class ClosesForHalfClosing(ByteStream):
    def finish(self):
        super().finish()
        if self.error is None and not self._ended:
            self._stream.receiver = lambda data, fin: None


class EndsWhenTheOtherDoes(ByteStream):
    async def read(self, most=1 << 20):
        data = await super().read(most)
        if not data:
            self.finish()
        return data


class ResetsLikeAnEnd(ByteStream):
    def abort(self, code=0):
        self.finish()


class SwallowsWhatComesAfterClose(ByteStream):
    def _nobody_reads(self, data, fin):
        return


class RemembersAll(ByteStream):
    def _forget_if_over(self):
        return


class ForgetsItsConnection(ByteStream):
    def lost(self, error):
        return


class AcceptsWithoutEnd(StreamSocket):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self._backlog = self._backlog and 1_000


# -- the tunnel


class RelayThatClosesForHalfClosing(Relay):
    async def _outward(self):
        await super()._outward()
        self._writer.close()


class RelayThatEndsForAReset(Relay):
    """Who reads takes the part that came for the whole."""

    async def run(self):
        try:
            await self._outward()
        except OSError:
            self._stream.finish()


class RelayThatTakesAllItGets(Relay):
    async def _inward(self):
        while data := await self._stream.read():
            self._writer.write(data)
        self._writer.write_eof()


class RelayThatDoesNotLook(Relay):
    async def _watch(self):
        await asyncio.Event().wait()
