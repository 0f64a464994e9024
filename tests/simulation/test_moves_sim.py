"""A peer that speaks from elsewhere: it may have moved, or somebody has copied what it said."""

from __future__ import annotations

import asyncio

import pytest
from host_kit import SERVER, ask, overhear, run

from netstack.transport import frames as f
from netstack.transport import packet
from netstack.transport.errors import PeerRestarted


async def rebind(host, address=("127.0.0.1", 0)):
    """As behind a router that forgot: the same process, seen under another port."""
    host._endpoint.close()
    host._endpoint = await host._runtime.bind(address)
    host._endpoint.set_receiver(host._receive)


async def connected(net):
    server = await net.server()
    caller = await net.host("caller")
    peer = await caller.connect(SERVER, service="echo")
    assert await ask(peer, b"before") == b"before"
    return server, caller, peer


def test_a_connection_goes_on_when_its_peer_gets_another_port():
    async def scenario(net):
        server, caller, peer = await connected(net)
        before = net.peers_seen[0].address
        for _ in range(3):
            await rebind(caller)
            assert await ask(peer, b"x" * 20_000) == b"x" * 20_000
            assert net.peers_seen[0].address == caller.address != before
        assert len(server._peers) == 1
        assert '"transport.moved"' in net.world.log

    run(scenario)


def test_a_peer_that_has_moved_can_still_say_that_it_was_restarted():
    """Its resets come from its new address, and none is heeded from the old one."""

    async def scenario(net):
        server, caller, peer = await connected(net)
        theirs = net.peers_seen[0]
        old = theirs.address
        await rebind(caller)
        assert await ask(peer, b"x") == b"x"
        assert theirs.address == caller.address != old
        token = caller._mint.reset(peer.connection.local_id)
        true = packet.SHORT.pack(packet.RESET, peer.connection.local_id) + token
        server._receive((true,), old)
        assert not theirs.closed
        assert server.counters["unknown"] == 1
        server._receive((true,), caller.address)
        assert type(theirs.connection.error) is PeerRestarted
        assert server._by_remote == {}

    run(scenario)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9"])
def test_what_was_learnt_of_the_way_is_kept_for_another_port_and_not_for_another_host(host):
    async def scenario(net):
        _, caller, peer = await connected(net)
        theirs = net.peers_seen[0].connection
        samples = theirs.rtt.samples
        controller = theirs.recovery.congestion
        await rebind(caller, (host, 4321))
        assert await ask(peer, b"x") == b"x"
        kept = host == "127.0.0.1"
        assert (theirs.recovery.congestion is controller) == kept
        assert (theirs.rtt.samples > samples) == kept

    run(scenario)


def test_what_a_thief_has_copied_is_read_and_takes_nothing_over():
    async def scenario(net):
        server, caller, peer = await connected(net)
        thief = await net.host("thief")
        heard = overhear(thief, lambda data: None)
        peer.connection.write(peer.open_stream().id, b"stolen")
        for datagram in peer.connection.datagrams_to_send(caller._now()):
            thief._endpoint.send((datagram,), SERVER)
        await asyncio.sleep(1)
        assert server.counters["challenges"] == 1
        assert len(heard) == 1  # the challenge, which it cannot read, and nothing else
        assert net.peers_seen[0].address == caller.address
        assert await ask(peer, b"not taken over") == b"not taken over"

    run(scenario)


def test_old_damaged_and_short_packets_from_elsewhere_are_worth_no_challenge():
    async def scenario(net):
        server, _, peer = await connected(net)
        heard = overhear(server)
        assert await ask(peer, b"x" * 5_000) == b"x" * 5_000
        thief = await net.host("thief")
        sealed = [data for data in heard if data[0] & packet.DATA]
        newest = sealed[-1]
        damaged = newest[:-1] + bytes([newest[-1] ^ 1])
        for data in (*sealed, newest[:30], damaged, newest[:9]):
            thief._endpoint.send((data,), SERVER)
        await asyncio.sleep(1)
        assert server.counters["challenges"] == 0
        assert await ask(peer, b"y") == b"y"

    run(scenario)


def test_one_challenge_is_under_way_at_a_time():
    """Or a copied stream would make us send as much again to whoever is named as its source."""

    async def scenario(net):
        server, caller, peer = await connected(net)
        thief = await net.host("thief")
        stream = peer.open_stream()
        for _ in range(20):
            peer.connection.write(stream.id, b"stolen")
            for datagram in peer.connection.datagrams_to_send(caller._now()):
                thief._endpoint.send((datagram,), SERVER)
        await asyncio.sleep(0.015)
        assert server.counters["challenges"] == 1

    run(scenario)


def test_an_answer_that_nobody_asked_for_moves_nothing():
    async def scenario(net):
        server, caller, peer = await connected(net)
        peer.connection.outgoing.control.append((f.ANSWER, f.SECRET.pack(f.ANSWER, bytes(8))))
        peer.touch()
        assert await ask(peer, b"x") == b"x"
        assert net.peers_seen[0].address == caller.address
        assert server.counters["challenges"] == 0

    run(scenario)
