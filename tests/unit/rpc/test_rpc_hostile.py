"""Peers that talk nonsense, do not read or ask too much: what it may cost."""

from __future__ import annotations

import asyncio
import contextlib

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rpc_kit import DELAY_S, in_town, offer

from netstack.rpc import frames
from netstack.rpc.connection import CONGESTED_BYTES
from netstack.rpc.errors import (
    BadRequest,
    ConnectionLost,
    Interrupted,
    Unavailable,
)
from netstack.rpc.service import STREAM_WINDOW_ITEMS
from netstack.runtime.policy import LinkPolicy
from netstack.transport.errors import ConnectionClosed

MEGABYTE = 1_000_000


def _nested(depth):
    return b"\x91" * (depth - 1) + b"\x90"


NONSENSE = {
    "no msgpack": b"\x93\x01\x02\xc1 this is no message",
    "a number": msgpack.packb(7),
    "no such kind": msgpack.packb([99, 1]),
    "too short": msgpack.packb([frames.REPLY, 1]),
    "request id": msgpack.packb([frames.REQUEST, "1", "echo", None, 1000, None]),
    "time limit": msgpack.packb([frames.REQUEST, 1, "echo", None, None, None]),
    "method": msgpack.packb([frames.REQUEST, 1, [], None, 1000, None]),
    "map with a list for a key": b"\x81\x90\x01",
    "id in use": 2 * msgpack.packb([frames.REQUEST, 1, "slow", 1.0, 1000, None]),
    "map": msgpack.packb({0: frames.CANCEL, "x": 1}),
    "bytes": msgpack.packb(bytes([frames.HELLO, 0])),
    "extension": msgpack.packb(msgpack.ExtType(frames.HELLO, b"x")),
    "reply to a list": msgpack.packb([frames.REPLY, [], 0]),
    "item for a map": msgpack.packb([frames.ITEM, {}, 0]),
    "cancel of a list": msgpack.packb([frames.CANCEL, []]),
    "notify to a list": msgpack.packb([frames.NOTIFY, [], 0]),
    "error for a list": msgpack.packb([frames.ERROR, [], ["a", "b", None]]),
    "deep": _nested(1000),
    "deep request id": b"\x96\x00" + _nested(1000) + b"\xa4echo\xc0\x01\xc0",
}


