"""`ring torrent lab`: its claims hold, and they can fail."""

from __future__ import annotations

import pytest

from cluster.lab import torrent_strategies as lab


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_claims_hold():
    outcome = lab.strategies(1)
    assert outcome.holds, [check for check in outcome.checks if not check.holds]
    assert len(outcome.panels) == 2


def test_a_seed_that_dies_too_early_loses_pieces_whatever_the_order(monkeypatch):
    monkeypatch.setattr(lab, "PIECES", 32)
    assert lab.swarm(1, "rarest", 0.5).lost >= 16
    assert lab.swarm(1, "sequential", 0.5).lost >= 24


def test_and_one_that_lives_loses_none(monkeypatch):
    monkeypatch.setattr(lab, "PIECES", 32)
    run = lab.swarm(1, "random", None)
    assert run.lost == 0
    assert len(run.completed_s) == lab.PEERS
    assert max(run.completed_s) < lab.LIMIT_S
