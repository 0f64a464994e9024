"""Sums out of one another's vectors, ranks as threads of one process; and which way they go."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading

import numpy as np
import pytest
from ddp_kit import SharedRanks, results, together
from hypothesis import given, settings
from hypothesis import strategies as st

from ddp import reach, shared, verifiable
from ddp.call import Call
from ddp.direct import Way
from ddp.errors import GroupClosed, RankLost
from ddp.reach import ReachSum, Reader, Unreachable, address_of
from ddp.schedules.catalogue import schedule_of
from ddp.schedules.checker import count
from ddp.segment import TAKEN, usable
from ddp.shared import SharedFabric
from ddp.ways import CALLS_BETWEEN_DOUBTS, CALLS_KEPT, TRIALS, Ways

pytestmark = pytest.mark.skipif(not usable(), reason="shared memory is for Linux on x86-64")

CALL = Call("allreduce", "sharded-server", "sum", "float32", 1 << 20)


@pytest.fixture
def always(monkeypatch):
    """Vectors of any size are read where they are; the calls that were."""
    return reaching(monkeypatch, lambda self, call: Way.REACH)


def reaching(monkeypatch, choose):
    gone, plain = [], ReachSum.add

    def add(self, window):
        gone.append(self.rank)
        plain(self, window)

    monkeypatch.setattr(shared, "REACH_BYTES_MIN", 0)
    monkeypatch.setattr(reach, "BLOCK_BYTES", 2048)
    monkeypatch.setattr(Ways, "choose", choose)
    monkeypatch.setattr(ReachSum, "add", add)
    return gone


def summed(group, dtype="float32", op="sum", n=3000):
    data = verifiable.inputs(dtype, op, n, group.rank, group.size)
    group.allreduce(data, op, "sharded-server", dtype=dtype)
    wanted = verifiable.expected(dtype, op, n, list(range(group.size)), group.size)
    return verifiable.wrong(data, wanted)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(2, 5),
    st.sampled_from(
        [("float32", "sum"), ("bfloat16", "mean"), ("int64", "min"), ("float64", "product")]
    ),
    st.sampled_from([0, 1, 3, 511, 512, 513, 2048, 5000]),
    st.lists(st.sampled_from([Way.REACH, Way.SHARDS]), min_size=4, max_size=4),
)
def test_either_way_is_exact_and_one_may_follow_the_other(size, case, n, said):
    left = list(said)
    with pytest.MonkeyPatch.context() as patch:
        gone = reaching(patch, lambda self, call: left.pop(0))
        with SharedRanks(size) as groups:
            found = results(groups, lambda group: [summed(group, *case, n) for _ in said])
    assert found == [[0] * len(said)] * size
    assert len(gone) == size * said.count(Way.REACH)


def test_between_two_small_sums_of_another_way_large_ones_disturb_nothing(monkeypatch):
    """What is staged last decides who may show his part before all have met."""
    left = [Way.SHARDS, Way.REACH] * 20
    reaching(monkeypatch, lambda self, call: left.pop(0))

    def work(group):
        wrong = 0
        for _ in range(40):
            wrong += summed(group)
            data = np.arange(2500.0, dtype=np.float32) * (group.rank + 1)
            group.allreduce(data, algorithm="recursive-doubling")
            wrong += int((data != np.arange(2500.0) * 3).sum())
        return wrong

    with SharedRanks(2) as groups:
        assert results(groups, work) == [0, 0]


@pytest.mark.parametrize("size", [2, 3, 4])
def test_it_counts_what_the_table_says(size, always):
    n = 420 * size

    def work(group):
        assert summed(group, n=n) == 0
        return group.fabric.engine.recorder.records[-1], group.counters["received_bytes"]

    with SharedRanks(size) as groups:
        found = results(groups, work)
    cost = count(schedule_of("allreduce", "sharded-server", size), n)
    assert {record.rounds for record, _ in found} == {cost.rounds}
    assert {record.fan_in for record, _ in found} == {cost.fan_in}
    assert [record.sent for record, _ in found] == [4 * elements for elements in cost.sent]
    assert sum(record.sent for record, _ in found) == sum(taken for _, taken in found)
    assert len(always) == size


def test_where_the_kernel_refuses_one_rank_all_go_through_windows(monkeypatch, always):
    plain = Reader.reaches
    asked = []

    def refuses_the_second(self, pid, address, value):
        asked.append(address)
        return len(asked) != 2 and plain(self, pid, address, value)

    monkeypatch.setattr(Reader, "reaches", refuses_the_second)
    with SharedRanks(3) as groups:
        assert results(groups, summed) == [0, 0, 0]
    assert always == []
    assert len(asked) >= 2


def test_a_vector_that_cannot_be_read_any_more_is_named_and_nobody_has_a_sum(monkeypatch, always):
    plain, victim = ReachSum.take, 1

    def take(self, window, rank):
        if (self.rank, rank) == (0, victim):
            raise Unreachable(victim, "No such process")
        plain(self, window, rank)

    monkeypatch.setattr(ReachSum, "take", take)
    with SharedRanks(3) as groups:
        found = together(groups, summed)
    for error in found:
        assert isinstance(error, RankLost)
        assert "rank 1 is gone: its vector cannot be read: No such process" in str(error)


class Interrupted(Exception):
    """What Ctrl-C does to a rank in the middle of a call."""


def test_who_is_interrupted_and_writes_to_its_vector_spoils_nobody_elses(monkeypatch, always):
    """It has shown all, TAKEN too; another is still to take its sums."""
    take, until, gone = ReachSum.take, SharedFabric._until, threading.Event()

    def slow(self, window, rank):
        if self.rank == 1:
            assert gone.wait(30)
        take(self, window, rank)

    def interrupted(self, counter, *arguments):
        if counter == TAKEN and self.engine.rank == 0:
            raise Interrupted
        until(self, counter, *arguments)

    monkeypatch.setattr(ReachSum, "take", slow)
    monkeypatch.setattr(SharedFabric, "_until", interrupted)

    def work(group):
        data = np.ones(2000, np.float32)
        try:
            return group.allreduce(data, algorithm="sharded-server")
        finally:
            if group.rank == 0:
                data[:] = 77
                gone.set()

    with SharedRanks(2) as groups:
        found = together(groups, work)
    assert isinstance(found[0], Interrupted)
    assert isinstance(found[1], GroupClosed)
    assert "rank 0 was interrupted in allreduce(2000 × float32" in str(found[1])


def test_a_reader_says_which_memory_is_not_there():
    reader, pid = Reader(), os.getpid()
    there, here = np.arange(5000, dtype=np.int32), np.zeros(5000, np.int32)
    reader.read(pid, address_of(there), here)
    assert (here == there).all()
    word = np.array([4711], np.uint64)
    assert reader.reaches(pid, address_of(word), 4711)
    assert not reader.reaches(pid, address_of(word), 4712)
    gone = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(gone, 0)
    with pytest.raises(ProcessLookupError):
        reader.read(gone, address_of(there), here)
    assert not reader.reaches(gone, address_of(word), 4711)


def test_a_reader_reads_up_to_a_hole_and_then_says_so():
    page = mmap.PAGESIZE
    area = mmap.mmap(-1, 2 * page)
    area[:page] = b"x" * page
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    libc = ctypes.CDLL(None)
    assert libc.mprotect(ctypes.c_void_p(address + page), page, 0) == 0
    here = np.zeros(2 * page, np.uint8)
    with pytest.raises(OSError, match="Bad address"):
        Reader().read(os.getpid(), address, here)
    assert (here[:page] == ord("x")).all()
    assert not here[page:].any()
    assert libc.mprotect(ctypes.c_void_p(address + page), page, 3) == 0


# -- which way


def timed(ways, call, times):
    """One call that takes so long, by way."""
    way = ways.choose(call)
    ways.took(call, way, times[way])
    return way


@pytest.mark.parametrize("better", [Way.SHARDS, Way.REACH])
def test_both_ways_are_tried_in_turn_and_then_the_better_one_is_taken(better):
    ways = Ways()
    times = {Way.SHARDS: 2.0, Way.REACH: 2.0, better: 1.0}
    tried = [timed(ways, CALL, times) for _ in range(2 * TRIALS)]
    assert tried.count(Way.SHARDS) == tried.count(Way.REACH) == TRIALS
    assert {timed(ways, CALL, times) for _ in range(50)} == {better}


def test_one_disturbed_call_decides_nothing_and_disturbed_trials_are_made_good():
    ways = Ways()
    for i in range(2 * TRIALS):
        timed(ways, CALL, {Way.SHARDS: 2.0, Way.REACH: 9.0 if i == 1 else 1.0})
    assert ways.choose(CALL) is Way.REACH
    ways = Ways()
    for _ in range(2 * TRIALS):
        timed(ways, CALL, {Way.SHARDS: 2.0, Way.REACH: 9.0})
    taken = [timed(ways, CALL, {Way.SHARDS: 2.0, Way.REACH: 1.0}) for _ in range(150)]
    assert taken[0] is Way.SHARDS
    assert taken[CALLS_BETWEEN_DOUBTS:] == [Way.REACH] * (150 - CALLS_BETWEEN_DOUBTS)


def test_what_is_remembered_has_a_limit_and_other_calls_are_judged_by_themselves():
    ways = Ways()
    calls = [Call("allreduce", "sharded-server", "sum", "float32", n) for n in range(CALLS_KEPT)]
    for call in calls:
        for _ in range(2 * TRIALS):
            timed(ways, call, {Way.SHARDS: 2.0, Way.REACH: 1.0 + 2 * (call.count % 2)})
    assert [ways.choose(call) for call in calls[:2]] == [Way.REACH, Way.SHARDS]
    assert repr(ways) == f"<Ways of {CALLS_KEPT} calls>"
    ways.choose(CALL)
    assert repr(ways) == "<Ways of 1 calls>"
