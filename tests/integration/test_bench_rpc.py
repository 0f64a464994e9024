"""`ring bench rpc`: every side really echoes, and what fails has no figure."""

from __future__ import annotations

import importlib.util
import subprocess

import pytest

from cluster.bench import rpc
from cluster.bench.harness import Load

GRPC = pytest.mark.skipif(
    importlib.util.find_spec("grpc") is None,
    reason="grpcio is not installed: pip install 'ringleader[bench]'",
)
KINDS = [pytest.param(kind, marks=GRPC if kind == "grpcio" else ()) for kind in rpc.KINDS]
CASES = [f"200 B echo, {n} outstanding" for n in rpc.OUTSTANDING]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    rpc._make_identities(folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_answered(home, kind):
    load = rpc._round(rpc.KINDS[kind], 4, 0.2, home)
    assert load.operations == len(load.latencies_s) > 4
    assert 0.19 < load.seconds < 30  # timers have whole milliseconds
    assert 0 < load.percentile_ms(50) <= load.percentile_ms(99) < 30_000


async def test_an_answer_that_is_no_echo_ends_the_round():
    async def echoes(_):
        return rpc.PAYLOAD

    async def cuts(_):
        return rpc.PAYLOAD[:-1]

    await rpc._checked(echoes)(0)
    with pytest.raises(RuntimeError, match="not what was sent"):
        await rpc._checked(cuts)(0)


def test_a_server_that_does_not_start_is_an_error_and_no_figure(tmp_path):
    with pytest.raises(subprocess.CalledProcessError):
        rpc._round("ours", 1, 0.1, tmp_path / "no identities here")


def taken(monkeypatch, rates: dict, *, installed: bool = True):
    """A run in which a round of each kind gives such rates, one after the other."""
    order = []

    def round_(kind, outstanding, seconds, home):
        order.append((outstanding, kind))
        rate = rates[kind][(order.count((outstanding, kind)) - 1) % len(rates[kind])]
        if isinstance(rate, Exception):
            raise rate
        return Load(int(rate * seconds), seconds, [1 / rate] * 100)

    monkeypatch.setattr(rpc, "_round", round_)
    monkeypatch.setattr(rpc.importlib.util, "find_spec", lambda name: installed or None)
    return order, lambda peers: rpc.run(peers=peers, seconds=2.0)


def found(report):
    return {(row.case, row.metric, row.peer): row for row in report.rows}


RATES = {"ours": [900, 1000, 5000], "grpc": [200, 100, 199], "msgpack": [3000, 2000, 9000]}


def test_rows_hold_medians_and_their_ratios_to_each_peer(monkeypatch):
    order, run = taken(monkeypatch, RATES)
    report = run(True)
    each = ["ours", "grpc", "msgpack"]
    assert order == [(n, k) for n in rpc.OUTSTANDING for _ in range(rpc.ROUNDS) for k in each]
    rows = found(report)
    assert set(rows) == {
        (case, metric, peer)
        for case in CASES
        for metric in ("rate", "p50", "p99")
        for peer in ("grpcio", "msgpack over TCP")
    }
    row = rows[CASES[0], "rate", "grpcio"]
    assert (row.unit, row.ours, row.theirs, row.bar, row.note) == ("/s", 1000, 199, 5.0, "")
    assert row.ratio == pytest.approx(1000 / 199)
    assert row.holds is True
    row = rows[CASES[1], "p50", "grpcio"]
    assert (row.unit, row.ours, row.theirs) == ("ms", 1.0, pytest.approx(1000 / 199))
    assert row.ratio == pytest.approx(1000 / 199)
    limit = rows[CASES[1], "rate", "msgpack over TCP"]
    assert (limit.bar, limit.ratio, limit.holds) == (1 / 3, pytest.approx(1 / 3), True)


@pytest.mark.parametrize(("grpc", "holds"), [(200, True), (201, False)])
def test_the_bar_is_five_times_grpcio(monkeypatch, grpc, holds):
    _, run = taken(monkeypatch, {**RATES, "ours": [1000], "grpc": [grpc]})
    report = run(True)
    assert found(report)[CASES[0], "rate", "grpcio"].holds is holds
    assert report.holds is holds


def test_alone_there_is_nothing_to_hold_it_against(monkeypatch):
    order, run = taken(monkeypatch, RATES)
    rows = run(False).rows
    assert {kind for _, kind in order} == {"ours"}
    assert len(rows) == 3 * len(CASES)
    assert {(row.peer, row.theirs, row.holds) for row in rows} == {("-", None, None)}


def test_who_is_not_installed_is_a_row_that_says_so(monkeypatch):
    _, run = taken(monkeypatch, RATES, installed=False)
    report = run(True)
    row = found(report)[CASES[0], "rate", "grpcio"]
    assert (row.theirs, row.ratio, row.holds) == (None, None, None)
    assert row.note == "grpcio is not installed"
    assert report.holds


def test_a_peer_that_fails_is_a_row_that_says_so_and_no_success(monkeypatch):
    """And it is not asked again in that case; ours, which goes on, is."""
    fails = subprocess.CalledProcessError(1, "load")
    order, run = taken(monkeypatch, {**RATES, "grpc": [100, fails]})
    report = run(True)
    assert order.count((1, "grpc")) == 2
    assert order.count((1, "ours")) == rpc.ROUNDS
    row = found(report)[CASES[0], "rate", "grpcio"]
    assert (row.theirs, row.holds) == (None, False)
    assert row.note.startswith("grpcio failed: ")
    assert "exit status 1" in row.note
    assert not report.holds


def test_a_failure_of_ours_is_no_report(monkeypatch):
    _, run = taken(monkeypatch, {**RATES, "ours": [subprocess.CalledProcessError(1, "load")]})
    with pytest.raises(subprocess.CalledProcessError):
        run(True)


def test_the_json_has_one_shape(monkeypatch):
    _, run = taken(monkeypatch, RATES)
    told = run(True).to_json()
    assert set(told) == {"bench", "machine", "rows"}
    assert told["bench"] == "rpc"
    keys = {"case", "metric", "unit", "ours", "peer", "theirs", "ratio", "bar", "holds", "note"}
    assert all(set(row) == keys for row in told["rows"])
