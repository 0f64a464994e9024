"""The wire form: any split of the bytes gives the same messages; nonsense is a protocol error."""

from __future__ import annotations

import itertools

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netstack.rpc import frames

SAMPLES = [
    (frames.HELLO, b"incarnation"),
    (frames.REQUEST, 1, "kv.put", b"body", 5000, None),
    (frames.REPLY, 1, {"revision": 4}),
    (frames.NOTIFY, "raft.message", [1, 2, b"x" * 300]),
    (frames.ITEM, 2, None),
    (frames.END, 2),
]


@given(cuts=st.lists(st.integers(0, 400), max_size=8))
def test_any_split_gives_the_same_messages(cuts):
    stream = b"".join(frames.encode(sample) for sample in SAMPLES)
    edges = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    decoder = frames.Decoder()
    got = [
        message
        for start, end in itertools.pairwise(edges)
        for message in decoder.feed(stream[start:end])
    ]
    assert [tuple(message) for message in got] == SAMPLES


@pytest.mark.parametrize(
    "payload",
    [
        msgpack.packb(7),
        msgpack.packb({}),
        msgpack.packb([]),
        msgpack.packb([99, 1]),
        msgpack.packb([-1, 1]),
        msgpack.packb([frames.REPLY, 1]),
        msgpack.packb(["0", 1, 2]),
        msgpack.packb([frames.REPLY, "1", 2]),
        b"\xc1",
    ],
    ids=["int", "map", "empty", "kind", "negative", "short", "text kind", "text id", "byte"],
)
def test_nonsense_is_a_protocol_error(payload):
    with pytest.raises(frames.ProtocolError):
        list(frames.Decoder().feed(payload))


def test_a_message_over_the_limit_is_refused_before_it_is_assembled():
    decoder = frames.Decoder(message_bytes_max=1000)
    whole = frames.encode((frames.NOTIFY, "m", b"x" * 2000))
    pieces = [whole[start : start + 100] for start in range(0, len(whole), 100)]
    with pytest.raises(frames.ProtocolError):
        [message for piece in pieces for message in decoder.feed(piece)]


def test_the_end_of_a_large_message_may_bring_many_others():
    decoder = frames.Decoder(message_bytes_max=1000)
    large, small = (frames.NOTIFY, "m", b"x" * 950), (frames.END, 1)
    stream = frames.encode(large) + 300 * frames.encode(small)
    got = [m for piece in (stream[:940], stream[940:]) for m in decoder.feed(piece)]
    assert got == [list(large)] + 300 * [list(small)]


def test_a_message_over_the_limit_is_not_encoded():
    fits = frames.notify("m", bytes(frames.MESSAGE_BYTES_MAX - 9))
    assert len(fits) == frames.MESSAGE_BYTES_MAX
    assert len(list(frames.Decoder().feed(fits))) == 1
    with pytest.raises(ValueError, match="8388609 bytes are too many"):
        frames.notify("m", bytes(frames.MESSAGE_BYTES_MAX - 8))


def test_a_failed_encode_leaves_nothing_behind():
    with pytest.raises(TypeError):
        frames.encode((frames.NOTIFY, "m", object()))
    assert list(frames.Decoder().feed(frames.encode((frames.END, 1)))) == [[frames.END, 1]]


@given(garbage=st.binary(max_size=200))
def test_garbage_never_raises_anything_else(garbage):
    decoder = frames.Decoder(message_bytes_max=10_000)
    try:
        list(decoder.feed(garbage))
    except frames.ProtocolError:
        return
