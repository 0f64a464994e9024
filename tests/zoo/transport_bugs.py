"""The bugs, and the checks that are to catch them."""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "transport"))

from transport_kit import Pair

from netstack.transport import frames as f
from netstack.transport.acks import AckState
from netstack.transport.config import TransportConfig
from netstack.transport.connection import Connection
from netstack.transport.mtu import PROBES_MAX, MtuDiscovery
from netstack.transport.recovery import Recovery


class GaplessAcks(AckState):
    def frame(self, now: float):
        if self.received.highest > 0:
            self.received._firsts[:] = [0]
            self.received._lasts[:] = [self.received.highest]
        return super().frame(now)


class AcknowledgesWhatItDropped(Connection):
    """Says that it has the packets of a gap."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.acks = self.outgoing._acks = GaplessAcks(self.config.max_ack_delay_s)


class NeverSendsAgain(Connection):
    """Takes loss for the application's problem."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.outgoing._requeue = lambda frames: None


class ForgetsTheEnd(Connection):
    """A FIN that was lost stays lost."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        requeue = self.outgoing._requeue
        self.outgoing._requeue = lambda frames: requeue(
            [(*fr[:4], False) if fr[0] == f.STREAM else fr for fr in frames]
        )


class WindowOffByOne(Connection):
    """Gives itself one byte more credit than the peer allowed."""

    def _established(self, handshake):
        super()._established(handshake)
        self.streams._window_of_peer += 1


class DeliversTwice(Connection):
    """Hands bytes over again when their packet was repeated in another."""

    def take_events(self):
        events = super().take_events()
        if self.recovery.losses or self.acks.received._firsts[1:]:
            return events + [e for e in events if type(e).__name__ == "StreamData"]
        return events


class FirstTransmissions(Recovery):
    """Remembers when each piece of a stream left first, and measures from then."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self._first: dict[tuple[int, int], float] = {}

    def sent(self, packets):
        for packet in packets:
            for frame in packet.frames:
                if frame[0] == f.STREAM:
                    self._first.setdefault((frame[1].id, frame[2]), packet.sent_at)
        super().sent(packets)

    def acknowledge(self, ranges, *args):
        for number, packet in self.in_flight.items():
            if any(first <= number <= last for first, last in ranges):
                pieces = [(fr[1].id, fr[2]) for fr in packet.frames if fr[0] == f.STREAM]
                packet.sent_at = min([packet.sent_at, *(self._first[piece] for piece in pieces)])
        return super().acknowledge(ranges, *args)


class ForgetsKarn(Connection):
    """Takes an acknowledgement of a repeat for one of the first transmission."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        known = self.recovery
        self.recovery = self.outgoing.recovery = FirstTransmissions(
            known.rtt, known.congestion, known.max_ack_delay_s
        )


class TrustsItsProbes(MtuDiscovery):
    """Takes a size for one that the path carries as soon as a probe of it has left."""

    def next_probe(self, limit: float = float("inf")) -> int:
        size = super().next_probe(limit)
        self.current = max(self.current, size)
        return size


class NeverGivesASizeUp(MtuDiscovery):
    """Takes the loss of a probe for an accident, each time."""

    def probe_lost(self, size: int, now: float) -> None:
        self.probing = 0


class StopsAtTheFirstLoss(MtuDiscovery):
    """Takes one lost probe for the path's word."""

    def probe_lost(self, size: int, now: float) -> None:
        self._probes_lost = PROBES_MAX
        super().probe_lost(size, now)


BUGS = (
    AcknowledgesWhatItDropped,
    NeverSendsAgain,
    ForgetsTheEnd,
    WindowOffByOne,
    DeliversTwice,
)


def carries_everything(make: type[Connection], seed: int) -> None:
    """A lossy transfer to a slow reader, windows filled to the brim: each byte once, in order."""
    config = TransportConfig(
        max_mtu=1200, stream_window=20_000, connection_window=70_000, idle_timeout_s=30.0
    )
    pair = Pair(config, seed=seed, loss=0.15, delay=0.01, jitter=0.002, make=make, connect=False)
    assert pair.run(5.0, lambda: pair.open)
    client = pair.client.connection
    data = random.Random(seed).randbytes(150_000)
    ids = [client.streams.open() for _ in range(3)]
    for stream in ids:
        client.write(stream, data, fin=True)
    pair.reads = False
    for _ in range(100):
        if pair.run(1.0, lambda: pair.server.fins == set(ids)):
            break
        pair.read_all()
    for stream in ids:
        assert bytes(pair.server.received.get(stream, b"")) == data
    assert pair.server.fins == set(ids)


def estimates_the_path(make: type[Connection]) -> None:
    """A path of 50 ms that loses packets: no sample is longer than that and a held-back answer."""
    rtt_s, config = 0.05, TransportConfig(max_mtu=1200, max_ack_delay_s=0.01)
    pair = Pair(config, seed=1, loss=0.1, delay=rtt_s / 2, make=make)
    client, samples = pair.client.connection, []
    stream = client.streams.open()
    client.write(stream, bytes(300_000), fin=True)

    def over() -> bool:
        samples.append(client.rtt.latest)
        return stream in pair.server.fins

    assert pair.run(60.0, over)
    assert client.rtt.samples > 50, "nothing was measured"
    assert client.recovery.losses > 10, "nothing was sent again"
    longest = max(samples)
    assert longest <= rtt_s + config.max_ack_delay_s + 1e-6, f"{longest:.3f} s on a path of 0.05"


def search_stays_within(make: type[MtuDiscovery], lost_probes: int = 0) -> None:
    """A path of 1,472 bytes: that is found, at the cost of probes alone, and the search ends.

    The first `lost_probes` that the path would carry are lost, by accident.
    """

    class Searching(Connection):
        def __init__(self, *args) -> None:
            super().__init__(*args)
            self.mtu = self.outgoing.mtu = make(self.config.max_mtu)

    pair = Pair(mtu=1472, make=Searching)
    client = pair.client.connection
    accidents = []

    def carries(source: str, data: bytes) -> bool:
        if source == "client" and len(data) == client.mtu.probing and len(accidents) < lost_probes:
            accidents.append(data)
            return False
        return True

    pair.filter = carries
    for _ in range(60):
        stream = client.streams.open()
        client.write(stream, bytes(20_000), fin=True)
        assert pair.run(60.0, lambda stream=stream: stream in pair.server.fins)
    assert len(accidents) == lost_probes, "no probe was lost"
    assert client.recovery.losses == 0, "data went in packets that the path does not carry"
    assert client.mtu.current == 1472, f"{client.mtu!r} on a path of 1,472 bytes"
    assert not client.mtu.searching, f"{client.mtu!r} does not end"
