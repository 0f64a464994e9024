"""One socket with many connections, in virtual time: strangers, restarts, silence, bad lines."""

from __future__ import annotations

import asyncio
import random

import pytest

from netstack.runtime.policy import LinkPolicy
from netstack.runtime.simulation.world import EPOCH, World
from netstack.transport.config import TransportConfig
from netstack.transport.errors import (
    ConnectionClosed,
    ConnectTimeout,
    IdleTimeout,
    PeerRejected,
    PeerRestarted,
    TransportError,
)
from netstack.transport.host import Host
from netstack.transport.packet import INITIAL_XX
from security.identity import Authority

SERVER = ("127.0.0.1", 7000)
DELAY_S = 0.010
ROUND_TRIP = 2 * DELAY_S

_entropy = random.Random("hosts").randbytes
_authority = Authority.create("test", now=EPOCH, entropy=_entropy)


def _identity(name):
    return _authority.issue(name, "echo", now=EPOCH, entropy=_entropy)


def _echo(peer):
    def opened(stream):
        stream.receiver = lambda data, fin: stream.push(data, fin=fin)

    peer.on_stream = opened


class Net:
    """A world with an echo server and as many dialling hosts as asked for."""

    def __init__(self, **config):
        self.world = World(seed=3)
        self.world.network.base_policy = LinkPolicy(delay_s=DELAY_S)
        self.config = TransportConfig(**config)
        self.identities = {}
        self.hosts = {}
        self.peers_seen = []

    async def host(self, name, address=("127.0.0.1", 0), on_peer=None):
        """A node's socket; again under the same name is its next life."""
        started = asyncio.get_running_loop().create_future()

        async def start(runtime):
            identity = self.identities.setdefault(name, _identity(name))
            host = Host(runtime, identity, service="echo", config=self.config, on_peer=on_peer)
            await host.start(address)
            self.hosts[name] = host
            if not started.done():
                started.set_result(host)

        if name not in self.world.nodes:
            self.world.add_node(name, start)
        else:
            self.world.nodes[name]._start = start
        self.world.restart(name)
        return await started

    async def server(self):
        def seen(peer):
            self.peers_seen.append(peer)
            _echo(peer)

        return await self.host("server", SERVER, seen)

    def run(self, scenario):
        try:
            return self.world.run(scenario(self))
        finally:
            self.world.close()


def run(scenario, **config):
    return Net(**config).run(scenario)


async def _ask(peer, data):
    stream = peer.open_stream()
    await stream.write(data, fin=True)
    parts = []
    while part := await stream.read():
        parts.append(part)
    return b"".join(parts)


def test_the_first_dial_takes_two_round_trips_and_the_next_one():
    """Address token, then XX; later the token and the peer's key are known."""

    async def scenario(net):
        await net.server()
        caller = await net.host("caller")
        began = net.world.now
        peer = await caller.connect(SERVER, service="echo", expect="server")
        first = net.world.now - began
        await _ask(peer, b"x")
        await peer.close()
        began = net.world.now
        peer = await caller.connect(SERVER, service="echo", expect="server")
        second = net.world.now - began
        assert await _ask(peer, b"again") == b"again"
        return first, second

    first, second = run(scenario)
    assert first == pytest.approx(2 * ROUND_TRIP, abs=0.002)
    assert second == pytest.approx(ROUND_TRIP, abs=0.002)


def test_a_stranger_gets_less_than_he_sent_and_leaves_nothing_behind():
    async def scenario(net):
        server = await net.server()
        stranger = await net.host("stranger")
        answers = []
        stranger._endpoint.set_receiver(lambda datagrams, source: answers.extend(datagrams))
        initial = bytes([INITIAL_XX]) + (7).to_bytes(8, "big") + bytes(1191)
        for _ in range(10):
            stranger._endpoint.send((initial,), SERVER)
        await asyncio.sleep(1)
        assert len(answers) == 10
        assert sum(map(len, answers)) < 10 * 200
        assert not server._peers
        assert server._half_open == 0

    run(scenario)


def test_an_initial_that_is_not_padded_is_not_answered():
    async def scenario(net):
        server = await net.server()
        stranger = await net.host("stranger")
        answers = []
        stranger._endpoint.set_receiver(lambda datagrams, source: answers.extend(datagrams))
        stranger._endpoint.send((bytes([INITIAL_XX]) + bytes(500),), SERVER)
        await asyncio.sleep(1)
        assert not answers
        assert server.counters["malformed"] == 1

    run(scenario)


