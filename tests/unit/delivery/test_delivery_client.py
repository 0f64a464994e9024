"""At least once: when a copy leaves, what is measured, and when there is no more hope."""

from __future__ import annotations

import random

import delivery_kit as kit
import pytest
from delivery_kit import ID, PATIENT, SHORT, new_client, reply, sent, told, wake
from hypothesis import given, settings
from hypothesis import strategies as st

from netstack.delivery.back_off import EXPONENTIAL, NONE, BackOff
from netstack.delivery.client import Answered, Client, Failed, Ports
from netstack.delivery.errors import BadMessage, NotExecuted, Refused, TooManyOpen
from netstack.delivery.messages import (
    BODY_BYTES_MAX,
    CLOSED,
    NOT_ABOVE,
    Open,
    Opened,
    Refusal,
    Reply,
    Request,
    decode,
    encode,
)
from netstack.delivery.terms import Terms
from netstack.transport.rtt import FixedTimer, LectureEwma, RttEstimator


class TestCopies:
    def test_an_answer_ends_a_request_and_is_told_once(self):
        client = new_client()
        nonce = client.ask(b"deposit 1", 0.0)
        assert sent(client) == [Request(ID, nonce, 0, b"deposit 1")]
        reply(client, nonce, 0.5, b"balance 1")
        reply(client, nonce, 0.6, b"balance 1")
        assert told(client) == [Answered(nonce, b"balance 1")]
        assert client.next_deadline() is None
        assert client.ignored == 1

    def test_all_copies_carry_one_nonce(self):
        kit.gives_all_copies_one_nonce(Client)

    def test_no_more_copies_are_sent_than_may_be(self):
        kit.sends_as_many_copies_as_it_may(Client)

    def test_it_gives_up_in_time_and_says_what_is_known(self):
        kit.gives_up_in_time_and_says_so(Client)

    def test_an_answer_to_an_earlier_copy_is_an_answer(self):
        client = new_client()
        client.ask(b"x", 0.0)
        wake(client)
        wake(client)
        sent(client)
        reply(client, 1, 10.0)
        assert told(client) == [Answered(1, b"ok")]

    def test_requests_have_their_own_timers(self):
        client = new_client()
        client.ask(b"x", 0.0)
        client.ask(b"y", 1.0)
        sent(client)
        assert wake(client) == 3.0
        assert [message.nonce for message in sent(client)] == [1]
        assert wake(client) == 4.0
        assert [message.nonce for message in sent(client)] == [2]

    def test_no_more_requests_are_open_than_may_be(self):
        client = new_client(open_max=2)
        client.ask(b"x", 0.0)
        client.ask(b"y", 0.0)
        with pytest.raises(TooManyOpen, match="2 requests are open"):
            client.ask(b"z", 0.0)
        reply(client, 1, 0.5)
        assert client.ask(b"z", 1.0) == 3

    def test_a_body_that_does_not_fit_is_refused_at_once(self):
        client = new_client()
        client.ask(bytes(BODY_BYTES_MAX), 0.0)
        with pytest.raises(BadMessage, match="1024 bytes at most, not 1025"):
            client.ask(bytes(BODY_BYTES_MAX + 1), 0.0)

    def test_what_is_not_for_it_changes_nothing(self):
        client = new_client()
        client.ask(b"x", 0.0)
        sent(client)
        for datagram in (b"", b"\xff", encode(Reply(b"another", 1, b"")), encode(Open(ID, 1))):
            client.receive(datagram, 1.0)
        client.receive(encode(Opened(ID, 1, 5)), 1.0)
        assert client.ignored == 5
        assert client.take_outputs() == []
        assert client.next_deadline() == 3.0

    def test_a_refusal_is_told_and_leaves_open_what_happened(self):
        client = new_client()
        client.ask(b"x", 0.0)
        sent(client)
        client.receive(encode(Refusal(ID, 1, NOT_ABOVE)), 1.0)
        (outcome,) = told(client)
        assert isinstance(outcome.error, Refused)
        assert "an earlier one may have been" in str(outcome.error)

    def test_it_tells_what_it_is(self):
        client = new_client()
        client.ask(b"x", 0.0)
        wake(client)
        assert repr(client) == "<Client 636c69656e74 open=1 level=1 sent_again=1>"


