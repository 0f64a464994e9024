"""At most once: what each strategy remembers, for how long, and what a restart makes of it."""

from __future__ import annotations

import contextlib

import delivery_kit as kit
import msgpack
import pytest
from delivery_kit import ID, SHORT, new_server, next_life, offer, request
from hypothesis import given, settings
from hypothesis import strategies as st

from netstack.delivery.errors import BadMessage
from netstack.delivery.fresh_port import FreshPort
from netstack.delivery.idempotence import Idempotence
from netstack.delivery.ledger import Ledger
from netstack.delivery.messages import (
    BODY_BYTES_MAX,
    CLOSED,
    NOT_ABOVE,
    NUMBER_MAX,
    Open,
    Opened,
    Refusal,
    Reply,
    Request,
    decode,
    encode,
)
from netstack.delivery.monotone import Monotone
from netstack.delivery.nonce_table import NonceTable
from netstack.delivery.restart import STRATEGIES, Cure, ports_for, start
from netstack.delivery.server import Server
from netstack.delivery.suppressor import EXECUTE, IGNORE

CURES = (Cure.FRESH_PORT, Cure.SILENCE, Cure.DURABLE_TABLE)


class TestNonceTable:
    def test_a_duplicate_is_answered_again_and_not_executed(self):
        kit.executes_a_nonce_once_and_answers_again(NonceTable)

    def test_it_remembers_for_as_long_as_copies_can_arrive(self):
        kit.remembers_for_as_long_as_copies_can_arrive(NonceTable)

    def test_it_forgets_at_the_horizon_and_not_before(self):
        kit.forgets_at_the_horizon(NonceTable)

    def test_when_full_it_ignores_what_is_new(self):
        kit.ignores_what_it_has_no_room_for(lambda s: NonceTable(s, capacity=2))

    def test_the_same_nonce_of_another_client_is_another_request(self):
        server = new_server(NonceTable(10.0))
        for name in (b"a", b"b"):
            offer(server, request(1, client=name), 0.0)
        assert server.executions == 2

    @settings(max_examples=200, deadline=None)
    @given(
        copies=st.lists(st.tuples(st.integers(1, 5), st.floats(0.0, 4.0)), max_size=60),
        capacity=st.integers(1, 6),
    )
    def test_it_does_as_a_list_of_all_that_ever_happened_would_say(self, copies, capacity):
        table, history, now = NonceTable(10.0, capacity), {}, 0.0
        for nonce, later in copies:
            now += later
            recent = {n for n, at in history.items() if now < at + 10.0}
            verdict = table.admit(request(nonce), now)
            if nonce in recent:
                assert verdict not in (EXECUTE, IGNORE)
            else:
                assert verdict is (EXECUTE if len(recent) < capacity else IGNORE)
            if verdict is EXECUTE:
                table.executed(request(nonce), b"ok", now)
                history[nonce] = now
            assert len(table) <= capacity


class TestIdempotence:
    def test_it_executes_every_copy_and_remembers_nothing(self):
        server = new_server(Idempotence())
        for _ in range(2):
            offer(server, request(1, b"deposit 10"), 0.0)
            offer(server, request(2, b"set 7"), 0.0)
        assert (server.application.balance, server.application.register) == (20, 7)
        assert server.memory_max == 0

    def test_a_late_copy_of_a_set_undoes_a_newer_one(self):
        server = new_server(Idempotence())
        for body in (b"set 7", b"set 8", b"set 7"):
            offer(server, request(1, body), 0.0)
        assert server.application.register == 7


