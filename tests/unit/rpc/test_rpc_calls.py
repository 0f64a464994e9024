"""Calls from end to end: what they cost, how they end, and whether they may have happened."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from rpc_kit import DELAY_S, SERVER, Town

from netstack.rpc.connection import CONGESTED_BYTES
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
from netstack.rpc.schema import message
from netstack.rpc.service import STREAM_WINDOW_ITEMS
from netstack.runtime.policy import LinkPolicy

ROUND_TRIP = 2 * DELAY_S


@message
class Greeting:
    name: str
    times: int


def offer(service):
    """Something of each kind."""
    seen = service.seen = {"ran": 0, "cancelled": 0, "items": 0}

    def echo(body, call):
        call.reply(body)

    async def slow(body, call):
        seen["ran"] += 1
        try:
            await asyncio.sleep(body)
        except asyncio.CancelledError:
            seen["cancelled"] += 1
            raise
        return body

    async def count(body, call):
        try:
            for i in range(body):
                seen["items"] += 1
                yield i
        finally:
            seen["cancelled"] += 1

    async def refuse(body, call):
        raise Failed("no-such-thing", "there is no such thing", {"asked": body})

    async def break_down(body, call):
        raise ZeroDivisionError("a bug")

    async def greet(body, call):
        return f"hello {body.name}" * body.times

    service.add("echo", echo)
    service.add("slow", slow)
    service.add("count", count)
    service.add("refuse", refuse)
    service.add("break", break_down)
    service.add("greet", greet, request=Greeting)
    service.add("secret", echo, allow={"raft"})


def in_town(scenario, **limits):
    return Town(offer, **limits).run(scenario)


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
        assert town.server.service.seen == {"ran": 1, "cancelled": 1, "items": 0}
        assert town.server.service.open_calls == 0

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
        town.server.service.draining = True
        with pytest.raises(Unavailable):
            await client.call("slow", 0.1)
        assert await running == 1.0

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
            for connection in list(town.server.connections):
                connection._peer._host._forget(connection._peer)  # as after a reset
            assert await task == 1.0
            assert town.server.service.seen["ran"] == 1

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


def test_garbage_on_the_lane_ends_that_connection_and_no_other():
    async def scenario(town):
        good = await town.caller("good")
        bad = await town.node("bad", "client")
        peer = await bad.host.connect(SERVER, service="echo")
        stream = peer.open_stream()
        stream.push(b"\x93\x01\x02\xc1 this is no message")
        await asyncio.sleep(0.5)
        assert peer.closed
        assert await good.call("echo", b"still here") == b"still here"

    in_town(scenario)


def test_a_full_lane_drops_one_way_messages_and_says_so():
    async def scenario(town):
        client = await town.caller()
        connection = await client.connect(5.0)
        town.world.network.partition([["server"], ["caller"]])
        from netstack.rpc import frames

        message = frames.notify("news", bytes(100_000))
        taken = [connection.notify(message) for _ in range(100)]
        assert taken[0]
        assert not taken[-1]
        assert connection.counters["notify_dropped"] == taken.count(False)

    in_town(scenario)


def test_a_caller_waits_while_the_lane_is_full():
    async def scenario(town):
        client = await town.caller()
        connection = await client.connect(5.0)
        town.world.network.partition([["server"], ["caller"]])
        calls = [
            asyncio.create_task(client.call("echo", bytes(500_000), timeout_s=30))
            for _ in range(30)
        ]
        await asyncio.sleep(1)
        assert connection._lane.buffered < CONGESTED_BYTES + 600_000  # 15 MB were asked for
        town.world.network.heal()
        town.world.network.base_policy = LinkPolicy(delay_s=DELAY_S)
        await asyncio.gather(*calls)

    in_town(scenario)


def test_who_waits_for_room_on_a_lane_that_ends_was_never_sent():
    async def scenario(town):
        client = await town.caller()
        connection = await client.connect(5.0)
        town.world.network.partition([["server"], ["caller"]])
        calls = [
            asyncio.create_task(connection.call("echo", bytes(500_000), 60.0)) for _ in range(30)
        ]
        await asyncio.sleep(1)
        sent = len(connection._pending)
        connection.abort("for a reason of its own")
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(end) for end in ends} == {ConnectionLost, Unavailable}
        assert sum(type(end) is ConnectionLost for end in ends) == sent

    in_town(scenario)


def test_a_request_that_is_too_large_is_refused_before_it_is_sent():
    async def scenario(town):
        client = await town.caller()
        with pytest.raises(BadRequest, match=r"echo: .* bytes are too many"):
            await client.call("echo", bytes(9_000_000))
        assert await client.call("echo", bytes(1_000_000), timeout_s=30) == bytes(1_000_000)

    in_town(scenario)


def test_an_answer_that_is_too_large_is_an_error_and_nothing_breaks():
    async def scenario(town):
        client = await town.caller()
        with pytest.raises(Interrupted, match="too many"):
            await client.call("greet", {"name": "x" * 5_000, "times": 2_000})
        assert await client.call("echo", 1) == 1

    in_town(scenario)


def test_a_peer_that_asks_and_does_not_read_is_cut_off():
    async def scenario(town):
        client = await town.caller()
        connection = await client.connect(5.0)
        town.world.network.cut("server", "caller")  # its questions arrive, the answers do not
        from netstack.rpc import frames

        for i in range(40):
            connection.send((frames.REQUEST, 1000 + i, "echo", bytes(1_000_000), 60_000, None))
            await asyncio.sleep(0.2)
            if not town.server.connections:
                return
        held = [c._lane.buffered for c in town.server.connections]
        assert sum(held) <= 16 * 1024 * 1024

    in_town(scenario)


def test_a_bug_in_a_handler_is_reported():
    async def scenario(town):
        client = await town.caller()
        with pytest.raises(Interrupted):
            await client.call("break")
        await asyncio.sleep(0.2)

    town = Town(offer)
    town.run(scenario)
    assert '"kind":"rpc.handler_error"' in town.world.log
    assert "a bug" in town.world.log
