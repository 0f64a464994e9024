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
from netstack.transport.mtu import MtuDiscovery


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


def estimates_the_path(estimator) -> None:
    """Samples of a steady 50 ms path: the estimate must be 50 ms."""
    rtt = estimator(0.1)
    for _ in range(50):
        rtt.sample(0.05)
    assert abs(rtt.smoothed - 0.05) < 0.005


def search_stays_within(dice: random.Random, *, honest: bool) -> None:
    """A path of 1,500 bytes: the MTU found must be one that it carries."""
    mtu = MtuDiscovery(65_507)
    mtu.packet_was_full(0.0)
    while size := mtu.next_probe():
        if size <= 1472 or (not honest and dice.random() < 0.5):
            mtu.probe_arrived(size, 0.0)
        else:
            mtu.probe_lost(size, 0.0)
    assert mtu.current <= 1472
