"""Frames: however they are cut on the way, and whatever bit flips."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddp.call import Call
from ddp.errors import Corrupted
from ddp.frames import HEAD_BYTES, SEGMENT_BYTES, Decoder, Frame, Type

CALL = Call("allreduce", "double-tree", "product", "bfloat16", 2**40, 3)


def frames(lengths):
    return [
        Frame(Type.DATA, 7, i, CALL, 1, 2, 3, 64 * i, 5, bytes(k % 251 for k in range(length)))
        for i, length in enumerate(lengths)
    ]


def cut(data, places):
    edges = [0, *sorted(p % (len(data) + 1) for p in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@settings(deadline=None)
@given(st.lists(st.integers(0, 3000), max_size=5), st.lists(st.integers(0, 20_000), max_size=8))
def test_frames_survive_being_cut_anywhere(lengths, places):
    sent = frames(lengths)
    decoder = Decoder()
    data = b"".join(frame.encode() for frame in sent)
    found = [frame for part in cut(data, places) for frame in decoder.feed(part)]
    assert [f._replace(payload=bytes(f.payload)) for f in found] == sent


@settings(deadline=None)
@given(st.lists(st.integers(0, 3000), max_size=5), st.lists(st.integers(0, 20_000), max_size=8))
def test_over_a_sealed_link_data_comes_in_whole_elements_and_in_order(lengths, places):
    sent = frames(lengths)
    decoder = Decoder(sealed=True)
    data = b"".join(frame.head(sealed=True) + frame.payload for frame in sent)
    whole = {}
    for part in cut(data, places):
        for frame in decoder.feed(part):
            first = sent[frame.sequence]
            got = whole.setdefault(frame.sequence, bytearray())
            assert frame.offset == first.offset + len(got)
            got += frame.payload
            assert len(got) % 8 == 0 or len(got) == len(first.payload)
    assert [bytes(whole.get(i, b"")) for i in range(len(sent))] == [f.payload for f in sent]


def test_any_flipped_bit_is_noticed():
    data = frames([100])[0].encode()
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1 << at % 8
        with pytest.raises(Corrupted):
            list(Decoder().feed(bytes(damaged)))


def test_a_frame_larger_than_allowed_is_refused_before_it_is_held():
    frame = Frame(Type.DATA, 1, 0, CALL, payload=bytes(SEGMENT_BYTES + 1))
    with pytest.raises(Corrupted, match="a frame of"):
        list(Decoder().feed(frame.encode()[:HEAD_BYTES]))
