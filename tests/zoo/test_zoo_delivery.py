"""Planted bugs in delivery: each must be caught by the check that claims to catch its kind."""

from __future__ import annotations

import sys
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "delivery"))

import delivery_kit as kit

from netstack.delivery.client import Client, Failed
from netstack.delivery.errors import GaveUp
from netstack.delivery.fresh_port import FreshPort
from netstack.delivery.messages import NOT_ABOVE
from netstack.delivery.monotone import Monotone
from netstack.delivery.nonce_table import NonceTable
from netstack.delivery.restart import Cure, start
from netstack.delivery.server import Persist, Server
from netstack.delivery.suppressor import EXECUTE, Refuse
from netstack.delivery.trials.matrix import FAULTS, ROWS, Row, cell, word

# -- clients


class SamplesRepeats(Client):
    """No Karn: takes a reply after two copies for a sample of the last."""

    def _measure(self, pending, now):
        self.estimator.sample(now - pending.sent_at)
        self.level = 0


class ForgetsTheBackOff(Client):
    """Half of Karn: does not sample, but begins the next request with the bare timer."""

    def ask(self, body, now):
        self.level = 0
        return super().ask(body, now)


class NeverResetsTheBackOff(Client):
    """Waits for ever longer, though the path is well again."""

    def _measure(self, pending, now):
        level = self.level
        super()._measure(pending, now)
        self.level = level


class OneTryTooMany(Client):
    """Off by one in the tries."""

    def _is_over(self, pending, now):
        late = now >= pending.began + self._terms.give_up_s
        return pending.tries > self._terms.tries_max or late


class OneTryTooFew(Client):
    """Off by one the other way."""

    def _is_over(self, pending, now):
        return pending.tries + 1 >= self._terms.tries_max or super()._is_over(pending, now)


class CountsTriesOnly(Client):
    """Has tries left, and goes on after the receiver has forgotten."""

    def _send(self, nonce, pending, now):
        super()._send(nonce, pending, now)
        pending.wakes_at = now + self._back_off.wait_s(
            self.estimator.rto(), pending.level, self._rng
        )

    def _is_over(self, pending, now):
        return pending.tries >= self._terms.tries_max

    def check(self):
        pass


class NewNonceForEachCopy(Client):
    """Makes every copy a request of its own."""

    def _send(self, nonce, pending, now):
        if pending.tries:
            del self._pending[nonce]
            self._nonce += 1
            nonce = self._nonce
            self._pending[nonce] = pending
        super()._send(nonce, pending, now)


class SaysItFailed(Client):
    """Gives up with a clean failure, as if nothing had happened."""

    def _finish(self, outcome):
        if isinstance(outcome, Failed) and isinstance(outcome.error, GaveUp):
            outcome = replace(outcome, error=ConnectionError("not executed"))
        super()._finish(outcome)


class KeepsItsPort(Client):
    """Sends the next request to the port of the last."""

    def _opened(self, nonce, pending, port, now):
        self._port = port
        super()._opened(nonce, pending, port, now)


CLIENTS = (
    (SamplesRepeats, kit.keeps_karns_rule),
    (ForgetsTheBackOff, kit.keeps_karns_rule),
    (NeverResetsTheBackOff, kit.resets_its_back_off_after_a_clean_sample),
    (OneTryTooMany, kit.sends_as_many_copies_as_it_may),
    (OneTryTooFew, kit.sends_as_many_copies_as_it_may),
    (CountsTriesOnly, kit.gives_up_in_time_and_says_so),
    (SaysItFailed, kit.gives_up_in_time_and_says_so),
    (NewNonceForEachCopy, kit.gives_all_copies_one_nonce),
    (KeepsItsPort, kit.asks_for_a_port_before_every_request),
)

# -- suppressors


class ForgetsARoundTripTooEarly(NonceTable):
    """As long as the sender asks, and not the RTT that its last copy takes besides."""

    def __init__(self, horizon_s):
        super().__init__(horizon_s - kit.SHORT.rtt_s)


class MonotoneForgetsTooEarly(Monotone):
    """The same of clients."""

    def __init__(self, horizon_s):
        super().__init__(horizon_s - kit.SHORT.rtt_s)


class NeverForgets(NonceTable):
    """The lecture's table that grows without end."""

    def _forget(self, now):
        pass


class AnswersByExecuting(NonceTable):
    """Knows the duplicate, and makes its reply anew."""

    def admit(self, request, now):
        verdict = super().admit(request, now)
        return EXECUTE if type(verdict).__name__ == "Answer" else verdict


class RefusesInsteadOfAnswering(NonceTable):
    """Remembers the nonce and not the reply."""

    def admit(self, request, now):
        verdict = super().admit(request, now)
        return Refuse(NOT_ABOVE) if type(verdict).__name__ == "Answer" else verdict


class OneReplyForAll(NonceTable):
    """Answers a duplicate with the newest reply."""

    def executed(self, request, reply, now):
        super().executed(request, reply, now)
        self._replies = OrderedDict((key, (at, reply)) for key, (at, _) in self._replies.items())