class TestTimer:
    def test_karns_rule_holds_in_both_halves(self):
        kit.keeps_karns_rule(Client)

    def test_a_clean_sample_ends_the_back_off(self):
        kit.resets_its_back_off_after_a_clean_sample(Client)

    @pytest.mark.parametrize(
        ("estimator", "second"),
        [
            # 1 s, then 2 s: srtt 1.125, rttvar 0.625 (from the old average) or 0.59375.
            (RttEstimator, 1.125 + 4 * 0.625),
            (LectureEwma, 1.125 + 4 * 0.59375),
            (FixedTimer, 3.0),
        ],
    )
    def test_it_waits_as_its_estimator_says(self, estimator, second):
        rng = random.Random(1)
        client = Client(ID, PATIENT, rng, estimator=estimator(1.0), back_off=NONE)
        for nonce, rtt_s in ((1, 1.0), (2, 2.0)):
            client.ask(b"x", 0.0)
            reply(client, nonce, rtt_s)
        client.ask(b"x", 0.0)
        assert client.next_deadline() == pytest.approx(second)

    def test_a_path_slower_than_the_timer_is_measured_in_the_end(self):
        """Each request is sent twice at first; the back-off that stays lets one be sent once."""
        client, slow_s = new_client(), 5.0
        now = 0.0
        for nonce in (1, 2):
            client.ask(b"x", now)
            while client.next_deadline() < now + slow_s:
                wake(client)
            now += slow_s
            reply(client, nonce, now)
        assert client.estimator.samples == 1
        assert client.estimator.smoothed == slow_s
        assert client.level == 0

    def test_without_back_off_it_never_waits_longer(self):
        client = new_client(back_off=NONE)
        client.ask(b"x", 0.0)
        assert [wake(client) for _ in range(4)] == [3.0, 6.0, 9.0, 12.0]


class TestBackOff:
    @given(
        timer=st.floats(0.001, 60),
        level=st.integers(0, 100),
        jitter=st.floats(0, 1),
        seed=st.integers(0, 99),
    )
    def test_it_lies_between_the_doubled_timer_and_its_jitter_above(
        self, timer, level, jitter, seed
    ):
        doubled = timer * 2 ** min(level, 6)
        wait_s = BackOff(jitter=jitter).wait_s(timer, level, random.Random(seed))
        assert doubled <= wait_s <= doubled * (1 + jitter) * (1 + 1e-12)

    def test_jitter_parts_clients_that_began_together(self):
        rng = random.Random(1)
        waits = [EXPONENTIAL.wait_s(1.0, 3, rng) for _ in range(100)]
        assert len(set(waits)) == 100
        assert max(waits) - min(waits) > 3.0

    @pytest.mark.parametrize(
        ("values", "message"),
        [({"factor": 0.5}, "must not shorten"), ({"jitter": 1.5}, "a share between 0 and 1")],
    )
    def test_senseless_values_are_refused(self, values, message):
        with pytest.raises(ValueError, match=message):
            BackOff(**values)


class TestTerms:
    def test_the_receiver_remembers_one_round_trip_longer_than_the_sender_asks(self):
        terms = Terms(rtt_s=0.5, patience_rtts=4)
        assert (terms.give_up_s, terms.horizon_s) == (2.0, 2.5)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"rtt_s": 0.0}, "rtt_s must be a positive number"),
            ({"rtt_s": float("nan")}, "rtt_s must be a positive number"),
            ({"tries_max": 0}, "tries_max must be 1 or more"),
            ({"patience_rtts": 0}, "patience_rtts must be 1 or more"),
        ],
    )
    def test_senseless_values_are_refused(self, values, message):
        with pytest.raises(ValueError, match=message):
            Terms(**values)


