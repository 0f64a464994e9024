"""`ring bench transport`: its figures are of bytes that arrived, and its bars can be missed."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
import sys
from collections import deque

import pytest

from cluster.bench import raw_udp, transport
from cluster.bench.transport import BLOCK, END, MESSAGE, WORKLOADS, Run, _round, _rows
from cluster.bench.transport_peers import OURS

INSTALL = {"aioquic": "pip install 'ringleader[bench]'", "kcp": "pip install 'ringleader[kcp]'"}
KINDS = [
    pytest.param(
        kind,
        marks=pytest.mark.skipif(
            kind in INSTALL and importlib.util.find_spec(kind) is None,
            reason=f"{kind} is not installed: {INSTALL.get(kind)}",
        ),
    )
    for kind in (*OURS, "tcp", "tls", "aioquic", "kcp")
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    transport.make_identities(folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_delivers_what_is_written(home, kind):
    run = _round(kind, "bulk", 0.1, home)
    assert run.received > 0
    assert run.received % len(BLOCK) == 0
    assert run.cpu_s > 0
    trips = _round(kind, "latency", 0.3, home).trips_s
    assert len(trips) > 5
    assert min(trips) > 0


def test_latency_is_taken_on_the_same_cores_for_all_and_the_rest_wherever_it_runs():
    cores = sorted(os.sched_getaffinity(0))
    assert transport._cores("latency") == (str(cores[0]), str(cores[-1]))
    assert transport._cores("latency, one core") == (str(cores[0]),) * 2
    assert {transport._cores(w) for w in ("bulk", "many", "messages")} == {("any", "any")}
    stay = "import os; from cluster.bench import transport as t; t._stay_on({!r}); "
    stay += "print(len(os.sched_getaffinity(0)))"
    for core, count in ((str(cores[0]), 1), ("any", len(cores))):
        command = [sys.executable, "-c", stay.format(core)]
        assert int(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout) == count


async def test_the_first_requests_are_not_counted():
    ours, theirs = pipe()
    answering = asyncio.create_task(transport.answer(theirs))
    began = []
    write = ours.write

    async def counted(data: bytes) -> None:
        began.append(data)
        await write(data)

    ours.write = counted
    trips = await transport.round_trips(ours, 0.2)
    answering.cancel()
    assert len(trips) == len(began) - 1 - transport.WARM_UP_TRIPS


@pytest.mark.parametrize("kind", raw_udp.KINDS)
def test_the_limit_is_what_arrived_of_raw_datagrams(kind):
    if not raw_udp.possible(kind):
        pytest.skip("this kernel cuts and joins no trains")
    count = raw_udp.measure(kind, 0.1)
    size = raw_udp.KINDS[kind][0]
    assert count.received >= size
    assert count.received % size == 0
    assert 0 < count.cpu_s < 60
    assert 0 < count.seconds < 60


def test_many_streams_and_small_messages_are_counted_too(home):
    assert _round("ours 1200", "many", 0.1, home).received >= transport.STREAMS * len(BLOCK)
    assert _round("ours 1200", "messages", 0.1, home).received % MESSAGE == 0


class Pipe:
    """One end of a stream in memory."""

    def __init__(self) -> None:
        self.peer: Pipe = self
        self._came: deque[bytes] = deque()
        self._news = asyncio.Event()

    async def write(self, data: bytes) -> None:
        self.peer._came.append(data)
        self.peer._news.set()
        await asyncio.sleep(0)

    async def read(self) -> bytes:
        while not self._came:
            self._news.clear()
            await self._news.wait()
        return self._came.popleft()


def pipe():
    one, other = Pipe(), Pipe()
    one.peer, other.peer = other, one
    return one, other


async def test_what_arrived_is_what_is_reported():
    ours, theirs = pipe()
    answering = asyncio.create_task(transport.answer(theirs))
    received, cpu_s = await transport.pour(ours, BLOCK, 0.01)
    await answering
    assert received % len(BLOCK) == 0
    assert received > 0 <= cpu_s


async def test_lost_bytes_are_an_error_and_no_figure():
    ours, theirs = pipe()
    answering = asyncio.create_task(transport.answer(theirs))
    write, count = ours.write, 0

    async def lossy(data: bytes) -> None:
        nonlocal count
        count += 1
        await write(data[1:] if count == 3 else data)

    ours.write = lossy
    with pytest.raises(RuntimeError, match="bytes were sent, and"):
        await transport.pour(ours, BLOCK, 0.01)
    await answering


def test_the_end_occurs_in_nothing_that_is_sent():
    assert END not in BLOCK


def runs(rate_mb_s: float, trip_s: float = 0.0) -> list[Run]:
    return [Run(int(rate_mb_s * 1e6 * 2), 2.0, 1.0, [trip_s] * 3)] * 3


@pytest.mark.parametrize(("theirs", "holds"), [(10.0, True), (10.1, False)])
def test_a_bar_of_three_times_is_met_at_three_and_missed_below(theirs, holds):
    rows = _rows("bulk", "ours 1200", {"ours 1200": runs(30.0), "aioquic": runs(theirs)}, True)
    row = next(row for row in rows if row.peer == "aioquic")
    assert (row.ours, row.theirs, row.bar, row.holds) == (30.0, theirs, 3.0, holds)
    assert row.case == f"ours 1200: {WORKLOADS['bulk'][0]}"


@pytest.mark.parametrize(("ours_s", "holds"), [(150e-6, True), (151e-6, False)])
@pytest.mark.parametrize("where", ["latency", "latency, one core"])
def test_latency_may_be_half_as_long_again_as_tcp(where, ours_s, holds):
    kind = "ours 1200 trains"
    rows = _rows(where, kind, {kind: runs(1, ours_s), "tcp": runs(1, 100e-6)}, True)
    row = next(row for row in rows if row.peer == "tcp")
    assert row.ours == pytest.approx(ours_s * 1e6)
    assert row.holds is holds


def test_the_limit_of_each_of_ours_is_raw_udp_in_datagrams_of_its_size():
    assert set(transport.LIMITS) == set(OURS)
    for ours, limit in transport.LIMITS.items():
        size, trains = OURS[ours]
        assert raw_udp.KINDS[limit][0] == size
        assert (raw_udp.KINDS[limit][1] > 1) == (trains and size == 1200)
        rows = _rows("bulk", ours, {ours: runs(100.0), limit: runs(400.0)}, True)
        found = {row.metric: row for row in rows if row.peer == limit}
        assert (found["rate"].theirs, found["rate"].ratio) == (400.0, 0.25)
        assert found["rate"].bar is None
        assert found["time"].theirs == found["time"].ours / 4


def test_who_is_not_installed_is_a_row_that_says_so():
    rows = _rows("bulk", "ours mtu", {"ours mtu": runs(1)}, True)
    assert {row.note for row in rows if row.peer == "aioquic"} == {"aioquic is not installed"}


def test_processor_time_is_of_both_ends_for_a_gigabyte():
    rows = _rows("bulk", "ours mtu", {"ours mtu": runs(500.0)}, False)
    assert all(row.theirs is None for row in rows)
    assert [(row.metric, row.ours) for row in rows] == [("rate", 500.0), ("time", 1.0)]
