"""Handlers with bugs: whom it may cost what."""

from __future__ import annotations

import asyncio

import pytest
from rpc_kit import Town, offer

from netstack.rpc import frames
from netstack.rpc.errors import Failed, Interrupted


def offer_bugs(service):
    """Handlers that a hurried person could have written."""
    offer(service)

    def raises_at_once(body, call):
        raise KeyError("a bug")

    async def raises_in_the_middle(body, call):
        await asyncio.sleep(0.1)
        raise KeyError("a bug")

    async def raises_behind_an_item(body, call):
        yield 1
        raise KeyError("a bug")

    async def yields_a_set(body, call):
        yield {1, 2}

    async def yields_more_than_a_message(body, call):
        yield bytes(frames.MESSAGE_BYTES_MAX)
        yield 1

    async def returns_a_set(body, call):
        return {1, 2}

    async def returns_too_large_a_number(body, call):
        return 2**70

    def replies_with_a_set(body, call):
        call.reply({1, 2})

    async def attaches_a_set(body, call):
        raise Failed("reason", "with details", {1, 2})

    async def says_what_is_no_text(body, call):
        raise Failed("reason", "\udc80")

    async def was_cancelled_inside(body, call):
        raise asyncio.CancelledError

    def reads_what_was_cancelled(body, call):
        raise asyncio.CancelledError

    async def gives_up_on_its_own(body, call):
        async with asyncio.timeout(0.1):
            await asyncio.sleep(1)

    def bad_news(body, connection):
        raise (KeyError, asyncio.CancelledError)[body]

    for handler in list(locals().values()):
        if callable(handler):
            service.add(handler.__name__, handler, notify=handler is bad_news)


class TestHandlersWithBugs:
    @pytest.mark.parametrize(
        "method",
        [
            "raises_at_once",
            "raises_in_the_middle",
            "returns_a_set",
            "returns_too_large_a_number",
            "attaches_a_set",
            "replies_with_a_set",
            "says_what_is_no_text",
            "was_cancelled_inside",
            "reads_what_was_cancelled",
            "gives_up_on_its_own",
        ],
    )
    def test_the_caller_learns_that_it_does_not_know_and_the_service_goes_on(self, method):
        async def scenario(town):
            client = await town.caller()
            for once in (False, True):
                with pytest.raises(Interrupted):
                    await client.call(method, timeout_s=2.0, once=once)
            assert await client.call("echo", 1) == 1
            assert town.server.service.open_calls == 0
            (theirs,) = town.server.connections
            assert theirs.counters["handler_errors"] == 2

        town = Town(offer_bugs)
        town.run(scenario)
        assert town.world.log.count('"kind":"rpc.handler_error"') == 2

    @pytest.mark.parametrize(
        "method", ["raises_behind_an_item", "yields_a_set", "yields_more_than_a_message"]
    )
    def test_a_stream_ends_in_an_error(self, method):
        async def scenario(town):
            client = await town.caller()
            with pytest.raises(Interrupted):
                [item async for item in client.stream(method, timeout_s=2.0)]
            assert await client.call("echo", 1) == 1
            assert town.server.service.open_calls == 0

        town = Town(offer_bugs)
        town.run(scenario)
        assert '"kind":"rpc.handler_error"' in town.world.log

    def test_a_one_way_message_harms_nobody(self):
        async def scenario(town):
            client = await town.caller()
            connection = await client.connect(5.0)
            for body in (0, 1):
                connection.notify(frames.notify("bad_news", body))
            connection.notify(frames.notify("news", 2))
            assert await client.call("echo", 1) == 1
            assert town.server.service.news == [2]

        town = Town(offer_bugs)
        town.run(scenario)
        assert '"kind":"rpc.handler_error"' in town.world.log