class TestNonsense:
    @pytest.mark.parametrize("payload", NONSENSE.values(), ids=NONSENSE)
    def test_ends_that_connection_and_no_other_and_is_counted(self, payload):
        async def scenario(town):
            good = await town.caller("good")
            connection = await good.connect(5.0)
            stranger = await town.stranger()
            (theirs,) = (c for c in town.server.connections if c.peer_name == "stranger")
            stranger.say(payload)
            await asyncio.sleep(0.5)
            assert stranger.peer.closed
            assert theirs.counters["protocol_errors"] == 1
            assert await good.call("echo", b"still here") == b"still here"
            assert await good.connect(5.0) is connection
            await asyncio.sleep(2)
            assert town.server.service.open_calls == 0

        in_town(scenario)

    @pytest.mark.parametrize("key", [7, [], [[], 1, 1, None], [b"c", "x", 1, None], [b"c", 1]])
    def test_a_request_key_that_is_none_is_refused(self, key):
        async def scenario(town):
            stranger = await town.stranger()
            stranger.say((frames.REQUEST, 1, "slow", 0.0, 1000, key))
            await asyncio.sleep(0.5)
            ((kind, _, fields),) = stranger.answers(1)
            assert kind == frames.ERROR
            assert fields[0] == "bad-request"
            assert town.server.service.seen["ran"] == 0
            assert town.server.service.open_calls == 0

        in_town(scenario)

    def test_a_stream_has_no_outcome_to_remember(self):
        async def scenario(town):
            stranger = await town.stranger()
            stranger.say((frames.REQUEST, 1, "count", 1, 1000, [b"c", 1, 1, None]))
            await asyncio.sleep(0.5)
            ((kind, _, fields),) = stranger.answers(1)
            assert (kind, fields[0]) == (frames.ERROR, "bad-request")
            assert repr(town.server.service.once) == "<OnceTable clients=0 outcomes=0>"

        in_town(scenario)

    def test_what_is_too_deep_to_be_sent_back_is_not(self):
        def offer_mirror(service):
            offer(service)

            async def mirror(body, call):
                return body

            service.add("mirror", mirror)

        async def scenario(town):
            stranger = await town.stranger()
            stranger.say(b"\x96\x00\x01\xa6mirror" + _nested(1000) + b"\xcd\x03\xe8\xc0")
            stranger.say(b"\x93\x02\x01" + _nested(1000))  # an ERROR, for nobody
            stranger.say((frames.REQUEST, 2, "echo", "x", 1000, None))
            await asyncio.sleep(0.5)
            ((kind, _, fields),) = stranger.answers(1)
            assert (kind, fields[0]) == (frames.ERROR, "interrupted")
            assert stranger.answers(2) == [[frames.REPLY, 2, "x"]]

        in_town(scenario, offer_mirror)

    @pytest.mark.parametrize("kind", [frames.ITEM, frames.REPLY, frames.ERROR])
    def test_a_stream_brings_no_more_than_there_was_room_for(self, kind):
        async def scenario(town):
            stranger = await town.stranger()
            (theirs,) = town.server.connections
            stream = theirs.stream("endless", None, 5.0)
            stranger.say((frames.ITEM, 1, "first"))
            assert await anext(stream) == "first"
            for _ in range(STREAM_WINDOW_ITEMS + 10):
                stranger.say((kind, 1, None))
            await asyncio.sleep(0.5)
            assert theirs.counters["protocol_errors"] == 1
            assert stranger.peer.closed

        in_town(scenario)

    def test_a_message_over_the_limit_is_not_assembled(self):
        async def scenario(town):
            stranger = await town.stranger()
            head = b"\x96\x00\x01\xa4echo\xc6" + (2**31).to_bytes(4, "big")
            await stranger.lane.write(head + bytes(frames.MESSAGE_BYTES_MAX + 1))
            await asyncio.sleep(5)
            assert stranger.peer.closed

        in_town(scenario)

    @pytest.mark.parametrize("lane", ["lane", "bulk"])
    def test_the_end_of_a_lane_is_the_end_of_the_connection(self, lane):
        async def scenario(town):
            stranger = await town.stranger()
            getattr(stranger, lane).push(b"", fin=True)
            await asyncio.sleep(0.5)
            assert stranger.peer.closed
            assert not town.server.connections

        in_town(scenario)

    def test_a_lane_that_is_given_up_is_the_end_of_the_connection(self):
        async def scenario(town):
            good = await town.caller("good")
            stranger = await town.stranger()
            stranger.say((frames.REQUEST, 1, "slow", 0.2, 5000, None))
            await asyncio.sleep(0.1)
            stranger.lane.reset(3)
            await asyncio.sleep(0.05)
            assert stranger.peer.closed
            await asyncio.sleep(1)
            assert await good.call("echo", 1) == 1

        in_town(scenario)

    def test_a_lane_that_takes_no_more_is_the_end_of_the_connection(self):
        """A packet that brings a request may end what the answer was to leave by."""

        def gone(data, fin=False):
            raise ConnectionClosed("gone")

        async def scenario(town):
            good = await town.caller("good")
            await good.call("echo")
            stranger = await town.stranger()
            (theirs,) = (c for c in town.server.connections if c.peer_name == "stranger")
            theirs._lane.push = gone
            stranger.say((frames.REQUEST, 1, "nothing", None, 1000, None))
            await asyncio.sleep(0.5)
            assert "gone" in str(theirs.closed)
            assert stranger.peer.closed
            assert await good.call("echo", 1) == 1

        in_town(scenario)

    def test_a_third_stream_is_refused_and_nothing_else_happens(self):
        async def scenario(town):
            stranger = await town.stranger()
            stranger.peer.open_stream().push(bytes(1000))
            stranger.say((frames.REQUEST, 1, "echo", "x", 1000, None))
            await asyncio.sleep(0.5)
            assert stranger.answers(1) == [[frames.REPLY, 1, "x"]]
            assert not stranger.peer.closed

        in_town(scenario)

    def test_nothing_is_run_for_a_connection_that_was_ended(self):
        async def scenario(town):
            stranger = await town.stranger()
            stranger.say(b"\xc1")
            stranger.say((frames.REQUEST, 1, "count", 10_000, 2**31, None), stranger.bulk)
            stranger.say((frames.REQUEST, 2, "slow", 0.1, 1000, None), stranger.bulk)
            await asyncio.sleep(5)
            assert stranger.peer.closed
            assert town.server.service.open_calls == 0
            assert not town.server.service.seen

        in_town(scenario)