def test_handshakes_under_way_are_bounded_and_those_who_talk_are_served():
    async def scenario(net):
        server = await net.server()
        caller = await net.host("caller")
        old = await caller.connect(SERVER, service="echo")
        # Whoever can receive at his address and then says nothing more, many times.
        for i in range(12):
            half = await net.host(f"half-{i}")
            task = asyncio.create_task(half.connect(SERVER, service="echo", timeout_s=30))
            await asyncio.sleep(ROUND_TRIP * 1.2)  # the token has come, the answer has not
            net.world.network.cut("server", f"half-{i}")
            task.add_done_callback(lambda t: t.cancelled() or t.exception())
        assert server._half_open <= 8
        assert await _ask(old, b"still served") == b"still served"
        await asyncio.sleep(10)
        assert server._half_open == 0
        assert server.counters["half_open_refused"] > 0

    run(scenario, max_half_open=8)


def test_a_peer_that_was_killed_and_restarted_is_noticed_in_one_round_trip():
    async def scenario(net):
        await net.server()
        caller = await net.host("caller")
        peer = await caller.connect(SERVER, service="echo")
        ended = asyncio.Event()
        errors = []
        peer.on_close.append(lambda error: (errors.append(error), ended.set()))
        assert await _ask(peer, b"x") == b"x"
        await asyncio.sleep(1)
        net.world.crash("server")
        await net.server()
        began = net.world.now
        stream = peer.open_stream()
        stream.push(b"are you there?")
        await ended.wait()
        assert net.world.now - began == pytest.approx(ROUND_TRIP, abs=0.002)
        assert type(errors[0]) is PeerRestarted

    run(scenario)


def test_a_reset_that_is_not_the_peers_changes_nothing():
    async def scenario(net):
        await net.server()
        caller = await net.host("caller")
        peer = await caller.connect(SERVER, service="echo")
        from netstack.transport import packet

        forged = packet.SHORT.pack(packet.RESET, peer.connection.remote_id) + bytes(16)
        net.hosts["server"]._endpoint.send((forged,), caller._endpoint.address)
        await asyncio.sleep(0.1)
        assert await _ask(peer, b"x") == b"x"
        assert caller.counters["false_resets"] == 1

    run(scenario)


def test_a_key_that_is_stale_is_answered_and_the_dial_begins_again():
    """The server was reinstalled under new keys: IK fails, XX finds out who it is now."""

    async def scenario(net):
        await net.server()
        caller = await net.host("caller")
        await (await caller.connect(SERVER, service="echo")).close()
        net.world.crash("server")
        net.identities["server"] = _identity("server")
        await net.server()
        peer = await caller.connect(SERVER, service="echo", expect="server")
        assert await _ask(peer, b"x") == b"x"
        assert peer.identity.static_key != b""

    run(scenario)


def test_who_answers_must_be_who_was_asked_for():
    async def scenario(net):
        await net.server()
        caller = await net.host("caller")
        with pytest.raises(PeerRejected, match="is server, not n7"):
            await caller.connect(SERVER, service="echo", expect="n7")

    run(scenario)


def test_nobody_there_is_a_time_out():
    async def scenario(net):
        caller = await net.host("caller")
        began = net.world.now
        with pytest.raises(ConnectTimeout):
            await caller.connect(SERVER, service="echo", timeout_s=2.0)
        assert net.world.now - began == pytest.approx(2.0, abs=0.01)

    run(scenario)


def test_silence_is_judged_by_what_is_received():
    """A sender into a black hole must not keep itself alive."""

    async def scenario(net):
        await net.server()
        caller = await net.host("caller")
        peer = await caller.connect(SERVER, service="echo")
        ended = []
        peer.on_close.append(lambda error: ended.append((net.world.now, error)))
        net.world.network.cut("server", "caller")
        began = net.world.now
        stream = peer.open_stream()
        while not ended:
            stream.push(b"hello?")
            await asyncio.sleep(0.5)
        assert ended[0][0] - began == pytest.approx(6.0, abs=0.2)
        assert type(ended[0][1]) is IdleTimeout

    run(scenario, idle_timeout_s=6.0, keep_alive_s=2.0)


