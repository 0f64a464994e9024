"""Planted bugs in senders and receivers: each must be caught by the check named beside it."""

from __future__ import annotations

import pytest
from arq_bugs import CHECKS, carries_with_receiver

from netstack.arq import link
from netstack.arq.errors import Malformed
from netstack.arq.in_order import InOrderReceiver
from netstack.arq.segment import _DECODERS


def name(check) -> str:
    return getattr(check.holds, "func", check.holds).__name__


PLANTED = [
    pytest.param(check.holds, bug, id=f"{bug.__name__}-by-{name(check)}")
    for check in CHECKS
    for bug in check.bugs
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: f"{c.honest.__name__}-{name(c)}")
def test_what_is_right_passes(check):
    check.holds(check.honest)


@pytest.mark.parametrize(("holds", "bug"), PLANTED)
def test_bug_is_caught(holds, bug):
    with pytest.raises(AssertionError):
        holds(bug)


def test_a_checksum_that_nobody_looks_at_is_caught(monkeypatch):
    def trusting(datagram):
        try:
            return _DECODERS[datagram[0]](datagram[:-4])
        except Exception:
            raise Malformed("not even readable") from None

    monkeypatch.setattr(link, "decode", trusting)
    with pytest.raises(AssertionError):
        carries_with_receiver(InOrderReceiver)
