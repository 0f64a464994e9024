"""The experiment of play-out: that it finds what it claims, and would find the opposite."""

from __future__ import annotations

import pytest

from cluster.lab import playout
from netstack.presets.jitter import segments_needed


def failed(outcome):
    return [check.claim for check in outcome.checks if not check.holds]


@pytest.fixture
def short(monkeypatch):
    """Half as long: enough for the same verdict."""
    monkeypatch.setattr(playout, "SECONDS", 10.0)
    monkeypatch.setattr(playout, "LISTENERS", 10)


def test_no_gap_at_the_formulas_size_and_some_below():
    outcome = playout.jitter(2)
    assert failed(outcome) == []
    assert all(curve.points for panel in outcome.panels for curve in panel.curves)


def test_a_seed_is_one_history():
    first, again, other = (playout.over_the_link(seed, 160, 2.0).arrivals for seed in (5, 5, 6))
    assert first == again != other


def test_the_links_delays_fill_the_range_that_is_claimed_for_them():
    arrivals = playout.over_the_link(1, 160, 20.0).arrivals
    transits = [tick - 160 * sequence for sequence, tick in arrivals]
    spread = max(transits) - min(transits)
    assert spread > 0.95 * (playout.LONGEST - playout.SHORTEST)
    assert spread <= playout.LONGEST - playout.SHORTEST
    assert sorted(sequence for sequence, _ in arrivals) != [sequence for sequence, _ in arrivals]


def test_it_would_show_a_formula_that_rounds_down(short, monkeypatch):
    monkeypatch.setattr(playout, "segments_needed", lambda long, short, gap: (long - short) // gap)
    assert "each 40 ms, 2 segments by the formula: under-runs" in failed(playout.jitter(1))


def test_it_would_show_a_formula_that_gives_too_much(short, monkeypatch):
    monkeypatch.setattr(playout, "segments_needed", lambda *path: segments_needed(*path) + 1)
    assert "each 20 ms, one less: under-runs" in failed(playout.jitter(1))