class TestMonotone:
    def test_it_refuses_all_up_to_the_highest_number(self):
        kit.refuses_what_is_not_above_the_highest(Monotone)

    def test_it_remembers_for_as_long_as_copies_can_arrive(self):
        kit.remembers_for_as_long_as_copies_can_arrive(Monotone)

    def test_it_forgets_a_silent_client_at_the_horizon_and_not_before(self):
        kit.forgets_at_the_horizon(Monotone)

    def test_one_that_goes_on_does_not_keep_the_silent_in_memory(self):
        table = Monotone(10.0)
        for now, name in ((0.0, b"a"), (1.0, b"b"), (8.0, b"a")):
            table.executed(request(int(now) + 1, client=name), b"ok", now)
        table.admit(request(99, client=b"c"), 11.0)
        assert len(table) == 1

    def test_when_full_it_ignores_who_is_new(self):
        kit.ignores_what_it_has_no_room_for(lambda s: Monotone(s, capacity=2))

    def test_what_was_overtaken_is_lost(self):
        server = new_server(Monotone(10.0))
        offer(server, request(2), 0.0)
        assert offer(server, request(1), 0.1) == [Refusal(ID, 1, NOT_ABOVE)]
        assert server.executions == 1

    def test_a_client_that_goes_on_is_not_forgotten_however_late_a_copy_is(self):
        server = new_server(Monotone(10.0))
        for nonce in range(1, 20):
            offer(server, request(nonce), 5.0 * nonce)
        offer(server, request(1), 100.0)
        assert server.application.balance == 19
        assert server.memory_max == 1


class TestFreshPort:
    def test_a_port_serves_one_request(self):
        kit.serves_a_port_once(FreshPort)

    def test_a_closed_port_rests_for_the_horizon(self):
        kit.lets_a_port_rest(lambda s: FreshPort(s, ports_max=2))

    def test_without_rest_an_old_copy_meets_a_new_tenant(self):
        server = new_server(FreshPort(10.0, rest_s=0.0, ports_max=1))
        (first,) = offer(server, Open(ID, 1), 0.0)
        old = request(1, b"deposit 5", port=first.port)
        offer(server, old, 0.0)
        (second,) = offer(server, Open(ID, 2), 1.0)
        assert second.port == first.port
        offer(server, old, 2.0)
        assert offer(server, request(2, port=second.port), 3.0) == [Refusal(ID, 2, CLOSED)]
        assert server.application.balance == 10, "5 twice, and 1 not at all"

    def test_a_port_that_nobody_uses_is_closed_at_the_horizon(self):
        ports = FreshPort(10.0)
        port = ports.open(0.0)
        assert ports.is_open(port, 9.999)
        assert not ports.is_open(port, 10.0)

    def test_when_all_are_taken_an_open_is_ignored(self):
        server = new_server(FreshPort(10.0, ports_max=2))
        assert [len(offer(server, Open(ID, n), 0.0)) for n in (1, 2, 3)] == [1, 1, 0]
        assert (server.ignored, server.memory_max) == (1, 2)

    def test_lives_have_ports_of_their_own(self):
        lives = []
        for life in range(3):
            ports = FreshPort(10.0, ports_max=4)
            ports.port = life
            lives.append({ports.open(0.0) for _ in range(4)})
        assert len(set().union(*lives)) == 12

    @settings(max_examples=100, deadline=None)
    @given(
        steps=st.lists(st.tuples(st.sampled_from(["open", "use"]), st.floats(0, 4)), max_size=50)
    )
    def test_no_port_has_two_tenants_within_a_horizon(self, steps):
        ports, now, free_again, opened = FreshPort(10.0, ports_max=4), 0.0, {}, []
        for step, later in steps:
            now += later
            if step == "open":
                port = ports.open(now)
                if port is not None:
                    assert now >= free_again.get(port, 0.0)
                    opened.append(port)
                    free_again[port] = float("inf")
            elif opened:
                port = opened.pop(0)
                if ports.is_open(port, now):
                    ports.executed(request(1, port=port), b"ok", now)
                    free_again[port] = now + 10.0
                else:
                    free_again[port] = 0.0  # closed by itself, at a time that is not told
            assert len(ports) <= 4


