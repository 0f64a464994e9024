"""`ring dht lab`: small rings here, the published sizes among the slow ones."""

from __future__ import annotations

import random

import pytest

from cluster.lab import dht_rings, dht_routing, dht_storage
from cluster.lab.dht_experiments import EXPERIMENTS
from dht.chord import oracle
from dht.chord.options import ChordOptions


def failing(outcome) -> list[str]:
    return [check.claim for check in outcome.checks if not check.holds]


def test_the_rings_are_ideal_and_look_ups_in_them_right():
    rng = random.Random(1)
    members = dht_rings.random_contacts(60, rng)
    nodes = dht_rings.ideal_ring(members, ChordOptions(successors=5))
    ring = {n.me: oracle.View(n.pred, tuple(n.succ)) for n in nodes.values()}
    assert oracle.flaws(ring, 5) == []
    for _ in range(200):
        target = rng.getrandbits(160)
        found, _ = dht_rings.look_up(nodes, rng.choice(members), target)
        assert found == oracle.owner(ring, target)


def test_path_length(monkeypatch):
    monkeypatch.setattr(dht_routing, "EXPONENTS", range(3, 9))
    monkeypatch.setattr(dht_routing, "SHOWN", 8)
    monkeypatch.setattr(dht_routing, "LOOKUPS", 1500)
    outcome = dht_routing.path_length(1)
    assert failing(outcome) == ["2^8: the most frequent number of hops"]  # it is 4 there
    assert len(outcome.panels) == 3


def test_the_bound_of_the_spread_tells_a_binomial_from_what_is_none():
    dice = random.Random(2)
    bits = [sum(dice.random() < 0.49 for _ in range(12)) for _ in range(4000)]
    worse = [hop + (dice.random() < 0.1) * dice.choice((-2, 2)) for hop in bits]
    for found, fits in ((bits, True), (worse, False), ([round(h / 2) * 2 for h in bits], False)):
        value, bound = dht_routing.misfit(found, dht_routing.ones(12, sum(found) / len(found)))
        assert (value <= bound) is fits, (value, bound)
        assert 35 < bound < 45  # 40 at nine degrees of freedom


def test_sudden_deaths(monkeypatch):
    monkeypatch.setattr(dht_routing, "MEMBERS", 200)
    monkeypatch.setattr(dht_routing, "LOOKUPS", 300)
    monkeypatch.setattr(dht_routing, "DEATHS", (0.5,))
    assert failing(dht_routing.sudden_deaths(1)) == []


def test_without_successor_lists_look_ups_would_fail(monkeypatch):
    rng = random.Random(1)
    members = dht_rings.random_contacts(200, rng)
    nodes = dht_rings.ideal_ring(members, ChordOptions(successors=1))
    dead = set(rng.sample(members, 100))
    alive = [m for m in members if m not in dead]
    for gone in dead:
        del nodes[gone]
    lost = 0
    for _ in range(200):
        found, _ = dht_rings.look_up(nodes, rng.choice(alive), rng.getrandbits(160))
        lost += found is None
    assert lost > 50


def test_churn_heals(monkeypatch):
    monkeypatch.setattr(dht_routing, "CHURN_MEMBERS", 60)
    monkeypatch.setattr(dht_routing, "ROUNDS", 5)
    hit, failed, total = dht_routing._live(1.0, random.Random(3))
    assert total > 300
    assert failed == 0
    assert hit > 0


def test_load_and_replicas(monkeypatch):
    monkeypatch.setattr(dht_storage, "PROCESSES", 3000)
    monkeypatch.setattr(dht_storage, "VNODES", (1, 5))
    monkeypatch.setattr(dht_storage, "PERCENTS", (50, 99))
    assert failing(dht_storage.load(1)) == []
    monkeypatch.setattr(dht_storage, "MEMBERS", 300)
    monkeypatch.setattr(dht_storage, "DRAWS", 20)
    monkeypatch.setattr(dht_storage, "REPLICAS", (1, 2, 3, 4))
    assert failing(dht_storage.replicas(1)) == []


def test_another_power_of_p_would_not_pass_for_the_right_one():
    for count in dht_storage.REPLICAS[1:]:
        for fraction in dht_storage.DEATHS:
            margin = 4 * dht_storage.loss_deviation(count, fraction)
            right = dht_storage.expected_loss(count, fraction)
            for wrong in (count - 1, count + 1):
                apart = abs(dht_storage.expected_loss(wrong, fraction) - right)
                assert apart > margin, (count, wrong, fraction)


def test_one_that_keeps_a_copy_too_few_is_caught(monkeypatch):
    monkeypatch.setattr(dht_storage, "MEMBERS", 300)
    monkeypatch.setattr(dht_storage, "DRAWS", 20)
    kept = dht_storage.followers
    monkeypatch.setattr(dht_storage, "followers", lambda core: kept(core)[1:2])
    assert len(failing(dht_storage.replicas(1))) >= 8  # three copies and four are two


def test_erlangs_quantiles_are_right():
    for k, low, high in ((1, 0.010, 4.61), (2, 0.074, 3.32), (5, 0.256, 2.32), (20, 0.554, 1.59)):
        assert dht_storage.erlang_quantile(k, 0.01) == pytest.approx(low, abs=0.001)
        assert dht_storage.erlang_quantile(k, 0.99) == pytest.approx(high, abs=0.005)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_claims_hold_at_the_published_sizes(name):
    assert failing(EXPERIMENTS[name](2)) == []
