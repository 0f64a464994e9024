"""`ring bench ddp`: its figures are of sums that are right, and its bars can be missed."""

from __future__ import annotations

import numpy as np
import pytest

import ddp.client
from cluster.bench import ddp as bench
from cluster.bench import ddp_peers
from cluster.bench.ddp import OURS, PEERS, RANKS, SIZES

SMALL = [[4096, 3], [1 << 18, 2]]
CASES = [*SIZES]


def needs(peer):
    reasons = {"gloo": "torch", "OpenMPI shared memory": "OpenMPI and mpi4py"}
    reason = f"{reasons.get(peer, 'OpenMPI and mpi4py')} not installed"
    return pytest.mark.skipif(not bench.installed(peer), reason=reason)


@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", OURS)
def test_ours_gives_a_time_for_each_size(kind, ranks):
    found = bench._round(kind, ranks, SMALL)
    assert len(found) == len(SMALL)
    assert all(0 < seconds < 60 for seconds in found)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pytest.param(peer, marks=needs(peer)) for peer in PEERS])
def test_every_peer_gives_a_time_for_each_size(kind):
    found = bench._round(kind, 2, SMALL)
    assert len(found) == len(SMALL)
    assert all(0 < seconds < 60 for seconds in found)


@pytest.mark.slow
@pytest.mark.timeout(600)
@needs("gloo")
def test_training_gives_a_rate_over_each_backend(monkeypatch):
    monkeypatch.setattr(bench, "ROUNDS", 1)
    monkeypatch.setattr(bench, "TRAIN_STEPS", 2)
    (row,) = bench._training()
    assert row.ours > 0 < row.theirs
    assert (row.peer, row.bar, row.note) == ("gloo", 0.9, "")


def test_a_peer_that_does_not_add_has_no_figure():
    def adds(data):
        data *= 2

    def drops_one(data):
        data[:-1] *= 2

    def timed(call):
        return ddp_peers.timed(SMALL, 2, lambda n: np.ones(n // 4, np.float32), call, int)

    assert len(timed(adds)) == len(SMALL)
    with pytest.raises(RuntimeError, match="1 elements of 1024 are not the sum"):
        timed(drops_one)


def test_a_wrong_sum_of_ours_has_no_figure(monkeypatch):
    rows = ddp.client.perf_rows

    def one_off(found):
        made = rows(found)
        for row in made:
            row["in_place"]["wrong"] = 2
        return made

    monkeypatch.setattr(ddp.client, "perf_rows", one_off)
    with pytest.raises(RuntimeError, match="4 elements are wrong"):
        bench._ours("shared", 2, SMALL)


def test_a_child_that_fails_is_an_error_and_not_a_figure():
    with pytest.raises(RuntimeError, match="a child failed"):
        bench._children([["no such thing", "x"]])


def times(**seconds):
    """Of each system, the same for all sizes."""
    return {kind.replace("_", " "): [value] * len(SIZES) for kind, value in seconds.items()}


def rows(ranks=2, peers=True, **seconds):
    found = bench._rows(ranks, times(**seconds), peers)
    return {(row.case, row.peer): row for row in found}


def test_a_bus_bandwidth_is_what_the_links_carry():
    found = rows(4, shared_memory=1e-3, netstack=2e-3, gloo=4e-3)
    row = found["shared memory: 1 MB, P = 4", "gloo"]
    assert (row.metric, row.unit) == ("busbw", "GB/s")
    assert row.ours == pytest.approx((1 << 20) / 1e-3 * 2 * 3 / 4 / 1e9)
    assert row.ratio == pytest.approx(4.0)
    row = found["netstack: 4 KB, P = 4", "gloo"]
    assert (row.metric, row.ours, row.theirs, row.ratio) == ("time", 2000.0, 4000.0, 2.0)


@pytest.mark.parametrize(("theirs", "holds"), [(1.01e-3, True), (0.99e-3, False)])
def test_shared_memory_must_be_ahead_of_gloo_everywhere(theirs, holds):
    found = rows(shared_memory=1e-3, netstack=1e-3, gloo=theirs)
    for name in SIZES.values():
        row = found[f"shared memory: {name}, P = 2", "gloo"]
        assert (row.bar, row.holds) == (1.0, holds)


@pytest.mark.parametrize(("theirs", "holds"), [(1.01e-3, True), (0.99e-3, False)])
def test_and_of_openmpi_from_a_megabyte_up(theirs, holds):
    found = rows(shared_memory=1e-3, netstack=1e-3, OpenMPI_shared_memory=theirs)
    for size, name in SIZES.items():
        row = found[f"shared memory: {name}, P = 2", "OpenMPI shared memory"]
        assert row.holds is (holds if size >= 1 << 20 else None)


@pytest.mark.parametrize(("theirs", "holds"), [(0.51e-3, True), (0.49e-3, False)])
def test_netstack_has_half_of_gloo_from_16_megabytes_up(theirs, holds):
    found = rows(shared_memory=1e-3, netstack=1e-3, gloo=theirs)
    for size, name in SIZES.items():
        row = found[f"netstack: {name}, P = 2", "gloo"]
        assert row.holds is (holds if size >= 1 << 24 else None)


@pytest.mark.parametrize(("ours", "holds"), [(769e-6, True), (771e-6, False)])
def test_4_kb_take_less_than_gloo_took(ours, holds):
    found = rows(shared_memory=ours, netstack=ours)
    for kind in OURS:
        assert found[f"{kind}: 4 KB, P = 2", "-"].holds is holds
    assert not [key for key in rows(4, shared_memory=ours, netstack=ours) if key[1] == "-"]


def test_who_is_not_installed_is_a_row_that_says_so():
    found = rows(shared_memory=1e-3, netstack=1e-3)
    for peer in PEERS:
        row = found["shared memory: 16 MB, P = 2", peer]
        assert (row.theirs, row.holds, row.note) == (None, None, f"{peer} is not installed")


def test_without_torch_training_is_a_row_that_says_so(monkeypatch):
    monkeypatch.setattr(bench, "installed", lambda peer: False)
    monkeypatch.setattr(bench, "_round", lambda kind, ranks, wanted: [1e-4] * len(wanted))
    report = bench.run(peers=True, seconds=0.1)
    row = report.rows[-1]
    assert row.case == "torch DDP, MLP 4 × 1024, P = 2"
    assert (row.theirs, row.holds, row.note) == (None, None, "torch is not installed")
    assert report.holds
    assert not [row for row in bench.run(peers=False).rows if row.case.startswith("torch")]


def test_all_are_taken_in_turn_and_a_figure_is_the_median(monkeypatch):
    order = []

    def round_(kind, ranks, wanted):
        order.append((ranks, kind))
        return [{0: 1e-3, 1: 9e-3, 2: 2e-3}[(len(order) - 1) // 5 % 3]] * len(wanted)

    monkeypatch.setattr(bench, "installed", lambda peer: True)
    monkeypatch.setattr(bench, "_round", round_)
    monkeypatch.setattr(bench, "_training", list)
    report = bench.run(peers=True)
    each = [*OURS, *PEERS]
    assert order == [(ranks, kind) for ranks in RANKS for _ in range(bench.ROUNDS) for kind in each]
    assert {row.ours for row in report.rows if row.metric == "time"} == {2e-3 * 1e6}


def test_large_vectors_are_called_less_often():
    calls = dict(bench.cases(3.0))
    assert list(calls) == CASES
    assert calls[4096] > calls[1 << 24] >= calls[100_000_000] >= 3
