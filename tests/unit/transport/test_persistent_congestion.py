"""Persistent congestion (RFC 9002 §7.6): a time in which nothing arrived, not any two losses.

✗ · · · · · ✗ · ·     two losses far apart, and what lay between them arrived: the window is
                      halved, once for each round trip
✗ ✗ ✗ ✗ ✗ ✗ ✗ · ·     everything of more than three time-outs was lost: start over
"""

from __future__ import annotations

import pytest

from netstack.transport.congestion.base import MINIMUM_PACKETS
from netstack.transport.congestion.newreno import NewReno
from netstack.transport.recovery import PERSISTENT_TIMEOUTS, Recovery, SentPacket
from netstack.transport.rtt import RttEstimator

SIZE = 1200


def window_after(arrived):
    """Sixty packets, one each tenth of a second; then one acknowledgement of these ranges."""
    rtt = RttEstimator(0.1)
    recovery = Recovery(rtt, NewReno(SIZE, rtt), 0.025)
    rtt.sample(0.1)
    recovery.congestion.cwnd = 100 * SIZE
    for number in range(60):
        recovery.sent((SentPacket(number, number * 0.1, SIZE, ["frame"], 0),))
    assert PERSISTENT_TIMEOUTS * recovery.probe_timeout(0) < 5.0
    recovery.acknowledge(arrived, 0.0, 6.0)
    recovery.detect_lost(6.0)
    return recovery.congestion.cwnd // SIZE


@pytest.mark.parametrize(
    "between",
    [[(1, 50)], [(30, 50), (1, 25)], [(n, n) for n in range(49, 0, -7)]],
    ids=["nearly all", "two outages", "every seventh"],
)
def test_losses_with_an_arrival_between_them_are_no_persistent_congestion(between):
    """The acknowledgements were held up for long, and tell of all of it at once."""
    lost_twice = [(52, 59), *between]
    assert window_after(lost_twice) > MINIMUM_PACKETS


def test_nothing_arrived_for_several_time_outs_is():
    assert window_after([(52, 59)]) == MINIMUM_PACKETS