_ID = st.integers(1, 3)
_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.text(max_size=3) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=6,
)
_METHOD = st.sampled_from(["echo", "slow", "count", "refuse", "break", "greet", "news", "none"])
_KEY = st.none() | st.tuples(st.just(b"c"), _ID, _ID, st.none() | st.just(b"x")) | _VALUE
_PLAUSIBLE = st.one_of(
    st.tuples(st.just(frames.REQUEST), _ID, _METHOD, _VALUE, st.integers(-1, 2000), _KEY),
    st.tuples(st.sampled_from((frames.REPLY, frames.ERROR, frames.ITEM)), _ID, _VALUE),
    st.tuples(st.just(frames.CREDIT), _ID, _VALUE),
    st.tuples(st.sampled_from((frames.CANCEL, frames.END)), _ID),
    st.tuples(st.just(frames.NOTIFY), _METHOD, _VALUE),
    st.tuples(st.just(frames.HELLO), _VALUE),
)
_WILD = st.integers(0, 8).flatmap(
    lambda kind: st.tuples(st.just(kind), *[_VALUE] * (frames.FORMS[kind][0] - 1))
)


def _survives(messages):
    """Whatever a member says, in whatever pieces: others are served, and nothing stays open."""

    async def scenario(town):
        good = await town.caller("good")
        stranger = await town.stranger()
        for message in messages:
            with contextlib.suppress(Exception):  # it may have been cut off
                stranger.say(message)
            await asyncio.sleep(0.01)
        await asyncio.sleep(3)
        assert await good.call("echo", 1) == 1
        await stranger.peer.close()
        await asyncio.sleep(3)
        assert town.server.service.open_calls == 0

    in_town(scenario)


@settings(deadline=None, database=None, max_examples=60)
@given(st.lists(_PLAUSIBLE, max_size=12))
def test_messages_in_any_order_and_with_any_body_harm_nobody(messages):
    _survives(messages)


@settings(deadline=None, database=None, max_examples=60)
@given(st.lists(_WILD, min_size=5, max_size=12))
def test_messages_with_any_fields_harm_nobody(messages):
    _survives(messages)


