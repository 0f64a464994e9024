"""The experiments about requests: that they could also fail."""

from __future__ import annotations

import pytest

from cluster.lab import requests
from netstack.delivery import restart
from netstack.delivery.back_off import NONE
from netstack.delivery.nonce_table import NonceTable


@pytest.fixture
def brief(monkeypatch):
    monkeypatch.setattr(requests, "RUN_S", 30.0)


def failed(outcome) -> list[str]:
    return [check.claim for check in outcome.checks if not check.holds]


def test_a_storm_is_one_history_of_its_seed(brief):
    one, again, other = (requests.run_storm("back-off with jitter", seed) for seed in (1, 1, 2))
    assert one == again != other


def test_a_fixed_timer_answers_nobody_and_never_rests(brief):
    storm = requests.run_storm("fixed timer", 1)
    assert storm.goodput(5.0, 30.0) == 0.0
    assert storm.executions == pytest.approx(3000, abs=2), "a hundred a second, for nothing"
    assert storm.gave_up > 1000


def test_storm_would_show_a_back_off_that_backs_off_from_nothing(brief, monkeypatch):
    monkeypatch.setitem(requests.KINDS, "back-off", ("fixed", NONE, 4))
    assert failed(requests.storm(1)) == ["back-off: answered of what is asked"]


def test_storm_would_show_jitter_that_is_none(brief, monkeypatch):
    monkeypatch.setitem(requests.KINDS, "back-off with jitter", requests.KINDS["back-off"])
    waves = "waves: the highest after the first second, without jitter over with"
    assert waves in failed(requests.storm(1))


def test_delivery_would_show_a_table_that_forgets_too_early(monkeypatch):
    forgetful = {"nonce-table": lambda terms: NonceTable(terms.rtt_s)}
    monkeypatch.setattr(requests.matrix, "STRATEGIES", restart.STRATEGIES | forgetful)
    claims = failed(requests.delivery(1))
    assert "nonce table / loss: not exactly once" in claims
    assert all(claim.startswith("nonce table /") for claim in claims)
