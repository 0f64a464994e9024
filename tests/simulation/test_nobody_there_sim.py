"""A process that was killed refuses what is sent to it, on one machine: nobody waits for it."""

from __future__ import annotations

import asyncio

import pytest
from host_kit import SERVER, Net, ask

from netstack.runtime.simulation.network import BASE_POLICY
from netstack.transport.errors import ConnectTimeout, NobodyThere

# More than the first answer that is overdue takes, and far less than silence.
SOON_S = 0.2


def run(scenario, **config):
    """On one machine: no link between its processes but the loopback."""
    net = Net(**config)
    net.world.network.base_policy = BASE_POLICY
    return net.run(scenario)


def ends_of(net, peer):
    """[(when, why)] the connection ends."""
    ended = []
    peer.on_close.append(lambda error: ended.append((net.world.now, error)))
    return ended


def test_a_dial_to_nobody_fails_at_once():
    async def scenario(net):
        caller = await net.host("caller")
        began = net.world.now
        with pytest.raises(NobodyThere, match=r"nobody listens at 127\.0\.0\.1:7000"):
            await caller.connect(SERVER, service="echo")
        assert net.world.now == began
        assert not caller._peers

    run(scenario)


def test_a_dial_that_is_under_way_fails_when_its_process_is_killed():
    async def scenario(net):
        await net.server()
        caller = await net.host("caller")
        net.world.pause("server")
        began = net.world.now
        dial = asyncio.ensure_future(caller.connect(SERVER, service="echo"))
        await asyncio.sleep(0.01)
        net.world.crash("server")
        with pytest.raises(NobodyThere):
            await dial
        assert net.world.now - began < SOON_S

    run(scenario)


def test_a_dial_to_a_process_that_is_paused_waits_its_time():
    async def scenario(net):
        await net.server()
        caller = await net.host("caller")
        net.world.pause("server")
        began = net.world.now
        with pytest.raises(ConnectTimeout):
            await caller.connect(SERVER, service="echo", timeout_s=2.0)
        assert net.world.now - began == pytest.approx(2.0, abs=0.01)

    run(scenario)


def test_the_first_overdue_answer_of_a_killed_process_ends_the_connection():
    async def scenario(net):
        await net.server()
        caller = await net.host("caller")
        peer = await caller.connect(SERVER, service="echo")
        assert await ask(peer, b"x") == b"x"
        ended = ends_of(net, peer)
        net.world.crash("server")
        died = net.world.now
        with pytest.raises(NobodyThere):
            await ask(peer, b"anybody?")
        assert ended[0][0] - died < SOON_S
        assert not caller._peers

    run(scenario)


def test_a_process_that_is_paused_keeps_its_connections():
    async def scenario(net):
        await net.server()
        caller = await net.host("caller")
        peer = await caller.connect(SERVER, service="echo")
        net.world.pause("server")
        asking = asyncio.ensure_future(ask(peer, b"x"))
        await asyncio.sleep(5)
        assert not peer.closed
        net.world.nodes["server"].resume()
        assert await asking == b"x"

    run(scenario)


def test_who_dialled_and_was_killed_is_missed_after_several_overdue_answers():
    async def scenario(net):
        await net.server()
        caller = await net.host("caller")
        await ask(await caller.connect(SERVER, service="echo"), b"x")
        theirs = net.peers_seen[0]
        ended = ends_of(net, theirs)
        net.world.crash("caller")
        died = net.world.now
        theirs.open_stream().push(b"are you there?")
        await asyncio.sleep(2)
        assert [type(error) for _, error in ended] == [NobodyThere]
        assert theirs.connection.recovery.timeouts == 2
        assert ended[0][0] - died < 1.0

    run(scenario)