class TestFullLanes:
    """Time stands still for what is sent; what is held back for it is bounded."""

    @staticmethod
    async def _connected(town):
        client = await town.caller()
        await client.call("echo")
        town.world.network.partition([["server"], ["caller"]])
        return client, await client.connect(5.0)

    def test_one_way_messages_are_dropped_and_the_sender_is_told(self):
        async def scenario(town):
            _, connection = await self._connected(town)
            message = frames.notify("news", bytes(100_000))
            taken = [connection.notify(message) for _ in range(100)]
            kept = taken.count(True)
            assert taken == [True] * kept + [False] * (100 - kept)
            assert connection.counters["notify_dropped"] == 100 - kept
            assert CONGESTED_BYTES < connection._lane.buffered <= CONGESTED_BYTES + 101_000
            town.world.network.heal()
            await asyncio.sleep(10)
            assert len(town.server.service.news) == kept
            assert connection.notify(message)

        in_town(scenario)

    def test_callers_wait(self):
        async def scenario(town):
            client, connection = await self._connected(town)
            calls = [
                asyncio.create_task(client.call("echo", bytes(500_000), timeout_s=30))
                for _ in range(30)
            ]
            await asyncio.sleep(1)
            assert connection._lane.buffered < CONGESTED_BYTES + 600_000  # 15 MB were asked for
            town.world.network.heal()
            town.world.network.base_policy = LinkPolicy(delay_s=DELAY_S)
            async with asyncio.timeout(60):
                assert len(await asyncio.gather(*calls)) == 30

        in_town(scenario)

    def test_the_time_limit_of_a_call_holds_while_it_waits(self):
        async def scenario(town):
            client, connection = await self._connected(town)
            while connection.notify(frames.notify("news", bytes(100_000))):
                pass
            for attempt in (client.call, lambda *a, **k: anext(client.stream(*a, **k))):
                began = town.now
                with pytest.raises(Unavailable, match="no room"):
                    await attempt("slow", 1, timeout_s=1.0)
                assert town.now - began == pytest.approx(1.0, abs=0.1)
            town.world.network.heal()
            await asyncio.sleep(10)
            assert await client.call("echo", 1) == 1
            assert not town.server.service.seen

        in_town(scenario)

    def test_who_waits_for_room_on_a_lane_that_ends_was_never_sent(self):
        async def scenario(town):
            _, connection = await self._connected(town)
            calls = [
                asyncio.create_task(connection.call("echo", bytes(500_000), 60.0))
                for _ in range(30)
            ]
            await asyncio.sleep(1)
            sent = len(connection._pending)
            connection.abort("for a reason of its own")
            ends = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(end) for end in ends} == {ConnectionLost, Unavailable}
            assert sum(type(end) is ConnectionLost for end in ends) == sent

        in_town(scenario)

    def test_a_producer_of_large_items_waits_for_the_lane_too(self):
        def offer_pictures(service):
            offer(service)

            async def pictures(body, call):
                for _ in range(200):
                    service.seen["items"] += 1
                    yield bytes(MEGABYTE // 10)

            service.add("pictures", pictures)

        async def scenario(town):
            client = await town.caller()
            stream = client.stream("pictures", timeout_s=60)
            await anext(stream)
            town.world.network.cut("server", "caller")
            await asyncio.sleep(3)
            (theirs,) = town.server.connections
            assert theirs._lane.buffered <= CONGESTED_BYTES + MEGABYTE
            held_up = town.server.service.seen["items"]
            assert held_up < 200
            town.world.network.heal()
            assert len([item async for item in stream]) == 199

        in_town(scenario, offer_pictures)

    def test_a_peer_that_asks_and_does_not_read_is_cut_off(self):
        async def scenario(town):
            stranger = await town.stranger(deaf=True)
            (theirs,) = town.server.connections
            most = 0
            for i in range(40):
                stranger.say((frames.REQUEST, 1 + i, "echo", bytes(MEGABYTE), 60_000, None))
                await asyncio.sleep(0.5)
                most = max(most, theirs._lane.buffered)
                if theirs.closed:
                    break
            assert "its answers were not read" in str(theirs.closed)
            assert CONGESTED_BYTES < most <= 16 * 1024 * 1024

        in_town(scenario)

    def test_a_request_that_is_too_large_is_refused_before_it_is_sent(self):
        async def scenario(town):
            client = await town.caller()
            with pytest.raises(BadRequest, match=r"echo: .* bytes are too many"):
                await client.call("echo", bytes(9 * MEGABYTE))
            assert await client.call("echo", bytes(MEGABYTE), timeout_s=30) == bytes(MEGABYTE)

        in_town(scenario)

    def test_an_answer_that_is_too_large_is_an_error_and_nothing_breaks(self):
        async def scenario(town):
            client = await town.caller()
            with pytest.raises(Interrupted, match="too many"):
                await client.call("greet", {"name": "x" * 5_000, "times": 2_000})
            assert await client.call("echo", 1) == 1

        in_town(scenario)

    def test_a_body_without_a_wire_form_leaves_nothing_behind(self):
        async def scenario(town):
            client = await town.caller()
            connection = await client.connect(5.0)
            with pytest.raises(TypeError):
                await client.call("echo", {1, 2}, timeout_s=1.0)
            await asyncio.sleep(2)
            assert (connection._pending, connection._deadlines) == ({}, {})

        in_town(scenario)
