"""`ring bench dht`, small: both sides run, and what they find has the shape of the others'."""

from __future__ import annotations

import importlib.util

import pytest

from cluster.bench import dht


def check(found: dict) -> None:
    assert {"put/1", "put/16", "get/1", "get/16"} <= set(found)
    for verb in ("put", "get"):
        operations, seconds, latencies = found[f"{verb}/1"]
        assert operations == len(latencies) > 0
        assert seconds > 0


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_ours():
    found = dht._round("ours", 4, 0.3)
    check(found)
    assert len(found["hops"]) == 200
    assert 1 <= min(found["hops"]) <= max(found["hops"]) <= 4


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_kademlia():
    if importlib.util.find_spec("kademlia") is None:
        pytest.skip("kademlia is not installed: pip install 'ringleader[bench]'")
    check(dht._round("kademlia", 4, 0.3))


def test_the_rows_hold_rates_and_medians_against_the_peer(monkeypatch):
    def round_(kind: str, count: int, seconds: float) -> dict:
        speed = 10 if kind == "ours" else 1
        load = [100 * speed, 1.0, [0.01 / speed] * 10]
        loads = {f"{verb}/{n}": load for verb in ("put", "get") for n in dht.OUTSTANDING}
        return {**loads, "hops": [2, 3]}

    monkeypatch.setattr(dht, "_round", round_)
    monkeypatch.setattr(dht.importlib.util, "find_spec", lambda name: object())
    report = dht.run(peers=True, seconds=1)
    assert report.holds
    bars = {(row.case, row.metric): row.bar for row in report.rows if row.bar is not None}
    assert bars["32 peers, put, 1 outstanding", "rate"] == 5.0
    assert bars["64 peers, get, 16 outstanding", "p50"] == 1.0
    assert ("64 peers, look-up", "hops") in {(row.case, row.metric) for row in report.rows}
