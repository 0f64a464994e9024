"""A whole host's limits from both sides; those of a connection are in tests/unit/transport."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from host_kit import DELAY_S, ROUND_TRIP, SERVER, ask, overhear, run

from netstack.transport import packet
from netstack.transport.config import BASE_MTU
from netstack.transport.host import KNOWN_PEERS_MAX, RESETS_PER_S


class Limit(NamedTuple):
    name: str
    of: str  # "module.CONSTANT" or "TransportConfig.field"
    accepts: Any  # async (net, value) -> bool
    inside: Any
    outside: Any


async def initial_of(net, size):
    """Whether a stranger's first packet of so many bytes is answered."""
    await net.server()
    stranger = await net.host("stranger")
    answers = overhear(stranger, lambda data: None)
    initial = packet.initial(packet.INITIAL_XX, 1, b"", b"\x09" * 32, size)
    stranger._endpoint.send((initial,), SERVER)
    await asyncio.sleep(ROUND_TRIP * 2)
    return len(answers) == 1


async def the_last_of_so_many_unknown_is_answered(net, count):
    """All at once, by a stateless reset."""
    await net.server()
    stranger = await net.host("stranger")
    answers = overhear(stranger, lambda data: None)
    for i in range(count):
        unknown = packet.HEADER.pack(packet.DATA, i, 0) + bytes(16)
        stranger._endpoint.send((unknown,), SERVER)
    await asyncio.sleep(ROUND_TRIP * 2)
    return (count - 1) in [packet.destination_id(data) for data in answers]


async def unknown_of(net, size):
    """Whether DATA for nobody is answered: what is smaller than the answer must not be."""
    await net.server()
    stranger = await net.host("stranger")
    answers = overhear(stranger, lambda data: None)
    stranger._endpoint.send((packet.HEADER.pack(packet.DATA, 1, 0).ljust(size, b"\0"),), SERVER)
    await asyncio.sleep(ROUND_TRIP * 2)
    assert all(len(answer) < size for answer in answers)
    return bool(answers)


async def one_handshake_more_than(net, half_open):
    """Whether a caller is let in while so many others do not go on with their handshakes."""
    server, caller = await net.server(), await net.host("caller")
    for i in range(half_open):
        half = await net.host(f"half-{i}")
        task = asyncio.create_task(half.connect(SERVER, service="echo", timeout_s=4.0))
        task.add_done_callback(lambda t: t.cancelled() or t.exception())
        await asyncio.sleep(ROUND_TRIP + DELAY_S / 2)  # the token is there, the answer is not
        net.world.network.cut("server", f"half-{i}")
        await asyncio.sleep(DELAY_S)
    assert server._half_open == half_open
    dial = asyncio.create_task(caller.connect(SERVER, service="echo", timeout_s=4.0))
    done, _ = await asyncio.wait([dial], timeout=ROUND_TRIP * 3)
    if not done:
        assert server.counters["half_open_refused"] > 0
        dial.cancel()
        await asyncio.wait([dial])
        return False
    return await ask(dial.result(), b"x") == b"x"


async def is_remembered_behind(net, others):
    """A server's key and token, when the keys of so many others were learnt after it."""
    await net.server()
    caller = await net.host("caller")
    peer = await caller.connect(SERVER, service="echo")
    await ask(peer, b"until its token has come")
    for i in range(others):
        caller._remember(SimpleNamespace(address=("127.0.0.2", i), identity=peer.identity), b"")
    return SERVER in caller._known


LIMITS = (
    Limit("size of an INITIAL", "config.BASE_MTU", initial_of, BASE_MTU, BASE_MTU - 1),
    Limit(
        "resets at once",
        "host.RESETS_PER_S",
        the_last_of_so_many_unknown_is_answered,
        RESETS_PER_S,
        RESETS_PER_S + 1,
    ),
    Limit("size of what is reset", "", unknown_of, packet.OVERHEAD, packet.OVERHEAD - 1),
    Limit(
        "peers remembered",
        "host.KNOWN_PEERS_MAX",
        is_remembered_behind,
        KNOWN_PEERS_MAX - 1,
        KNOWN_PEERS_MAX,
    ),
    Limit("handshakes under way", "TransportConfig.max_half_open", one_handshake_more_than, 7, 8),
)


@pytest.mark.parametrize("side", ["at the limit", "beyond it"])
@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
def test_a_host_s_limit(limit, side):
    inside = side == "at the limit"

    async def scenario(net):
        return await limit.accepts(net, limit.inside if inside else limit.outside)

    assert run(scenario, max_half_open=8) == inside
