"""`ring bench raft`: real loads and a real failover, and rows that can miss their bars."""

from __future__ import annotations

import pytest

from cluster.bench import etcd_client, etcd_peer, raft
from cluster.bench.harness import Load


@pytest.mark.timeout(300)
def test_loads_elections_and_a_failover_of_a_real_cluster():
    with raft.Ours() as ours:
        for operation in ("put", "get"):
            load = ours.load(operation, 4, 0.3)
            assert load.operations == len(load.latencies_s) > 4
            assert 0.29 < load.seconds < 60  # timers have whole milliseconds
        before = ours.elections()
        (failover_s,) = ours.failovers(1)
        assert 0 < failover_s < 60
        assert ours.elections() > before >= 0


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(bool(etcd_peer.missing()), reason=etcd_peer.missing())
def test_the_same_of_etcd():
    with etcd_peer.EtcdCluster() as etcd:
        for operation in ("put", "get"):
            load = raft._etcd_load(etcd, operation, 4, 0.3)
            assert load.operations == len(load.latencies_s) > 4
            if not etcd_client.missing():
                load = etcd.load_from_python(operation, 4, 0.3)
                assert load.operations == len(load.latencies_s) > 4
    (failover_s,) = raft._etcd_failovers(1)
    assert 0 < failover_s < 60


def load_of(rate: float) -> Load:
    return Load(int(rate), 1.0, [1 / rate] * 100)


class Fake:
    """Either cluster, in a run that takes no time."""

    rates = (900.0, 1000.0, 5000.0)
    failovers_s = (0.2, 0.1, 0.9)
    elected = 0

    def __init__(self) -> None:
        self.taken: list = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def load(self, operation, clients, seconds):
        self.taken.append((operation, clients))
        rate = self.rates[(self.taken.count((operation, clients)) - 1) % len(self.rates)]
        return load_of(rate)

    def elections(self):
        return self.elected

    def failovers(self, trials):
        return list(self.failovers_s)


class FakeEtcd(Fake):
    rates = (500.0, 1000.0, 400.0)

    def load(self, method, message, clients, seconds):
        return super().load(method, clients, seconds)

    def load_from_python(self, operation, clients, seconds):
        return load_of(250.0)


@pytest.fixture
def run(monkeypatch):
    def begin(*, ours=Fake, etcd=FakeEtcd, missing="", failovers=lambda trials: [1.0] * trials):
        monkeypatch.setattr(raft, "Ours", ours)
        monkeypatch.setattr(etcd_peer, "EtcdCluster", etcd)
        monkeypatch.setattr(etcd_peer, "missing", lambda: missing)
        monkeypatch.setattr(etcd_client, "missing", lambda: "")
        monkeypatch.setattr(raft, "_etcd_failovers", failovers)
        return lambda peers: raft.run(peers=peers, seconds=1.0)

    return begin


def found(report):
    return {(row.case, row.metric, row.peer): row for row in report.rows}


def test_rows_hold_medians_and_their_ratios_to_etcd(run):
    report = run()(True)
    rows = found(report)
    for operation in ("put", "get"):
        for clients in raft.CLIENTS:
            row = rows[f"{operation}, {clients} clients", "rate", "etcd"]
            assert (row.ours, row.theirs, row.ratio, row.bar) == (1000, 500, 2.0, 1.0)
            row = rows[f"{operation}, {clients} clients", "p99", "etcd"]
            assert (row.ours, row.theirs, row.ratio) == (1.0, 2.0, 2.0)
            row = rows[f"{operation}, {clients} clients", "rate", "etcd, from Python"]
            assert (row.ours, row.theirs, row.ratio, row.bar) == (1000, 250, 4.0, 1.0)
    row = rows["failover", "median", "etcd"]
    assert (row.ours, row.theirs, row.ratio) == (200, 1000, 5.0)
    assert report.holds