class DropsTheOldestWhenFull(NonceTable):
    """Makes room by forgetting what it still needs."""

    def __init__(self, horizon_s):
        super().__init__(horizon_s, capacity=2)

    def admit(self, request, now):
        if len(self._replies) >= self._capacity:
            self._replies.popitem(last=False)
        return super().admit(request, now)


class TakesAnEqualNumber(Monotone):
    """Refuses what is below the highest, and takes the highest again."""

    def admit(self, request, now):
        known = self._highest.get(request.client)
        equal = known is not None and request.nonce == known[1]
        return EXECUTE if equal else super().admit(request, now)


class OneHighestForAll(Monotone):
    """Does not tell clients apart."""

    def admit(self, request, now):
        return super().admit(replace(request, client=b"all"), now)

    def executed(self, request, reply, now):
        super().executed(replace(request, client=b"all"), reply, now)


class LeavesThePortOpen(FreshPort):
    """Serves, and forgets to close."""

    def executed(self, request, reply, now):
        pass


class RestsTooShort(FreshPort):
    """Gives a port to a new tenant an RTT before the last old copy is gone."""

    def __init__(self, horizon_s):
        super().__init__(horizon_s, rest_s=horizon_s - kit.SHORT.rtt_s, ports_max=2)


SUPPRESSORS = (
    (ForgetsARoundTripTooEarly, kit.remembers_for_as_long_as_copies_can_arrive),
    (MonotoneForgetsTooEarly, kit.remembers_for_as_long_as_copies_can_arrive),
    (NeverForgets, kit.forgets_at_the_horizon),
    (AnswersByExecuting, kit.executes_a_nonce_once_and_answers_again),
    (RefusesInsteadOfAnswering, kit.executes_a_nonce_once_and_answers_again),
    (OneReplyForAll, kit.executes_a_nonce_once_and_answers_again),
    (DropsTheOldestWhenFull, kit.ignores_what_it_has_no_room_for),
    (TakesAnEqualNumber, kit.refuses_what_is_not_above_the_highest),
    (OneHighestForAll, kit.refuses_what_is_not_above_the_highest),
    (LeavesThePortOpen, kit.serves_a_port_once),
    (RestsTooShort, kit.lets_a_port_rest),
)

# -- servers and restarts


class AnswersBeforeItIsStable(Server):
    """The reply leaves first."""

    def take_outputs(self):
        return sorted(super().take_outputs(), key=lambda output: isinstance(output, Persist))


class PersistsTheMoneyOnly(Server):
    """A durable table that is not: the image has the balance and not the nonce."""

    def persist(self, now):
        self._keeps_table = False
        super().persist(now)


def as_kind(kind):
    """`start`, with servers of this kind."""

    def begin(*arguments):
        server = start(*arguments)
        server.__class__ = kind
        return server

    return begin


def silent_too_short(application, suppressor, cure, terms, image, now):
    """Until the sender gives up, and not until its last copy has arrived."""
    server = start(application, suppressor, cure, terms, image, now)
    server.silent_until -= terms.rtt_s
    return server


def same_port_again(application, suppressor, cure, terms, image, now):
    """A fresh port in every life, which is always the first."""
    server = start(application, suppressor, cure, terms, image, now)
    suppressor.port = 1
    return server


def executes_once_after_a_kill(cure, begin):
    assert kit.executed_after_a_kill(NonceTable, cure, begin) == 1


@pytest.mark.parametrize(("bug", "check"), [*CLIENTS, *SUPPRESSORS], ids=lambda b: b.__name__)
def test_bug_is_caught(bug, check):
    with pytest.raises(AssertionError):
        check(bug)


def test_a_reply_that_leaves_before_the_money_is_stable_is_caught():
    kit.makes_an_execution_stable_before_it_answers(Server)
    with pytest.raises(AssertionError):
        kit.makes_an_execution_stable_before_it_answers(AnswersBeforeItIsStable)


@pytest.mark.parametrize(
    ("cure", "begin"),
    [
        (Cure.SILENCE, silent_too_short),
        (Cure.FRESH_PORT, same_port_again),
        (Cure.DURABLE_TABLE, as_kind(PersistsTheMoneyOnly)),
    ],
    ids=lambda part: getattr(part, "__name__", str(part)),
)
def test_a_cure_that_does_not_cure_is_caught(cure, begin):
    executes_once_after_a_kill(cure, start)
    with pytest.raises(AssertionError):
        executes_once_after_a_kill(cure, begin)


@pytest.mark.parametrize(
    ("bug", "row", "fault"),
    [
        (AnswersByExecuting, "nonce table", "duplicate"),
        (AnswersByExecuting, "nonce table", "loss"),
        (TakesAnEqualNumber, "monotone, 1 at a time", "loss"),
        (LeavesThePortOpen, "fresh port", "loss"),
    ],
)
def test_the_matrix_shows_the_bug(bug, row, fault):
    class Planted(Row):
        def make(self, terms):
            return bug(terms.horizon_s)

    (honest,) = (r for r in ROWS if r.name == row)
    (wrong,) = (f for f in FAULTS if f.name == fault)
    assert word(cell(honest, wrong)) == "-"
    assert word(cell(Planted(honest.name, honest.strategy, honest.lanes), wrong)) == "twice"
