"""The callers of one node: those that have a connection are bounded, the longest unused lose it."""

from __future__ import annotations

import asyncio

import pytest
from rpc_kit import SERVER, in_town

from netstack.rpc import node as rpc_node
from netstack.rpc.errors import Unavailable

FEW = 4


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(rpc_node, "CLIENTS_MAX", FEW)


def a_client(node):
    return node.client(SERVER, "echo", "server")


def test_those_with_a_connection_are_bounded_and_so_are_the_connections():
    async def scenario(town):
        node = await town.node("caller", "client")
        for i in range(5 * FEW):
            assert await a_client(node).call("echo", i) == i
            assert len(node._clients) <= FEW
        await asyncio.sleep(0.1)
        assert len(node.connections) == len(town.server.connections) == FEW

    in_town(scenario)


def test_the_longest_unused_goes_first_and_dials_again_when_it_is_used_again():
    async def scenario(town):
        node = await town.node("caller", "client")
        clients = [a_client(node) for _ in range(FEW)]
        for client in [*clients, clients[0]]:
            await client.call("echo", 1)
            await asyncio.sleep(0.01)
        await a_client(node).call("echo", 1)
        await asyncio.sleep(0.1)
        assert [client._ready() for client in clients] == [True, False, True, True]
        assert await clients[1].call("echo", 2) == 2
        assert len(node._clients) == FEW

    in_town(scenario)


def test_who_waits_for_an_answer_or_reads_a_stream_keeps_its_connection():
    async def scenario(town):
        node = await town.node("caller", "client")
        waiting = [asyncio.ensure_future(a_client(node).call("slow", 2.0)) for _ in range(FEW)]
        stream = a_client(node).stream("count", 1000)
        assert await anext(stream) == 0
        for i in range(3 * FEW):
            assert await a_client(node).call("echo", i) == i
        assert await asyncio.gather(*waiting) == [2.0] * FEW
        assert [await anext(stream) for _ in range(300)] == list(range(1, 301))
        await stream.aclose()
        await a_client(node).call("echo", 1)
        await asyncio.sleep(0.1)
        assert len(node._clients) == len(node.connections) == FEW

    in_town(scenario)


def test_who_was_closed_is_forgotten():
    async def scenario(town):
        node = await town.node("caller", "client")
        for i in range(FEW):
            client = a_client(node)
            await client.call("echo", i)
            await client.close()
        assert not node._clients
        assert not node.connections

    in_town(scenario)


def test_a_client_that_never_called_is_not_held():
    async def scenario(town):
        node = await town.node("caller", "client")
        for _ in range(10 * FEW):
            a_client(node)
        assert not node._clients

    in_town(scenario)


def test_when_its_node_is_closed_a_client_fails_at_once_connected_or_not():
    async def scenario(town):
        node = await town.node("caller", "client")
        used, unused = a_client(node), a_client(node)
        await used.call("echo", 1)
        await node.close()
        began = town.now
        for client in (used, unused, a_client(node)):
            with pytest.raises(Unavailable):
                await client.call("echo", 1, timeout_s=5.0)
        assert town.now == began

    in_town(scenario)