def test_the_json_has_one_shape(run):
    told = run()(True).to_json()
    assert set(told) == {"bench", "machine", "rows"}
    assert told["bench"] == "raft"
    keys = {"case", "metric", "unit", "ours", "peer", "theirs", "ratio", "bar", "holds", "note"}
    assert all(set(row) == keys for row in told["rows"])
    assert len(told["rows"]) == 2 * len(raft.CLIENTS) * 2 * 3 + 1 + 4


@pytest.mark.parametrize(
    ("bad", "case", "metric"),
    [
        ({"elected": 1}, "under load", "worst"),
        ({"failovers_s": (0.1, 0.31, 0.31)}, "failover", "median"),
        ({"failovers_s": (0.1, 0.1, 1.01)}, "failover", "worst"),
    ],
)
def test_an_election_under_load_or_a_slow_failover_misses_its_bar(run, bad, case, metric):
    report = run(ours=type("Bad", (Fake,), bad))(False)
    missed = [(row.case, row.metric) for row in report.rows if row.holds is False]
    assert missed == [(case, metric)]
    assert not report.holds


def test_who_is_slower_than_etcd_misses_the_bar(run):
    report = run(ours=type("Slow", (Fake,), {"rates": (499.0,)}))(True)
    missed = {(row.case, row.metric) for row in report.rows if row.holds is False}
    assert missed == {(f"{o}, {n} clients", "rate") for o in ("put", "get") for n in raft.CLIENTS}


def test_without_etcd_the_rows_say_what_to_install(run):
    report = run(missing="apt-get install etcd-server")(True)
    row = found(report)["put, 1 clients", "rate", "etcd"]
    assert (row.theirs, row.ratio, row.holds) == (None, None, None)
    assert row.note == "apt-get install etcd-server"
    assert ("failover", "median", "etcd") not in found(report)


class DoesNotStart(FakeEtcd):
    def __enter__(self):
        raise RuntimeError("etcd did not elect a leader")


class BreaksDown(FakeEtcd):
    def load(self, method, message, clients, seconds):
        if clients > raft.CLIENTS[0]:
            raise RuntimeError("etcd failed 7 of 9 requests")
        return super().load(method, message, clients, seconds)


@pytest.mark.parametrize("etcd", [DoesNotStart, BreaksDown])
def test_an_etcd_that_fails_is_a_row_that_says_so_and_ours_goes_on(run, etcd):
    report = run(etcd=etcd)(True)
    rows = found(report)
    row = rows["get, 256 clients", "rate", "etcd"]
    assert (row.ours, row.theirs, row.holds) == (1000, None, False)
    assert row.note.startswith("etcd failed: etcd ")
    assert rows["failover", "median", "etcd"].holds is False
    assert rows["failover", "worst", "-"].ours == 900
    assert (rows["put, 1 clients", "rate", "etcd"].theirs is None) == (etcd is DoesNotStart)


def test_without_grpcio_the_rows_of_a_client_in_python_say_what_to_install(run, monkeypatch):
    begin = run()
    monkeypatch.setattr(etcd_client, "missing", lambda: "pip install grpcio")
    rows = found(begin(True))
    row = rows["put, 1 clients", "rate", "etcd, from Python"]
    assert (row.theirs, row.holds, row.note) == (None, None, "pip install grpcio")
    assert rows["put, 1 clients", "rate", "etcd"].theirs == 500


def test_an_etcd_that_does_not_fail_over_is_a_row_too(run):
    def never(trials):
        raise RuntimeError("no put was acknowledged in 60 s")

    rows = found(run(failovers=never)(True))
    assert rows["put, 64 clients", "rate", "etcd"].theirs == 500
    assert rows["failover", "median", "etcd"].note == (
        "etcd failed: no put was acknowledged in 60 s"
    )


def test_a_node_that_does_not_say_its_term_is_no_proof_of_calm(monkeypatch):
    class Control:
        def __init__(self, home):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def ask(self, verb):
            return {"nodes": [{"says": {"term": 1}}, {"says": {}}]}

    monkeypatch.setattr(raft, "Control", Control)
    ours = raft.Ours()
    with pytest.raises(RuntimeError, match="does not say its term"):
        ours.elections()
    ours._folder.cleanup()
