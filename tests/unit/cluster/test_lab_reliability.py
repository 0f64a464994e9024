"""The experiments about windows and receivers: what they find, and whether they could also fail."""

from __future__ import annotations

import pytest

from cluster.lab import reliability
from netstack.arq.nak import NakReceiver
from netstack.arq.sliding_window import SlidingWindowSender


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """A quarter of the message: the formulas leave out the first round trip, so it must do."""
    monkeypatch.setattr(reliability, "MESSAGE", bytes(reliability.SEGMENT * 1050))
    monkeypatch.setattr(reliability, "RUNS", 1)


def failed(outcome) -> set[str]:
    return {check.claim for check in outcome.checks if not check.holds}


def test_the_lectures_example_is_the_knee():
    checks = {check.claim: check for check in reliability.window(1).checks}
    assert checks["the knee of the sliding window"].value == 70
    assert checks["lock-step, of its formula"].value == pytest.approx(1)


def test_the_window_would_show_a_sender_that_does_not_use_all_of_it(monkeypatch):
    class Short(SlidingWindowSender):
        def _limit(self):
            return self.next_index + max(1, self.window * 9 // 10)

    monkeypatch.setattr(reliability, "SlidingWindowSender", Short)
    assert "the knee of the sliding window" in failed(reliability.window(1))


def test_the_receivers_would_show_one_that_never_stops_asking(monkeypatch):
    class Storm(NakReceiver):
        def __init__(self, buffer_bytes=1 << 20, *, stops=True):
            super().__init__(buffer_bytes, stops=False)

    monkeypatch.setattr(reliability, "NakReceiver", Storm)
    claim = "NAK that stops at duplicates: sent again"
    assert claim in failed(reliability.receivers(1))


def test_the_receivers_cost_what_they_should():
    wrong = failed(reliability.receivers(1))
    # A short message has too few losses for a mean.
    assert {claim for claim in wrong if "of what was lost" not in claim} == set()
