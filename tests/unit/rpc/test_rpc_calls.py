"""Calls from end to end: what they cost, how they end, and whether they may have happened."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from rpc_kit import DELAY_S, ROUND_TRIP, SERVER, in_town, offer

from netstack.rpc import frames
from netstack.rpc.errors import (
    BadRequest,
    ConnectionLost,
    DeadlineExceeded,
    Failed,
    Forbidden,
    Interrupted,
    Overloaded,
    RpcError,
    Unavailable,
    UnknownMethod,
)
from netstack.rpc.service import STREAM_WINDOW_ITEMS
from netstack.runtime.policy import LinkPolicy


def test_a_call_costs_one_round_trip_and_two_datagrams():
    async def scenario(town):
        client = await town.caller()
        await client.call("echo", b"x")
        await asyncio.sleep(1)  # all that was to be acknowledged has been
        before, began = town.packets(), town.now
        assert await client.call("echo", b"y") == b"y"
        assert town.now - began == pytest.approx(ROUND_TRIP, abs=0.001)
        assert town.packets() == {name: count + 1 for name, count in before.items()}

    in_town(scenario)


def test_a_hundred_calls_at_once_share_their_packets():
    async def scenario(town):
        client = await town.caller()
        await client.call("echo", 0)
        began = town.now
        answers = await asyncio.gather(*(client.call("echo", i) for i in range(100)))
        assert answers == list(range(100))
        assert town.now - began == pytest.approx(ROUND_TRIP, abs=0.002)
        assert max(town.packets().values()) < 15  # the handshake's and the first call's included

    in_town(scenario)


class TestBegin:
    """Calls that are under way at once; whoever began them has no task for each."""

    def test_none_without_a_connection_that_is_ready(self):
        async def scenario(town):
            client = await town.caller()
            assert client.begin("echo", b"x", 1.0) is None
            await client.call("echo", b"x")
            assert await client.begin("echo", b"y", 1.0) == b"y"

        in_town(scenario)

    def test_several_leave_in_one_turn_and_their_errors_need_no_witness(self):
        async def scenario(town):
            client = await town.caller()
            await client.call("echo", 0)
            began = town.now
            first, failing, late = (
                client.begin("echo", [1, (2, b"3")], 1.0),
                client.begin("refuse", None, 1.0),
                client.begin("slow", 5, 0.5),
            )
            assert client.busy
            assert await first == [1, [2, b"3"]]
            assert town.now - began == pytest.approx(ROUND_TRIP, abs=0.002)
            await asyncio.sleep(1)
            with pytest.raises(DeadlineExceeded):
                late.result()
            assert failing.done()
            assert not client.busy
            assert town.server.service.seen["cancelled"] == 1

        in_town(scenario)

    def test_one_that_is_cancelled_is_cancelled_at_the_service_too(self):
        async def scenario(town):
            client = await town.caller()
            await client.call("echo", 0)
            call = client.begin("slow", 5, 9.0)
            await asyncio.sleep(ROUND_TRIP)
            call.cancel()
            await asyncio.sleep(ROUND_TRIP)
            assert town.server.service.seen == {"ran": 1, "cancelled": 1}
            assert not client.busy

        in_town(scenario)


def test_callers_that_begin_together_share_one_dial():
    async def scenario(town):
        client = await town.caller()
        assert await asyncio.gather(*(client.call("echo", i) for i in range(20))) == list(range(20))
        assert len(town.server.connections) == 1

    in_town(scenario)


def test_both_sides_call_on_the_same_connection():
    async def scenario(town):
        node = await town.node("caller", "client")
        node.service.add("back", lambda body, call: call.reply(body + 1))
        await node.client(SERVER, "echo").call("echo")
        (connection,) = town.server.connections
        assert await connection.call("back", 6, 1.0) == 7
        assert len(node.host._peers) == 1

    in_town(scenario)


def test_nobody_is_called_before_the_lane_is_open():
    async def scenario(town):
        refused = []

        def call_at_once(connection):
            with pytest.raises(Unavailable, match="caller has not opened its lane"):
                connection.call("back", 1, 1.0).send(None)
            refused.append(connection)

        town.server.on_connection.append(call_at_once)
        await (await town.caller()).call("echo")
        assert len(refused) == 1

    in_town(scenario)


def test_the_service_knows_a_caller_by_its_certificate():
    async def scenario(town):
        return await (await town.caller("bob")).call("whoami")

    assert in_town(scenario) == "bob"


def test_one_way_messages_arrive_in_order_and_those_for_nobody_are_counted():
    async def scenario(town):
        connection = await (await town.caller()).connect(5.0)
        for i in range(5):
            assert connection.notify(frames.notify("news", i))
        for nobody in ("nothing", "rumour", "echo"):
            connection.notify(frames.notify(nobody, 9))
        await asyncio.sleep(1)
        assert town.server.service.news == list(range(5))
        (theirs,) = town.server.connections
        assert theirs.counters["notify_dropped"] == 3

    in_town(scenario)


def test_the_deadline_ends_a_call_that_may_have_happened():
    async def scenario(town):
        client = await town.caller()
        await client.call("echo")
        began = town.now
        with pytest.raises(DeadlineExceeded) as caught:
            await client.call("slow", 10.0, timeout_s=0.5)
        assert town.now - began == pytest.approx(0.5, abs=0.05)
        assert not caught.value.definite
        await asyncio.sleep(1)
        assert town.server.service.seen == {"ran": 1, "cancelled": 1}
        assert town.server.service.open_calls == 0

    in_town(scenario)


def test_both_sides_keep_the_deadline_though_they_hear_no_more_of_each_other():
    async def scenario(town):
        client = await town.caller()
        await client.call("echo")
        began = town.now
        task = asyncio.create_task(client.call("slow", 10.0, timeout_s=0.5))
        await asyncio.sleep(2 * DELAY_S)
        town.world.network.partition([["caller"], ["server"]])
        await asyncio.sleep(0.5)
        assert town.server.service.seen == {"ran": 1, "cancelled": 1}
        assert town.server.service.open_calls == 0
        with pytest.raises(DeadlineExceeded):
            await task
        assert town.now - began == pytest.approx(0.5, abs=0.05)

    in_town(scenario)


def test_a_caller_that_gives_up_stops_the_work():
    async def scenario(town):
        client = await town.caller()
        task = asyncio.create_task(client.call("slow", 10.0, timeout_s=60))
        await asyncio.sleep(1)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.1)
        assert town.server.service.seen["cancelled"] == 1
        assert town.server.service.open_calls == 0

    in_town(scenario)


@pytest.mark.parametrize(
    ("method", "body", "error", "definite"),
    [
        ("nothing", None, UnknownMethod, True),
        ("secret", None, Forbidden, True),
        ("greet", {"name": "you"}, BadRequest, True),
        ("greet", {"name": "you", "times": "2"}, BadRequest, True),
        ("refuse", 7, Failed, True),
        ("break", None, Interrupted, False),
    ],
)
def test_an_error_arrives_as_what_it_is(method, body, error, definite):
    async def scenario(town):
        client = await town.caller()
        with pytest.raises(RpcError) as caught:
            await client.call(method, body)
        assert type(caught.value) is error
        assert caught.value.definite is definite
        assert await client.call("echo", 1) == 1  # and nothing else came to harm
        return caught.value

    found = in_town(scenario)
    if method == "greet":
        assert "times" in found.message
    if method == "refuse":
        assert (found.reason, found.details) == ("no-such-thing", {"asked": 7})


def test_a_message_of_the_right_form_is_taken():
    async def scenario(town):
        client = await town.caller()
        return await client.call("greet", {"name": "you", "times": 2})

    assert in_town(scenario) == "hello youhello you"


def test_too_many_open_calls_are_refused_and_did_not_happen():
    async def scenario(town):
        client = await town.caller()
        calls = [asyncio.create_task(client.call("slow", 1.0)) for _ in range(5)]
        await asyncio.sleep(0.5)
        with pytest.raises(Overloaded) as caught:
            await client.call("slow", 1.0)
        assert caught.value.definite
        assert await asyncio.gather(*calls) == [1.0] * 5
        assert await client.call("slow", 0.1) == 0.1
        assert town.server.service.seen["ran"] == 6

    in_town(scenario, _calls_max=5)


def test_a_service_that_drains_finishes_what_it_has_and_takes_nothing_new():
    async def scenario(town):
        client = await town.caller()
        running = asyncio.create_task(client.call("slow", 1.0))
        await asyncio.sleep(0.5)
        town.server.service.add("admin.echo", lambda body, call: call.reply(body))
        town.server.service.draining = True
        with pytest.raises(Unavailable) as caught:
            await client.call("slow", 0.1, timeout_s=0.3)
        assert caught.value.definite
        assert await client.call("admin.echo", 1) == 1  # whoever asked for it may watch
        assert await running == 1.0
        assert town.server.service.seen["ran"] == 1

    in_town(scenario)


class TestStreams:
    def test_items_in_order_to_the_end(self):
        async def scenario(town):
            client = await town.caller()
            return [item async for item in client.stream("count", 1_000)]

        assert in_town(scenario) == list(range(1_000))

    def test_a_slow_consumer_holds_the_producer_up(self):
        async def scenario(town):
            client = await town.caller()
            stream = client.stream("count", 10_000)
            assert await anext(stream) == 0
            await asyncio.sleep(5)
            ahead = town.server.service.seen["items"]
            assert ahead <= STREAM_WINDOW_ITEMS + 1
            for _ in range(STREAM_WINDOW_ITEMS):
                await anext(stream)
            await asyncio.sleep(5)
            assert ahead < town.server.service.seen["items"] <= 2 * STREAM_WINDOW_ITEMS + 2
            await stream.aclose()

        in_town(scenario)

    def test_a_consumer_that_leaves_ends_the_producer(self):
        async def scenario(town):
            client = await town.caller()
            stream = client.stream("count", 1_000_000)
            async for item in stream:
                if item == 10:
                    break
            await stream.aclose()
            await asyncio.sleep(0.1)
            assert town.server.service.seen["cancelled"] == 1
            assert town.server.service.open_calls == 0

        in_town(scenario)

    def test_an_item_that_does_not_come_in_time_ends_both_sides(self):
        def offer_dripping(service):
            offer(service)

            async def drip(body, call):
                try:
                    yield 1
                    await asyncio.sleep(body)
                finally:
                    service.seen["cancelled"] += 1

            service.add("drip", drip)

        async def scenario(town):
            client = await town.caller()
            stream = client.stream("drip", 60.0, timeout_s=1.0)
            assert await anext(stream) == 1
            began = town.now
            with pytest.raises(DeadlineExceeded):
                await anext(stream)
            assert town.now - began == pytest.approx(1.0, abs=0.1)
            await asyncio.sleep(1)
            assert town.server.service.seen["cancelled"] == 1
            assert town.server.service.open_calls == 0

        in_town(scenario, offer_dripping)

    def test_an_error_comes_behind_the_items_before_it(self):
        def offer_failing(service):
            async def fail(body, call):
                yield 1
                yield 2
                raise Failed("enough", "no more of these")

            service.add("fail", fail)

        async def scenario(town):
            stream = (await town.caller()).stream("fail")
            got = [await anext(stream), await anext(stream)]
            with pytest.raises(Failed, match="no more"):
                await anext(stream)
            assert got == [1, 2]
            assert town.server.service.open_calls == 0

        in_town(scenario, offer_failing)

    @pytest.mark.parametrize(
        ("method", "error"), [("nothing", UnknownMethod), ("secret", Forbidden)]
    )
    def test_one_that_is_refused_ends_at_once(self, method, error):
        async def scenario(town):
            with pytest.raises(error):
                await anext((await town.caller()).stream(method))

        in_town(scenario)

    def test_what_is_no_stream_says_so_and_the_other_way_round(self):
        async def scenario(town):
            client = await town.caller()
            began = town.now
            with pytest.raises(RpcError):
                await anext(client.stream("echo", 1, timeout_s=10.0))
            with pytest.raises(RpcError):
                await client.call("count", 3, timeout_s=10.0)
            assert town.now - began < 1

        in_town(scenario)

    def test_a_request_that_is_too_large_is_refused_before_it_is_sent(self):
        async def scenario(town):
            client = await town.caller()
            with pytest.raises(BadRequest):
                await anext(client.stream("count", bytes(9_000_000), timeout_s=5.0))

        in_town(scenario)

    def test_a_lost_connection_ends_a_stream_with_an_error_not_an_end(self):
        async def scenario(town):
            client = await town.caller()
            stream = client.stream("count", 1_000_000)
            await anext(stream)
            town.world.crash("server")
            town.world.restart("server")
            with pytest.raises(ConnectionLost):
                [item async for item in stream]

        in_town(scenario)


class TestRetries:
    """The server is killed in the middle of a call, and comes back."""

    @staticmethod
    async def _killed_in_the_middle(town, **how):
        client = await town.caller()
        await client.call("echo")
        task = asyncio.create_task(client.call("slow", 0.5, timeout_s=20, **how))
        await asyncio.sleep(0.2)
        town.world.crash("server")
        await asyncio.sleep(0.2)
        town.world.restart("server")
        return await task

    def test_a_plain_call_is_not_repeated(self):
        async def scenario(town):
            with pytest.raises(ConnectionLost) as caught:
                await self._killed_in_the_middle(town)
            assert not caught.value.definite
            assert town.server.service.seen["ran"] == 0

        in_town(scenario)

    def test_an_idempotent_one_is(self):
        async def scenario(town):
            assert await self._killed_in_the_middle(town, idempotent=True) == 0.5
            assert town.server.service.seen["ran"] == 1

        in_town(scenario)

    def test_once_is_refused_by_another_life_of_the_service(self):
        """The table of outcomes died with the process: nobody knows whether the first try ran."""

        async def scenario(town):
            with pytest.raises(Interrupted, match="restarted"):
                await self._killed_in_the_middle(town, once=True)
            assert town.server.service.seen["ran"] == 0

        in_town(scenario)

    def test_once_runs_once_when_only_the_connection_is_lost(self):
        async def scenario(town):
            client = await town.caller()
            await client.call("echo")
            task = asyncio.create_task(client.call("slow", 1.0, timeout_s=20, once=True))
            await asyncio.sleep(0.2)
            town.cut_off("caller")
            assert await task == 1.0
            assert town.server.service.seen == {"ran": 1}

        in_town(scenario)

    def test_once_runs_once_however_often_the_connection_is_lost(self):
        async def scenario(town):
            client = await town.caller()
            await client.call("echo")
            calls = [
                asyncio.create_task(client.call("slow", 2.0 + i / 10, timeout_s=20, once=True))
                for i in range(10)
            ]
            for _ in range(4):
                await asyncio.sleep(0.4)
                assert town.server.connections
                town.cut_off("caller")
            assert await asyncio.gather(*calls) == [2.0 + i / 10 for i in range(10)]
            assert town.server.service.seen == {"ran": 10}
            assert town.server.service.open_calls == 0

        in_town(scenario)

    def test_a_copy_of_a_running_call_waits_for_it_and_gets_the_same_answer(self):
        async def scenario(town):
            stranger = await town.stranger()
            life = town.server.service.incarnation
            for id_, retry_of in ((1, None), (2, life), (3, life)):
                key = [b"somebody", 7, 7, retry_of]
                stranger.say((frames.REQUEST, id_, "slow", 1.0, 5_000, key))
            await asyncio.sleep(0.5)
            assert not stranger.answers(1)
            await asyncio.sleep(1)
            assert [stranger.answers(i) for i in (1, 2, 3)] == [
                [[frames.REPLY, i, 1.0]] for i in (1, 2, 3)
            ]
            stranger.say((frames.REQUEST, 4, "slow", 1.0, 5_000, [b"somebody", 7, 7, life]))
            await asyncio.sleep(0.1)
            assert stranger.answers(4) == [[frames.REPLY, 4, 1.0]]  # remembered
            assert town.server.service.seen == {"ran": 1}
            assert town.server.service.open_calls == 0

        in_town(scenario)

    def test_an_error_of_a_call_is_remembered_as_its_outcome(self):
        async def scenario(town):
            stranger = await town.stranger()
            life = town.server.service.incarnation
            for id_, retry_of in ((1, None), (2, life)):
                key = [b"somebody", 1, 1, retry_of]
                stranger.say((frames.REQUEST, id_, "refuse", 5, 5_000, key))
                await asyncio.sleep(0.1)
            (first,), (second,) = stranger.answers(1), stranger.answers(2)
            assert first[2] == second[2]
            assert first[2][0] == "failed/no-such-thing"

        in_town(scenario)

    def test_what_is_remembered_of_a_caller_does_not_grow(self):
        async def scenario(town):
            client = await town.caller()
            for i in range(300):  # more than are remembered of one caller
                assert await client.call("slow", 0.0, once=True) == 0.0, i
            assert repr(town.server.service.once) == "<OnceTable clients=1 outcomes=1>"

        in_town(scenario)

    def test_a_lost_connection_stops_the_work_of_a_plain_call_and_not_of_a_keyed_one(self):
        async def scenario(town):
            client = await town.caller()
            await client.call("echo")
            for once in (False, True):
                task = asyncio.create_task(client.call("slow", 0.5, once=once))
                await asyncio.sleep(0.2)
                town.cut_off("caller")
                with contextlib.suppress(ConnectionLost):
                    await task
            assert town.server.service.seen == {"ran": 2, "cancelled": 1}

        in_town(scenario)

    @pytest.mark.parametrize("how", ["idempotent", "once"])
    @pytest.mark.parametrize("end", ["nobody answers", "refused"])
    def test_a_retry_that_did_not_happen_says_nothing_about_the_first_try(self, how, end):
        async def scenario(town):
            client = await town.caller()
            await client.call("echo")
            task = asyncio.create_task(client.call("slow", 10.0, timeout_s=3.0, **{how: True}))
            await asyncio.sleep(0.2)
            town.server.service.draining = end == "refused"
            town.cut_off("caller")
            await asyncio.sleep(1.5 * DELAY_S)
            if end == "nobody answers":
                town.world.crash("server")
            with pytest.raises(ConnectionLost) as caught:
                await task
            assert isinstance(caught.value.__cause__, Unavailable)

        in_town(scenario)

    def test_a_call_that_never_left_is_made_when_somebody_listens(self):
        async def scenario(town):
            town.world.crash("server")
            client = await town.caller()
            task = asyncio.create_task(client.call("slow", 0.1, timeout_s=20))
            await asyncio.sleep(3)
            town.world.restart("server")
            assert await task == 0.1
            assert town.server.service.seen["ran"] == 1

        in_town(scenario)

    def test_nobody_listening_is_a_definite_failure_in_time(self):
        async def scenario(town):
            town.world.crash("server")
            client = await town.caller()
            began = town.now
            with pytest.raises(Unavailable) as caught:
                await client.call("slow", 0.1, timeout_s=1.0)
            assert caught.value.definite
            assert town.now - began == pytest.approx(1.0, abs=0.05)

        in_town(scenario)


def test_calls_survive_a_line_that_loses_doubles_and_reorders():
    async def scenario(town):
        town.world.network.base_policy = LinkPolicy(
            delay_s=DELAY_S, jitter_s=0.005, loss=0.2, duplicate=0.2, reorder=0.2
        )
        client = await town.caller()
        answers = await asyncio.gather(
            *(client.call("slow", i / 1000, timeout_s=60) for i in range(50))
        )
        assert answers == [i / 1000 for i in range(50)]
        assert town.server.service.seen["ran"] == 50

    in_town(scenario)
