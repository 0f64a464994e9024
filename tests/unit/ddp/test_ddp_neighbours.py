"""Frames through memory between ranks of one host: whole, in order, and never asleep for ever."""

from __future__ import annotations

import os
import select
from types import SimpleNamespace

import numpy as np
import pytest

from ddp.call import Call
from ddp.card import Card
from ddp.engine import Engine
from ddp.errors import Corrupted, RankLost
from ddp.frames import NO_CALL, SEGMENT_BYTES, Frame, Type
from ddp.neighbours import Neighbours
from ddp.network import NetworkFabric
from ddp.segment import RING_BYTES, usable

pytestmark = pytest.mark.skipif(not usable(), reason="shared memory wants Linux on x86")


@pytest.fixture
def pair():
    """Ranks 0 and 2 of three, in one process."""
    ends = {rank: Neighbours(rank, 3) for rank in (0, 2)}
    ends[0].meet({2: ends[2].place})
    ends[2].meet({0: ends[0].place})
    yield ends[0], ends[2]
    for end in ends.values():
        end.close()


def frame(number, nbytes=0):
    payload = np.full(nbytes, number % 251, np.uint8).tobytes()
    return Frame(Type.DATA, 1, number, NO_CALL, payload=payload)


def rings(near):
    """Whether its loop would wake up."""
    return bool(select.select([near.bell], [], [], 0)[0])


def test_who_is_where(pair):
    near, far = pair
    assert 2 in near
    assert 0 not in near
    assert 1 not in near
    assert repr(far) == "<Neighbours of rank 2: [0]>"


def test_frames_come_whole_and_in_order_and_ring_once_heard_no_more(pair):
    near, far = pair
    assert not rings(far)
    for number in range(5):
        assert near.ready(2)
        near.send(2, frame(number, 1000))
    assert rings(far)
    assert list(far.hear()) == [(0, frame(number, 1000)) for number in range(5)]
    assert not rings(far)
    assert list(far.hear()) == []
    assert not rings(near), "nobody waits for room"


def test_who_found_no_room_is_rung_back_and_goes_on(pair):
    near, far = pair
    sent, heard = 0, []
    while near.ready(2):
        near.send(2, frame(sent, SEGMENT_BYTES))
        sent += 1
    assert sent * SEGMENT_BYTES >= RING_BYTES
    assert not near.ready(2)
    heard += far.hear()
    assert len(heard) < sent, "all had room: this tests nothing"
    assert rings(near), "it would sleep for ever"
    assert list(near.hear()) == []
    near.go_on()
    assert near.ready(2)
    heard += far.hear()
    assert heard == [(0, frame(number, SEGMENT_BYTES)) for number in range(sent)]


def test_a_bell_that_is_full_loses_nothing_but_the_wish(pair):
    """64 K rings that nobody hears; what was sent is there at the first hearing."""
    near, far = pair
    for _ in range(70_000):
        near._ring(2)
    near.send(2, frame(7, 10))
    assert list(far.hear()) == [(0, frame(7, 10))]


def test_rings_of_nobody_are_passed_over(pair):
    near, far = pair
    os.write(near._ropes[2], bytes([1, 63, 0x80 | 1]))
    near.send(2, frame(1))
    assert list(far.hear()) == [(0, frame(1))]


def test_what_the_dead_have_left_can_be_read(pair):
    near, far = pair
    near.send(2, frame(3, 500))
    assert list(far.pull(0)) == [frame(3, 500)]
    assert list(far.pull(0)) == []


def test_damaged_memory_is_noticed(pair):
    near, far = pair
    near.send(2, frame(3, 500))
    near._own.ring_to(2)[100] ^= 1
    with pytest.raises(Corrupted):
        list(far.hear())


def test_who_is_gone_is_named():
    gone, near = Neighbours(1, 2), Neighbours(0, 2)
    place = gone.place
    gone.close()
    with pytest.raises(RankLost, match="rank 1's memory is gone"):
        near.meet({1: place})
    near.close()


@pytest.mark.parametrize("how", ["it leaves", "it dies"])
async def test_what_one_has_said_before_he_went_counts(how):
    """His last word came through memory, and that he went by netstack, or from the kernel: whoever
    hears of that first must not miss the end of a call that ended well."""
    board = SimpleNamespace(
        node=SimpleNamespace(runtime=SimpleNamespace(clock=SimpleNamespace(now=lambda: 0.0)))
    )
    cards = [Card(f"r{i}", "host", 1, ("127.0.0.1", 7)) for i in range(2)]
    fabric, peer = NetworkFabric(board, cards, 0, 1, "g"), Engine(1, 2, 1)
    ours, theirs = Neighbours(0, 2), Neighbours(1, 2)
    ours.meet({1: theirs.place})
    theirs.meet({0: ours.place})
    fabric._near = ours
    call = Call("barrier", "dissemination", "sum", "uint8", 0)
    vector = np.empty(0, np.uint8)
    operation = fabric.engine.start(call, vector, 0.0, 9.0)
    peer.start(call, vector, 0.0, 9.0)
    for _, said in fabric.engine.take_outputs():
        peer.receive(0, said.owned(), 0.0)
    for _, said in peer.take_outputs():
        theirs.send(0, said)
    assert not operation.ended
    if how == "it leaves":
        fabric._received(1, Frame(Type.LEFT, 1, 0, NO_CALL))
    else:
        fabric._lost(1, "its process ended")
    assert operation.ended
    assert operation.error is None
    for end in (ours, theirs):
        end.close()


def test_nothing_is_left_open():
    before = len(os.listdir("/proc/self/fd"))
    ends = [Neighbours(rank, 2) for rank in range(2)]
    ends[0].meet({1: ends[1].place})
    ends[1].meet({0: ends[0].place})
    ends[0].send(1, frame(1, 10))
    for end in ends:
        end.close()
    assert len(os.listdir("/proc/self/fd")) == before