class TestServer:
    def test_an_execution_is_stable_before_it_is_answered(self):
        kit.makes_an_execution_stable_before_it_answers(Server)

    def test_a_copy_to_another_port_is_refused(self):
        server = new_server(NonceTable(10.0))
        assert offer(server, request(1, port=3), 0.0) == [Refusal(ID, 1, CLOSED)]
        assert server.executions == 0

    def test_who_asks_for_a_port_is_told_the_one_there_is(self):
        assert offer(new_server(NonceTable(10.0)), Open(ID, 1), 0.0) == [Opened(ID, 1, 0)]

    def test_nonsense_is_counted_and_changes_nothing(self):
        server = new_server(NonceTable(10.0))
        for datagram in (b"", b"x", bytes(2000), encode(Reply(ID, 1, b""))):
            server.receive(datagram, "here", 0.0)
        assert (server.ignored, server.take_outputs()) == (4, [])

    def test_it_tells_what_it_is(self):
        server = new_server(NonceTable(10.0))
        for _ in range(2):
            offer(server, request(1), 0.0)
        assert repr(server) == ("<Server life=0 <NonceTable 1/1024> executions=1 suppressed=1>")


class TestKill:
    @pytest.mark.parametrize("strategy", ["nonce-table", "monotone"])
    def test_without_a_cure_a_copy_is_executed_again(self, strategy):
        assert kit.executed_after_a_kill(lambda s: STRATEGIES[strategy](SHORT), Cure.NONE) == 2

    @pytest.mark.parametrize("cure", CURES)
    @pytest.mark.parametrize("strategy", ["nonce-table", "monotone", "fresh-port"])
    def test_with_each_cure_it_is_executed_once(self, strategy, cure):
        assert kit.executed_after_a_kill(lambda s: STRATEGIES[strategy](SHORT), cure) == 1

    def test_idempotence_has_nothing_that_a_durable_table_could_keep(self):
        executed = kit.executed_after_a_kill(lambda s: Idempotence(), Cure.DURABLE_TABLE)
        assert executed == 4

    def test_silence_lasts_until_old_copies_are_gone_and_no_longer(self):
        kit.stays_silent_until_old_copies_are_gone(start)

    def test_the_first_life_is_not_silent(self):
        server = next_life(NonceTable, Cure.SILENCE, None, 0.0)
        assert offer(server, request(1), 0.0) == [Reply(ID, 1, b"balance 1")]

    def test_only_the_durable_table_can_answer_again(self):
        answers = {}
        for cure in Cure:
            first = next_life(NonceTable, cure, None, 0.0)
            message = request(1, port=first.suppressor.port)
            offered = first.receive(encode(message), "here", 0.0)
            assert offered is None
            second = next_life(NonceTable, cure, kit.image_of(first), 0.1)
            answers[cure] = offer(second, message, 0.2)
        assert answers == {
            Cure.NONE: [Reply(ID, 1, b"balance 2")],
            Cure.FRESH_PORT: [Refusal(ID, 1, CLOSED)],
            Cure.SILENCE: [],
            Cure.DURABLE_TABLE: [Reply(ID, 1, b"balance 1")],
        }

    def test_a_port_that_was_opened_is_durable_before_it_is_told(self):
        first = next_life(FreshPort, Cure.DURABLE_TABLE, None, 0.0)
        first.receive(encode(Open(ID, 1)), "here", 0.0)
        second = next_life(FreshPort, Cure.DURABLE_TABLE, kit.image_of(first), 0.1)
        assert offer(second, Open(ID, 2), 0.2) == [Opened(ID, 2, 2)]
        assert offer(second, request(1, port=1), 0.3) == [Reply(ID, 1, b"balance 1")]

    def test_lives_are_counted_though_nothing_was_executed_in_them(self):
        image, ports = None, []
        for _ in range(3):
            server = next_life(NonceTable, Cure.FRESH_PORT, image, 0.0)
            ports.append(server.suppressor.port)
            image = kit.image_of(server)
        assert ports == [1, 2, 3]

    def test_ages_go_on_in_the_next_life_though_its_clock_is_another(self):
        table = NonceTable(10.0)
        table.executed(request(1), b"ok", 500.0)
        heir = NonceTable(10.0)
        heir.restore(table.snapshot(506.0), 3.0)
        assert heir.admit(request(1), 6.999) is not EXECUTE
        assert heir.admit(request(1), 7.0) is EXECUTE

    @pytest.mark.parametrize(
        "image", [b"", b"\xc1", msgpack.packb([1]), msgpack.packb(["a", 2, 3])]
    )
    def test_an_image_that_is_none_is_refused(self, image):
        with pytest.raises(BadMessage, match="image cannot be read"):
            next_life(NonceTable, Cure.NONE, image, 0.0)

    def test_an_image_of_another_ledger_is_refused(self):
        with pytest.raises(BadMessage, match="a ledger is"):
            next_life(NonceTable, Cure.NONE, msgpack.packb([0, "rich", None]), 0.0)

    def test_clients_ask_for_ports_where_ports_change(self):
        asked = {(s, c): ports_for(s, c).value for s in STRATEGIES for c in Cure}
        assert {key for key, ports in asked.items() if ports == "of a request"} == {
            ("fresh-port", cure) for cure in Cure
        }
        assert {key for key, ports in asked.items() if ports == "of a life"} == {
            (name, Cure.FRESH_PORT) for name in STRATEGIES if name != "fresh-port"
        }


