"""Planted bugs in the transport: each must be caught by a check that claims to catch its kind."""

from __future__ import annotations

import random

import pytest
from transport_bugs import BUGS, carries_everything, estimates_the_path, search_stays_within

from netstack.transport import packet
from netstack.transport.connection import Connection
from netstack.transport.rtt import RttEstimator


@pytest.mark.parametrize("seed", range(3))
def test_the_honest_connection_passes(seed):
    carries_everything(Connection, seed)


@pytest.mark.parametrize("bug", BUGS, ids=lambda b: b.__name__)
def test_bug_is_caught(bug):
    caught = 0
    for seed in range(6):
        try:
            carries_everything(bug, seed)
        except AssertionError:
            caught += 1
    assert caught > 0, f"{bug.__name__} went through six hostile links unnoticed"


class WrapsAround:
    """Writes the lowest byte of a number, as if it were all of it."""

    size = packet.HEADER.size

    @staticmethod
    def pack(flags, connection_id, number):
        return packet.HEADER.pack(flags, connection_id, number & 0xFF)


def test_numbers_that_wrap_around_are_caught(monkeypatch):
    monkeypatch.setattr("netstack.transport.outgoing.HEADER", WrapsAround)
    with pytest.raises(AssertionError):
        carries_everything(Connection, 0)


class ForgetsKarn(RttEstimator):
    """Takes an acknowledgement of a repeat for one of the first transmission."""

    def sample(self, rtt_s: float, ack_delay_s: float = 0.0) -> None:
        super().sample(rtt_s + (1.0 if self.samples % 2 else 0.0), ack_delay_s)


def test_an_estimator_without_karns_rule_is_caught():
    estimates_the_path(RttEstimator)
    with pytest.raises(AssertionError):
        estimates_the_path(ForgetsKarn)


def test_a_search_that_trusts_its_probes_is_caught():
    search_stays_within(random.Random(1), honest=True)
    with pytest.raises(AssertionError):
        search_stays_within(random.Random(1), honest=False)