class TestPorts:
    def test_a_port_for_each_request_is_asked_for_first(self):
        kit.asks_for_a_port_before_every_request(Client)

    def test_the_port_of_a_life_is_asked_for_once_and_again_when_it_is_closed(self):
        client = new_client(ports=Ports.OF_A_LIFE)
        client.ask(b"x", 0.0)
        client.receive(encode(Opened(ID, 1, 4)), 1.0)
        client.ask(b"y", 1.0)
        kinds = [type(message) for message in sent(client)]
        assert kinds == [Open, Request, Request]
        client.receive(encode(Refusal(ID, 2, CLOSED)), 2.0)
        client.ask(b"z", 2.0)
        outcome, asked = client.take_outputs()
        assert isinstance(outcome, Failed)
        assert decode(asked.datagram) == Open(ID, 3)

    def test_a_late_refusal_of_an_old_port_does_not_unlearn_the_new_one(self):
        client = new_client(ports=Ports.OF_A_LIFE)
        client.ask(b"x", 0.0)
        client.receive(encode(Opened(ID, 1, 4)), 0.0)
        client.ask(b"y", 0.0)
        client.receive(encode(Refusal(ID, 1, CLOSED)), 1.0)
        client.ask(b"z", 1.0)
        client.receive(encode(Opened(ID, 3, 5)), 1.5)
        client.receive(encode(Refusal(ID, 2, CLOSED)), 2.0)
        client.take_outputs()
        client.ask(b"w", 2.0)
        assert sent(client) == [Request(ID, 4, 5, b"w")]

    def test_the_agreed_time_runs_from_the_first_copy_that_can_be_executed(self):
        client = new_client(terms=SHORT, ports=Ports.OF_A_REQUEST)
        client.ask(b"x", 0.0)
        client.receive(encode(Opened(ID, 1, 4)), 2.0)
        while client.next_deadline() is not None:
            last = wake(client)
        assert last == 2.0 + SHORT.give_up_s

    def test_who_gets_no_port_knows_that_nothing_was_executed(self):
        client = new_client(terms=SHORT, ports=Ports.OF_A_LIFE)
        client.ask(b"x", 0.0)
        while client.next_deadline() is not None:
            wake(client)
        outcome = client.take_outputs()[-1]
        assert isinstance(outcome.error, NotExecuted)

    def test_a_second_port_for_the_same_request_is_ignored(self):
        client = new_client(ports=Ports.OF_A_REQUEST)
        client.ask(b"x", 0.0)
        for port in (4, 5):
            client.receive(encode(Opened(ID, 1, port)), 1.0)
        assert [message for message in sent(client) if isinstance(message, Request)] == [
            Request(ID, 1, 4, b"x")
        ]


@settings(max_examples=200, deadline=None)
@given(
    ports=st.sampled_from(list(Ports)),
    events=st.lists(
        st.tuples(
            st.sampled_from(["ask", "wake", "reply", "refuse", "opened", "noise"]),
            st.integers(1, 6),
            st.floats(0.0, 2.0),
        ),
        max_size=60,
    ),
)
def test_whatever_happens_each_request_has_one_outcome_in_time(ports, events):
    terms = Terms(rtt_s=1.0, patience_rtts=5, tries_max=4)
    client = new_client(terms=terms, back_off=EXPONENTIAL, ports=ports, open_max=3)
    now, asked, copies, outcomes = 0.0, set(), {}, {}

    def take():
        client.check()
        for output in client.take_outputs():
            if isinstance(output, (Answered, Failed)):
                assert output.nonce not in outcomes, "told twice"
                outcomes[output.nonce] = output
                continue
            message = decode(output.datagram)
            key = message.nonce, type(message)
            copies.setdefault(key, []).append(now)

    for event, nonce, later in events:
        now += later
        match event:
            case "ask":
                try:
                    asked.add(client.ask(b"x", now))
                except TooManyOpen:
                    assert len(asked) - len(outcomes) == 3
            case "wake":
                client.on_deadline(now)
            case "reply":
                reply(client, nonce, now)
            case "refuse":
                client.receive(encode(Refusal(ID, nonce, CLOSED)), now)
            case "opened":
                client.receive(encode(Opened(ID, nonce, 9)), now)
            case "noise":
                client.receive(bytes([nonce]), now)
        take()
    while (deadline := client.next_deadline()) is not None:
        now = max(now, deadline)
        client.on_deadline(now)
        take()
    assert set(outcomes) == asked
    for times in copies.values():
        assert len(times) <= terms.tries_max
        assert times[-1] - times[0] < terms.give_up_s
