"""Two connections over a link that does its worst: the bytes written are the bytes read, in order,
once. Whatever is lost, doubled, reordered, damaged, cut short or played back: nothing else."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from transport_kit import Pair

from netstack.transport.config import TransportConfig

CONFIGS = st.builds(
    TransportConfig,
    idle_timeout_s=st.just(120.0),  # or bad luck of so many steps would be taken for silence
    stream_window=st.sampled_from((3_000, 40_000)),
    connection_window=st.sampled_from((5_000, 100_000)),
    stream_buffer=st.just(30_000),
    max_streams=st.sampled_from((3, 100)),
    max_mtu=st.sampled_from((1200, 9000)),
    congestion=st.sampled_from(("newreno", "cubic", "bbr", "dctcp", "aimd")),
    pacing=st.booleans(),
    timer=st.sampled_from(("rfc6298", "lecture")),
)
SIDES = st.sampled_from(("client", "server"))
CHANCES = st.sampled_from((0.0, 0.02, 0.2))


class HostileLink(RuleBasedStateMachine):
    """The model is what was written: `written[side, stream]`."""

    @initialize(config=CONFIGS, seed=st.integers(0, 2**32))
    def connect(self, config, seed):
        self.pair = Pair(config, seed=seed, mtu=1472)
        self.pair.run(1.0)  # until both know that both are
        assert self.pair.open
        self.rng = random.Random(seed)
        self.written: dict[tuple[str, int], bytearray] = {}
        self.ended: set[tuple[str, int]] = set()
        self.given_up: set[tuple[str, int]] = set()

    def side(self, name):
        return getattr(self.pair, name)

    def other(self, name):
        return self.pair.server if name == "client" else self.pair.client

    def writable(self, name):
        return [key for key in self.written if key[0] == name and key not in self.ended]

    # -- what applications do

    @rule(name=SIDES)
    def open_stream(self, name):
        streams = self.side(name).connection.streams
        if streams.allowed > 0:
            self.written[name, streams.open()] = bytearray()

    @rule(name=SIDES, size=st.sampled_from((1, 100, 5_000, 29_000)), fin=st.booleans())
    def write(self, name, size, fin):
        keys = self.writable(name)
        if not keys:
            return
        key = self.rng.choice(keys)
        connection = self.side(name).connection
        size = min(size, 30_000 - connection.streams.buffered(key[1]))
        data = self.rng.randbytes(size)
        connection.write(key[1], data, fin=fin)
        self.written[key] += data
        if fin:
            self.ended.add(key)

    @rule(name=SIDES)
    def give_up(self, name):
        keys = self.writable(name)
        if keys:
            key = self.rng.choice(keys)
            self.side(name).connection.streams.reset(key[1], 7)
            self.ended.add(key)
            self.given_up.add(key)

    @rule(reads=st.booleans())
    def read(self, reads):
        self.pair.reads = reads
        if reads:
            self.pair.read_all()

    # -- what the link does

    @rule(loss=CHANCES, duplicate=CHANCES, corrupt=CHANCES, jitter=st.sampled_from((0.0, 0.03)))
    def change(self, loss, duplicate, corrupt, jitter):
        pair = self.pair
        pair.loss, pair.duplicate, pair.corrupt, pair.jitter = loss, duplicate, corrupt, jitter

    @rule(seconds=st.sampled_from((0.0, 0.01, 0.05, 0.5, 3.0)))
    def time_passes(self, seconds):
        self.pair.run(seconds)

    @rule(name=SIDES, seconds=st.sampled_from((0.1, 2.0)))
    def silence(self, name, seconds):
        self.pair.cut.add(name)
        self.pair.run(seconds)
        self.pair.cut.discard(name)
        self.pair.run(1.0)  # many silences in a row would be one, and rightly the end

    @rule(count=st.integers(1, 20))
    def play_back(self, count):
        for _, source, data in self.rng.choices(self.pair.carried, k=count):
            self.pair.deliver(source, data)

    @rule(count=st.integers(1, 5))
    def cut_short(self, count):
        for _, source, data in self.rng.choices(self.pair.carried, k=count):
            self.pair.deliver(source, data[: self.rng.randrange(len(data))])

    @rule(name=SIDES, size=st.integers(0, 1400))
    def noise(self, name, size):
        self.pair.deliver(name, self.rng.randbytes(size))

    # -- what must hold

    @invariant()
    def bytes_read_are_bytes_written(self):
        for (name, stream), written in self.written.items():
            got = self.other(name).received.get(stream, b"")
            assert got == written[: len(got)]
            if stream in self.other(name).fins and (name, stream) not in self.given_up:
                assert (name, stream) in self.ended
                assert len(got) == len(written)

    @invariant()
    def what_is_held_is_bounded(self):
        for side in self.pair.sides:
            side.connection.check()
            streams = side.connection.streams
            config = self.pair.config
            # Held out of order: a window a stream, and a copy of it at the most.
            held = sum(stream.buffered for stream in streams._receiving.values())
            assert held <= 2 * config.connection_window
            assert len(side.connection.acks.received._firsts) <= 64

    @invariant()
    def nobody_dies_of_it(self):
        assert self.pair.open, [side.connection.error for side in self.pair.sides]

    def teardown(self):
        """Then the link is good again, and all that was written arrives."""
        if not hasattr(self, "pair"):
            return
        self.change(0.0, 0.0, 0.0, 0.0)
        self.read(True)
        for key in list(self.written):
            if key not in self.ended:
                self.side(key[0]).connection.write(key[1], b"", fin=True)
                self.ended.add(key)
        self.pair.run(600.0, self.all_arrived)
        assert self.all_arrived(), (self.pair.client.connection, self.pair.server.connection)
        self.bytes_read_are_bytes_written()

    def all_arrived(self):
        return all(
            (name, stream) in self.given_up or stream in self.other(name).fins
            for name, stream in self.written
        )


TestLinkMachine = HostileLink.TestCase
TestLinkMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


@pytest.mark.slow
class TestLinkMachineForLong(HostileLink.TestCase):
    settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