def test_two_who_have_nothing_to_say_stay_connected():
    async def scenario(net):
        await net.server()
        caller = await net.host("caller")
        peer = await caller.connect(SERVER, service="echo")
        await asyncio.sleep(600)
        assert not peer.closed
        assert await _ask(peer, b"x") == b"x"
        # One PING in two seconds from each side, and its acknowledgement.
        assert peer.connection.sent_packets < 600 * 2

    run(scenario, idle_timeout_s=6.0, keep_alive_s=2.0)


def test_a_goodbye_is_heard_at_once():
    async def scenario(net):
        await net.server()
        caller = await net.host("caller")
        peer = await caller.connect(SERVER, service="echo")
        await asyncio.sleep(1)
        theirs = net.peers_seen[0]
        heard = []
        theirs.on_close.append(heard.append)
        await peer.close(7, "enough")
        await asyncio.sleep(DELAY_S * 1.5)
        assert [(type(e), e.code) for e in heard] == [(ConnectionClosed, 7)]
        assert "enough" in str(heard[0])
        assert not net.hosts["server"]._peers

    run(scenario)


def test_datagrams_of_another_address_are_foreign():
    """A connection belongs to an address; nobody else may speak for it."""

    async def scenario(net):
        server = await net.server()
        caller = await net.host("caller")
        peer = await caller.connect(SERVER, service="echo")
        thief = await net.host("thief")
        peer.connection.write(peer.open_stream().id, b"stolen")
        for datagram in peer.connection.datagrams_to_send(caller._now()):
            thief._endpoint.send((datagram,), SERVER)
        await asyncio.sleep(0.1)
        assert server.counters["foreign"] == 1

    run(scenario)


def test_a_thousand_connections_on_one_socket():
    async def scenario(net):
        server = await net.server()
        hosts = [await net.host(f"caller-{i}") for i in range(50)]
        peers = []
        for host in hosts:
            peers += [await host.connect(SERVER, service="echo") for _ in range(20)]
        assert len(server._peers) == 1_000
        answers = await asyncio.gather(*(_ask(p, b"%d" % i) for i, p in enumerate(peers)))
        assert answers == [b"%d" % i for i in range(1_000)]
        for peer in peers:
            await peer.close()
        await asyncio.sleep(1)
        assert not server._peers

    run(scenario)


@pytest.mark.parametrize("seed", range(6))
def test_what_is_written_is_what_is_read_whatever_the_line_does(seed):
    dice = random.Random(seed)
    policy = LinkPolicy(
        delay_s=DELAY_S,
        jitter_s=dice.choice((0.0, 0.01)),
        loss=dice.choice((0.02, 0.1, 0.2)),
        duplicate=dice.choice((0.0, 0.1)),
        reorder=dice.choice((0.0, 0.2)),
        corrupt=dice.choice((0.0, 0.05)),
    )
    messages = [dice.randbytes(dice.randrange(1, 60_000)) for _ in range(12)]

    async def scenario(net):
        await net.server()
        net.world.network.base_policy = policy
        caller = await net.host("caller")
        peer = await caller.connect(SERVER, service="echo", timeout_s=60)
        answers = await asyncio.gather(*(_ask(peer, m) for m in messages))
        assert answers == messages

    run(scenario)


def test_a_writer_waits_for_a_reader_that_does_not_read():
    async def scenario(net):
        def ignore(peer):
            net.peers_seen.append(peer)

        await net.host("server", SERVER, ignore)
        caller = await net.host("caller")
        peer = await caller.connect(SERVER, service="echo")
        stream = peer.open_stream()
        written = 0

        async def write():
            nonlocal written
            while True:
                await stream.write(bytes(10_000))
                written += 10_000

        task = asyncio.create_task(write())
        await asyncio.sleep(30)
        stuck = written
        await asyncio.sleep(30)
        assert written == stuck  # the windows are full, and that is the end of it
        assert stuck < 1_000_000
        task.cancel()

    run(scenario, stream_window=200_000, stream_buffer=400_000)


def test_a_stream_that_the_peer_gives_up_ends_in_an_error():
    async def scenario(net):
        def refuse(peer):
            peer.on_stream = lambda stream: stream.reset(9)

        await net.host("server", SERVER, refuse)
        caller = await net.host("caller")
        peer = await caller.connect(SERVER, service="echo")
        stream = peer.open_stream()
        stream.push(b"x")
        with pytest.raises(TransportError, match="code 9"):
            await stream.read()
        assert not peer.closed

    run(scenario)
