"""Raw streams beside the lanes: bytes that are no calls."""

from __future__ import annotations

import asyncio

import pytest
from rpc_kit import in_town

from netstack.rpc.errors import Unavailable


def taking(town):
    """The server takes raw streams: (who, stream) of each, in order."""
    came = []
    town.server.on_stream = lambda connection, stream: came.append((connection, stream))
    return came


async def connection_of(town, opened=None):
    """A caller's connection, both of whose lanes are open; `opened` takes raw streams there."""
    client = await town.caller()
    town.callers["caller"].on_stream = opened
    assert await client.call("echo", 1) == 1
    (connection,) = town.callers["caller"].connections
    return client, connection


def test_bytes_of_a_raw_stream_come_in_order_beside_calls():
    async def scenario(town):
        came = taking(town)
        client, connection = await connection_of(town)
        streams = [connection.open_stream() for _ in range(2)]
        for i in range(3):
            for number, stream in enumerate(streams):
                stream.push(b"%d:%d " % (number, i), fin=i == 2)
        assert await client.call("echo", "between") == "between"
        await asyncio.sleep(0.5)
        assert [c.peer_name for c, _ in came] == ["caller", "caller"]
        heard = {}
        for _, stream in came:
            data = heard[stream.id] = []
            stream.receiver = lambda piece, fin, data=data: data.append((piece, fin))
        whole = [b"".join(piece for piece, _ in data) for data in heard.values()]
        assert sorted(whole) == [b"0:0 0:1 0:2 ", b"1:0 1:1 1:2 "]
        assert all(data[-1][1] for data in heard.values())

    in_town(scenario)


def test_the_side_that_was_dialled_may_open_one_too():
    async def scenario(town):
        heard = []

        def opened(connection, stream):
            stream.receiver = lambda data, fin: heard.append((connection.peer_name, data))

        await connection_of(town, opened)
        (theirs,) = town.server.connections
        theirs.open_stream().push(b"hello")
        await asyncio.sleep(0.5)
        assert heard == [("server", b"hello")]

    in_town(scenario)


def test_where_nobody_takes_them_a_raw_stream_is_reset_and_calls_go_on():
    async def scenario(town):
        client, connection = await connection_of(town)
        stream, codes = connection.open_stream(), []
        stream.on_reset = codes.append
        stream.push(b"is anybody there?")
        await asyncio.sleep(0.5)
        assert set(codes) == {1}
        assert await client.call("echo", 2) == 2
        assert connection.closed is None

    in_town(scenario)


def test_a_connection_that_is_over_opens_none():
    async def scenario(town):
        taking(town)
        _, connection = await connection_of(town)
        await connection.close()
        with pytest.raises(Unavailable):
            connection.open_stream()

    in_town(scenario)


def test_before_the_lanes_are_there_none_is_opened():
    """The dialled side knows no lane until the first frame of the other has come."""

    async def scenario(town):
        refused = []

        def look(connection):
            try:
                connection.open_stream()
            except Unavailable as error:
                refused.append(str(error))

        town.server.on_connection.append(look)
        await connection_of(town)
        assert refused == ["caller has not opened its lanes yet"]

    in_town(scenario)