class TestMessages:
    @given(
        client=st.binary(min_size=1, max_size=16),
        nonce=st.integers(0, NUMBER_MAX),
        port=st.integers(0, NUMBER_MAX),
        body=st.binary(max_size=BODY_BYTES_MAX),
    )
    def test_what_is_encoded_is_decoded(self, client, nonce, port, body):
        for message in (
            Open(client, nonce),
            Opened(client, nonce, port),
            Request(client, nonce, port, body),
            Reply(client, nonce, body),
            Refusal(client, nonce, CLOSED),
        ):
            datagram = encode(message)
            assert decode(datagram) == message
            assert len(datagram) <= 1200

    @given(st.binary(max_size=200))
    def test_nonsense_is_a_bad_message_and_nothing_else(self, datagram):
        with contextlib.suppress(BadMessage):
            decode(datagram)

    @pytest.mark.parametrize(
        "fields",
        [
            [],
            5,
            [9, b"c", 1],
            [-1, b"c", 1, CLOSED],
            [0, b"c"],
            [0, b"", 1],
            [0, b"c" * 17, 1],
            [0, "c", 1],
            [0, b"c", -1],
            [0, b"c", True],
            [0, b"c", 2**63],
            [2, b"c", 1, 0, "text"],
            [2, b"c", 1, 0, bytes(1025)],
            [4, b"c", 1, "no reason"],
        ],
    )
    def test_a_wrong_field_is_refused(self, fields):
        with pytest.raises(BadMessage):
            decode(msgpack.packb(fields))


class TestLedger:
    def test_a_deposit_adds_and_a_set_replaces(self):
        ledger = Ledger()
        replies = [ledger.execute(b) for b in (b"deposit 3", b"deposit 4", b"set 5", b"set 6")]
        assert replies == [b"balance 3", b"balance 7", b"register 5", b"register 6"]
        assert ledger.execute(b"show") == b"balance 7, register 6"
        assert repr(ledger) == "<Ledger balance=7 register=6>"

    @pytest.mark.parametrize("body", [b"", b"deposit", b"deposit -1", b"set 1\n", b"steal 5"])
    def test_what_it_does_not_understand_changes_nothing(self, body):
        ledger = Ledger()
        assert ledger.execute(body).startswith(b"error: say ")
        assert ledger.snapshot() == [0, 0]
