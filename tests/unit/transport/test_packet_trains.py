"""The short cut for a stream with much to say: its packets are those it is a short cut for."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from transport_kit import Pair

from netstack.transport.config import TransportConfig
from netstack.transport.outgoing import Outgoing
from netstack.transport.recovery import Recovery
from netstack.transport.streams import SendStream


class _Slow(Outgoing):
    def _add_train(self, out, now):
        return False


WRITES = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from((1, 500, 1_154, 20_000, 60_000)), st.booleans()),
    max_size=6,
)
CONFIGS = st.builds(
    TransportConfig,
    max_mtu=st.sampled_from((1200, 9000)),
    pacing=st.booleans(),
    congestion=st.sampled_from(("newreno", "fixed:3", "sliding:40")),
    stream_window=st.sampled_from((10_000, 1 << 20)),
    connection_window=st.sampled_from((15_000, 1 << 20)),
)


def story(config, writes, loss, outgoing):
    """Each datagram that left, and when."""
    import netstack.transport.connection as module

    before, module.Outgoing = module.Outgoing, outgoing
    try:
        pair = Pair(config, seed=5, loss=loss, mtu=1472, delay=0.01)
        streams = [pair.client.connection.streams.open() for _ in range(3)]
        for number, size, wait in writes:
            data = bytes(i * 31 % 251 for i in range(size))
            pair.client.connection.write(streams[number], data)
            if wait:
                pair.run(0.05)
        for stream in streams:
            pair.client.connection.write(stream, b"", fin=True)
        pair.run(30.0, lambda: len(pair.server.fins) == 3)
        assert len(pair.server.fins) == 3
        return pair.carried
    finally:
        module.Outgoing = before


@settings(max_examples=60, deadline=None)
@given(CONFIGS, WRITES, st.sampled_from((0.0, 0.05)))
def test_a_train_is_the_packets_that_would_have_left_one_by_one(config, writes, loss):
    assert story(config, writes, loss, Outgoing) == story(config, writes, loss, _Slow)


def test_a_bulk_leaves_in_trains(monkeypatch):
    """Or the test above would compare nothing with nothing."""
    together = []

    def sent(recovery, packets, original=Recovery.sent):
        together.append(len(packets))
        original(recovery, packets)

    monkeypatch.setattr(Recovery, "sent", sent)
    story(TransportConfig(max_mtu=1200), [(0, 60_000, False)], 0.0, Outgoing)
    assert max(together) >= 5


def stream(*writes, limit=1 << 30):
    made = SendStream(0, limit)
    for data in writes:
        made.write(data, False)
    return made


def test_pieces_are_full_and_from_one_write_and_its_last_byte_is_left():
    data = bytes(range(100))
    for size, count, taken in ((10, 99, 9), (33, 99, 3), (99, 99, 1), (100, 99, 0), (10, 4, 4)):
        made = stream(data, b"next")
        assert made.take_full(size, count, 1 << 30) == [
            data[at : at + size] for at in range(0, taken * size, size)
        ]
        assert made.next_offset == taken * size
        left = b""
        while (frame := made.take(7, 1 << 30)) is not None and frame[1]:
            left += frame[1]
        assert left == (data + b"next")[taken * size :]


def test_credit_of_stream_and_connection_bound_them():
    data = bytes(100)
    assert len(stream(data, limit=29).take_full(10, 99, 1 << 30)) == 2
    assert len(stream(data, limit=30).take_full(10, 99, 1 << 30)) == 3
    assert len(stream(data).take_full(10, 99, 29)) == 2
    assert len(stream(data).take_full(10, 99, 30)) == 3
    assert stream(data).take_full(10, 99, 0) == []


def test_what_must_be_sent_again_comes_first_and_what_was_given_up_not_at_all():
    made = stream(bytes(100))
    made.lost(0, b"x", False)
    assert made.take_full(10, 9, 1 << 30) == []
    given_up = stream(bytes(100))
    given_up.reset(1)
    assert given_up.take_full(10, 9, 1 << 30) == []


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9), st.sampled_from((0.0, 0.2)), st.booleans())
def test_what_was_lent_is_copied_when_its_owner_wants_it_back(seed, loss, kept):
    """Queued or under way, it may be sent again from there."""
    pair = Pair(TransportConfig(), seed=seed, loss=loss, mtu=1472, delay=0.01)
    stream = pair.client.connection.streams.open()
    lent = bytearray(i * 31 % 251 for i in range(60_000))
    wanted = bytes(lent)
    pair.client.connection.write(stream, memoryview(lent), fin=True)
    pair.run(0.015)
    outgoing = pair.client.connection.outgoing
    assert outgoing.recovery.in_flight, "all has arrived: this tests nothing"
    if kept:
        outgoing.keep(pair.client.connection.streams.sending(stream))
    lent[:] = bytes(60_000)
    pair.run(30.0, lambda: bool(pair.server.fins))
    assert (pair.server.received[stream] == wanted) == kept
