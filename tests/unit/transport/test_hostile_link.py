"""What matters: the bytes written are the bytes read, in order, once, over any link."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transport_kit import Pair

from netstack.transport.config import TransportConfig

links = st.fixed_dictionaries(
    {
        "loss": st.sampled_from([0.0, 0.05, 0.2]),
        "duplicate": st.sampled_from([0.0, 0.2]),
        "corrupt": st.sampled_from([0.0, 0.1]),
        "jitter": st.sampled_from([0.0, 0.05]),
        "delay": st.sampled_from([0.0001, 0.01, 0.2]),
        "mtu": st.sampled_from([1300, 9000, 65_507]),
        "seed": st.integers(0, 2**32),
    }
)


def transfer(pair: Pair, seed: int) -> None:
    dice = random.Random(seed)
    written: dict[int, bytes] = {}
    client = pair.client.connection
    ids = [client.streams.open() for _ in range(dice.randint(1, 5))]
    for stream in ids:
        written[stream] = b""
    for _ in range(dice.randint(1, 20)):
        stream = dice.choice(ids)
        data = dice.randbytes(dice.choice([0, 1, 100, 5000, 60_000]))
        written[stream] += data
        client.write(stream, data)
        pair.run(dice.choice([0.0, 0.001, 0.1]))
    for stream in ids:
        client.write(stream, b"", fin=True)
    assert pair.run(600.0, lambda: pair.server.fins == set(ids)), repr(client)
    assert {s: bytes(d) for s, d in pair.server.received.items() if d} == {
        s: d for s, d in written.items() if d
    }


@settings(max_examples=60, deadline=None)
@given(link=links)
def test_bytes_written_are_bytes_read(link):
    config = TransportConfig(idle_timeout_s=300.0, handshake_timeout_s=120.0)
    pair = Pair(config, connect=False, **link)
    assert pair.run(120.0, lambda: pair.open)
    transfer(pair, link["seed"])


@pytest.mark.parametrize("seed", range(5))
def test_a_blackhole_that_comes_and_goes(seed):
    """On for two seconds, off for half a second, again and again."""
    pair = Pair(TransportConfig(idle_timeout_s=60.0), delay=0.015, seed=seed)
    client = pair.client.connection
    stream = client.streams.open()
    data = random.Random(seed).randbytes(2_000_000)
    client.write(stream, data, fin=True)
    for _ in range(40):
        pair.cut = {"client", "server"}
        pair.run(0.5)
        pair.cut = set()
        if pair.run(2.0, lambda: pair.server.fins):
            break
    assert bytes(pair.server.received[stream]) == data


def test_an_old_packet_played_again_changes_nothing():
    pair = Pair()
    client = pair.client.connection
    stream = client.streams.open()
    client.write(stream, b"pay 100 to Ben")
    pair.run(1.0)
    for _, source, data in list(pair.carried):
        pair.deliver(source, data)
    pair.run(1.0)
    assert pair.server.received == {stream: b"pay 100 to Ben"}
    assert pair.server.connection._session.replayed > 0
