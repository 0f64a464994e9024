"""Planted bugs in the transport: each must be caught by a check that claims to catch its kind."""

from __future__ import annotations

import pytest
from transport_bugs import (
    BUGS,
    ForgetsKarn,
    NeverGivesASizeUp,
    StopsAtTheFirstLoss,
    TrustsItsProbes,
    carries_everything,
    estimates_the_path,
    search_stays_within,
)

from netstack.transport import packet
from netstack.transport.connection import Connection
from netstack.transport.mtu import MtuDiscovery


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


def test_an_estimator_without_karns_rule_is_caught():
    estimates_the_path(Connection)
    with pytest.raises(AssertionError, match="on a path of"):
        estimates_the_path(ForgetsKarn)


@pytest.mark.parametrize("accidents", [0, 2])
def test_a_search_that_is_right_passes(accidents):
    search_stays_within(MtuDiscovery, accidents)


@pytest.mark.parametrize(
    ("bug", "accidents", "by"),
    [
        (TrustsItsProbes, 0, "does not carry"),
        (NeverGivesASizeUp, 0, "does not end"),
        (StopsAtTheFirstLoss, 1, "on a path of 1,472"),
    ],
)
def test_a_search_that_is_wrong_is_caught(bug, accidents, by):
    with pytest.raises(AssertionError, match=by):
        search_stays_within(bug, accidents)
