"""The fabric over shared memory, its ranks as threads of one process."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest
from ddp_kit import WINDOW, SharedRanks, results, together
from hypothesis import given, settings
from hypothesis import strategies as st

from ddp import segment as segment_module
from ddp import shared, verifiable
from ddp.direct import ShardSum
from ddp.engine import Engine
from ddp.errors import GroupClosed, Mismatch, RankLate, RankLost
from ddp.schedules.catalogue import ALLREDUCE, schedule_of
from ddp.segment import REDUCED, RING_BYTES, RingEnd, Segment, Where, usable
from ddp.shared import SharedFabric

pytestmark = pytest.mark.skipif(not usable(), reason="shared memory is for Linux on x86-64")


def open_files():
    return len(os.listdir("/proc/self/fd"))


@settings(max_examples=25, deadline=None)
@given(
    st.integers(2, 4),
    st.sampled_from(["sharded-server", "recursive-doubling", "ring", "auto"]),
    st.sampled_from(
        [("float32", "sum"), ("bfloat16", "mean"), ("int64", "min"), ("uint32", "sum")]
    ),
    st.sampled_from([0, 1, 3, 511, 512, 1023, 1024, 1025, 2048, 3000]),
)
def test_any_allreduce_is_exact_whatever_the_window(size, algorithm, case, n):
    dtype, op = case
    wanted = verifiable.expected(dtype, op, n, list(range(size)), size)

    def work(group):
        found = []
        for _ in range(3):  # one behind the other: places of windows are used again
            data = verifiable.inputs(dtype, op, n, group.rank, size)
            found.append(group.allreduce(data, op, algorithm, dtype=dtype))
        return found

    with SharedRanks(size) as groups:
        for rank in results(groups, work):
            for found in rank:
                assert verifiable.wrong(found, wanted) == 0


def test_every_schedule_runs_through_the_rings_and_they_go_around():
    n = RING_BYTES // 4 + 77_777  # more than a ring holds

    def work(group):
        wrong = []
        for algorithm in ALLREDUCE:
            contributors = schedule_of("allreduce", algorithm, 3).contributors
            wanted = verifiable.expected("float32", "sum", n, contributors, 3)
            data = verifiable.inputs("float32", "sum", n, group.rank, 3)
            wrong.append(verifiable.wrong(group.allreduce(data, algorithm=algorithm), wanted))
        return wrong

    with SharedRanks(3) as groups:
        assert results(groups, work) == [[0] * len(ALLREDUCE)] * 3


@pytest.mark.parametrize("other", ["sharded-server", "ring"])
def test_a_direct_call_beside_another_is_a_mismatch_for_all(other):
    def work(group):
        if group.rank == 0:
            group.barrier()
        else:
            group.allreduce(np.zeros(8), algorithm=other)

    with SharedRanks(3) as groups:
        for error in together(groups, work):
            assert isinstance(error, Mismatch), error
            assert "barrier()" in str(error)
            assert other in str(error)


def test_a_rank_that_does_not_come_is_named_and_one_that_closes_too():
    def late(group):
        if group.rank:
            group.allreduce(np.zeros(8))

    with SharedRanks(3, timeout_s=0.3) as groups:
        found = together(groups, late)
        for rank in (1, 2):
            assert isinstance(found[rank], RankLate)
            assert "rank 0 has not begun it" in str(found[rank])

    def closing(group):
        if group.rank == 0:
            group.close()
        else:
            group.barrier()

    with SharedRanks(3) as groups:
        found = together(groups, closing)
        assert isinstance(found[1], GroupClosed)
        assert isinstance(found[2], GroupClosed)


def test_a_reported_death_ends_a_call_that_waits():
    with SharedRanks(2) as groups:
        groups[0].fabric.report(1, "it was seen to die")
        with pytest.raises(RankLost, match="rank 1 is gone: it was seen to die"):
            groups[0].allreduce(np.zeros(8))


class Told:
    """Deaths as the kernel would tell them, when the test says so."""

    def __init__(self):
        self.news, self.looks = [], 0

    def look(self):
        self.looks += 1
        found, self.news = self.news, []
        return found

    def close(self):
        pass


def told(groups):
    """What each rank hears by."""
    found = []
    for group in groups:
        group.fabric._deaths.close()
        group.fabric._deaths = Told()
        found.append(group.fabric._deaths)
    return found


def held_at(monkeypatch, rank, verb):
    """`rank` stops before it does that, until the event that is returned."""
    go = threading.Event()
    plain = getattr(ShardSum, verb)

    def slow(self, *arguments):
        if self.rank == rank:
            assert go.wait(30)
        return plain(self, *arguments)

    monkeypatch.setattr(ShardSum, verb, slow)
    return go


def until(wanted):
    deadline = time.monotonic() + 30
    while not wanted():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("n", [0, 8])
def test_who_dies_after_it_has_shown_its_sums_takes_them_from_nobody(monkeypatch, n):
    """The first waits for the last, who is slow but lives, and for nobody who is dead."""
    first, victim, slow = 0, 1, 2
    go = held_at(monkeypatch, slow, "add")

    def work(group):
        data = np.full(n, group.rank + 1.0)
        return group.allreduce(data, algorithm="sharded-server").tolist()

    with SharedRanks(3) as groups:
        deaths = told(groups)

        def happens():
            until(lambda: groups[victim].fabric._own.counters[REDUCED])
            deaths[first].news.append(victim)
            deaths[slow].news.append(victim)
            heard = deaths[first].looks
            until(lambda: deaths[first].looks > heard + 3)  # it has thought about it, and waits
            go.set()

        watching = threading.Thread(target=happens)
        watching.start()
        found = together(groups, work)
        watching.join()
        assert found[first] == found[slow] == [6.0] * n
        for rank in (first, slow):  # and then it is over, for both
            with pytest.raises(RankLost, match="rank 1 is gone"):
                groups[rank].allreduce(np.zeros(3))


def test_who_dies_before_it_has_shown_its_sums_takes_them_from_all(monkeypatch):
    victim = 1
    go, both = held_at(monkeypatch, victim, "add"), threading.Barrier(2)
    with SharedRanks(3) as groups:
        deaths = told(groups)

        def work(group):
            if group.rank != victim:
                deaths[group.rank].news.append(victim)
            try:
                return group.allreduce(np.ones(8), algorithm="sharded-server")
            finally:
                if group.rank != victim:
                    both.wait(30)  # the dead do nothing meanwhile
                    go.set()

        found = together(groups, work)
        for rank in (0, 2):
            assert isinstance(found[rank], RankLost)
            assert "rank 1 is gone" in str(found[rank])


class Interrupted(Exception):
    """What Ctrl-C does to a rank in the middle of a call."""


def test_who_is_interrupted_in_a_call_and_closes_is_not_waited_for(monkeypatch):
    plain = ShardSum.add

    def interrupted(self, window):
        if self.rank == 0:
            raise Interrupted
        plain(self, window)

    monkeypatch.setattr(ShardSum, "add", interrupted)

    def work(group):
        try:
            group.allreduce(np.ones(8), algorithm="sharded-server")
        finally:
            if group.rank == 0:
                group.close()

    with SharedRanks(3) as groups:
        found = together(groups, work)
    assert isinstance(found[0], Interrupted)
    for rank in (1, 2):
        assert isinstance(found[rank], GroupClosed)


class Clock:
    """It jumps ahead once all of these have shown their sums."""

    sleep = staticmethod(time.sleep)

    def __init__(self, segments):
        self.segments = segments

    def monotonic(self):
        shown = all(segment.counters[REDUCED] for segment in self.segments)
        return time.monotonic() + (100 if shown else 0)


def test_whose_patience_ends_after_its_own_part_says_that_it_does_not_know(monkeypatch):
    slow = 2
    go, both = held_at(monkeypatch, slow, "add"), threading.Barrier(2)

    def work(group):
        try:
            return group.allreduce(np.ones(8), algorithm="sharded-server")
        finally:
            if group.rank != slow:
                both.wait(30)
                go.set()

    ranks = SharedRanks(3)
    with ranks as groups, monkeypatch.context() as patch:
        patch.setattr(shared, "time", Clock(ranks.segments[:slow]))
        found = together(groups, work)
    for rank in (0, 1):
        assert isinstance(found[rank], RankLate)
        assert "rank 2 has not done its part after" in str(found[rank])
        assert str(found[rank]).endswith(" s; its outcome is unknown")
    assert (found[slow] == 3).all(), "it takes what the others have shown"


def test_a_part_is_shared_memory_too_and_leaves_nothing_open():
    before = open_files()
    with SharedRanks(4) as groups:

        def rank(world):
            part = world.split([3, 0] if world.rank in (0, 3) else [1, 2])
            part.start("allreduce", np.zeros(9)).wait()
            return part.fabric.name, float(part.allreduce(np.full(5, world.rank))[0]), part.rank

        found = results(groups, rank)
    assert found == [("shared memory", 3.0, i) for i in (1, 0, 1, 0)]
    assert open_files() == before


def test_nothing_is_left_open_and_nothing_has_a_name():
    before, names = open_files(), os.listdir("/dev/shm")
    with SharedRanks(3) as groups:
        results(groups, lambda group: group.allreduce(np.zeros(100)))
        assert os.listdir("/dev/shm") == names
    assert open_files() == before


def test_a_ring_of_bytes_keeps_them_in_order_across_its_end(monkeypatch):
    monkeypatch.setattr(segment_module, "RING_BYTES", 10)
    mine, theirs = Segment.make(2, WINDOW), Segment.make(2, WINDOW)
    into, out = RingEnd(mine, 0, theirs, 1), RingEnd(mine, 0, theirs, 1)
    sent = found = b""
    data = bytes(range(200))
    while len(found) < len(data):
        pushed = into.push(memoryview(data[len(sent) : len(sent) + 7]))
        sent += data[len(sent) : len(sent) + pushed]
        assert len(sent) - len(found) <= 10
        if len(sent) % 3 == 0 or not pushed:
            found += out.pull()
    assert found == data
    mine.close()
    theirs.close()


def test_a_segment_of_another_group_or_of_a_dead_process_is_refused():
    segment = Segment.make(2, WINDOW)
    with pytest.raises(OSError, match="no segment of a group of 3"):
        Segment.of(segment.where, 3, WINDOW)
    gone = Where(segment.where.pid, 9999, segment.where.host)
    with pytest.raises(RankLost, match="rank 1's memory is gone"):
        SharedFabric(Engine(0, 2, 1), segment, [segment.where, gone])
    segment.close()
