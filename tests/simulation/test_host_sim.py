"""One socket with many connections, in virtual time: strangers, restarts, silence, bad lines."""

from __future__ import annotations

import asyncio
import random

import pytest
from host_kit import (
    DELAY_S,
    ROUND_TRIP,
    SERVER,
    ask,
    damage,
    first_of_noise,
    identity,
    lose,
    of_kind,
    once,
    overhear,
    run,
    truncate,
)

from netstack.runtime.simulation.world import EPOCH
from netstack.transport import packet
from netstack.transport.errors import (
    ConnectionClosed,
    ConnectTimeout,
    IdleTimeout,
    PeerRejected,
    PeerRestarted,
)
from security.identity import Authority


def test_the_first_dial_takes_two_round_trips_and_the_next_one():
    """Address token, then XX; later the token and the peer's key are known."""

    async def scenario(net):
        await net.server()
        caller = await net.host("caller")
        began = net.world.now
        peer = await caller.connect(SERVER, service="echo", expect="server")
        first = net.world.now - began
        await ask(peer, b"x")
        await peer.close()
        began = net.world.now
        peer = await caller.connect(SERVER, service="echo", expect="server")
        second = net.world.now - began
        assert await ask(peer, b"again") == b"again"
        return first, second

    first, second = run(scenario)
    assert first == pytest.approx(2 * ROUND_TRIP, abs=0.002)
    assert second == pytest.approx(ROUND_TRIP, abs=0.002)


def test_a_stranger_gets_less_than_he_sent_and_leaves_nothing_behind():
    async def scenario(net):
        server = await net.server()
        stranger = await net.host("stranger")
        answers = []
        stranger._endpoint.set_receiver(lambda datagrams, *_: answers.extend(datagrams))
        for i in range(10):
            initial = packet.initial(packet.INITIAL_XX, i, b"", b"\x09" * 32, 1200)
            stranger._endpoint.send((initial,), SERVER)
        await asyncio.sleep(1)
        assert len(answers) == 10
        assert sum(map(len, answers)) < 10 * 200
        assert not server._peers
        assert server._half_open == 0

    run(scenario)


def test_a_token_is_worth_nothing_at_another_address():
    async def scenario(net):
        server = await net.server()
        honest = await net.host("honest")
        heard = overhear(server)
        await honest.connect(SERVER, service="echo")
        with_token = next(d for d in heard if d[0] == packet.INITIAL_XX and d[9:11] != b"\0\0")
        connections = len(server._peers)
        thief = await net.host("thief")
        answers = overhear(thief, lambda data: None)
        thief._endpoint.send((with_token,), SERVER)
        await asyncio.sleep(0.1)
        assert [data[0] for data in answers] == [packet.RETRY]
        assert len(server._peers) == connections

    run(scenario)


def test_resets_are_rare_and_small_and_never_answer_one_another():
    async def scenario(net):
        server = await net.server()
        stranger = await net.host("stranger")
        answers = overhear(stranger)
        unknown = packet.HEADER.pack(packet.DATA, 77, 0) + bytes(30)
        for _ in range(1_000):
            stranger._endpoint.send((unknown,), SERVER)
        await asyncio.sleep(1)
        assert 1 <= len(answers) <= 110  # a second's allowance, and what came back meanwhile
        assert {data[0] for data in answers} == {packet.RESET}
        assert max(map(len, answers)) < len(unknown)
        assert server.counters["unknown"] == 1_000
        assert stranger.counters["unknown"] == len(answers)  # and it kept quiet about them

    run(scenario)


def test_an_initial_that_is_not_padded_is_not_answered():
    async def scenario(net):
        server = await net.server()
        stranger = await net.host("stranger")
        answers = []
        stranger._endpoint.set_receiver(lambda datagrams, *_: answers.extend(datagrams))
        stranger._endpoint.send((bytes([packet.INITIAL_XX]) + bytes(500),), SERVER)
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
        assert len(server._peers) <= 1 + 8
        assert await ask(old, b"still served") == b"still served"
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
        assert await ask(peer, b"x") == b"x"
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
        forged = packet.SHORT.pack(packet.RESET, peer.connection.remote_id) + bytes(16)
        net.hosts["server"]._endpoint.send((forged,), caller._endpoint.address)
        await asyncio.sleep(0.1)
        assert await ask(peer, b"x") == b"x"
        assert caller.counters["false_resets"] == 1

    run(scenario)


class Table(dict):
    """A dictionary that counts how often it is walked."""

    walks = 0

    def __iter__(self):
        self.walks += 1
        return super().__iter__()

    def values(self):
        self.walks += 1
        return super().values()

    def items(self):
        self.walks += 1
        return super().items()


def test_resets_are_looked_up_however_many_connections_there_are():
    """Anybody can send a thousand a second; a walk over all connections for each would be dear."""

    async def scenario(net):
        await net.server()
        caller = await net.host("caller")
        peers = [await caller.connect(SERVER, service="echo") for _ in range(20)]
        tables = caller._peers, caller._by_remote = Table(caller._peers), Table(caller._by_remote)
        assert len(caller._peers) == len(caller._by_remote) == len(peers)
        for peer in peers:
            forged = packet.SHORT.pack(packet.RESET, peer.connection.remote_id) + bytes(16)
            caller._receive((forged,), SERVER)
            caller._receive((forged,), ("127.0.0.1", 9))  # from elsewhere it speaks of nobody
            caller._receive((packet.SHORT.pack(packet.RESET, 77) + bytes(16),), SERVER)
        assert caller.counters["false_resets"] == 20
        assert caller.counters["unknown"] == 40
        assert [table.walks for table in tables] == [0, 0]
        for peer in peers[:-1]:
            await peer.close()
        assert list(caller._by_remote.values()) == [peers[-1]]
        await asyncio.sleep(1)
        assert [peer.closed for peer in net.peers_seen] == [True] * 19 + [False]
        assert len(net.hosts["server"]._by_remote) == 1

    run(scenario)


def test_what_is_listed_for_another_stays_when_a_connection_goes():
    """A peer chooses its ids, and may choose one twice: the later connection has it."""

    async def scenario(net):
        await net.server()
        caller = await net.host("caller")
        first = await caller.connect(SERVER, service="echo")
        second = await caller.connect(SERVER, service="echo")
        key = (SERVER, second.connection.remote_id)
        caller._by_remote[key] = first  # as if its id were the same
        await second.close()
        assert caller._by_remote[key] is first
        await first.close()

    run(scenario)


MESSAGES = {
    "INITIAL": ("server", of_kind(packet.INITIAL_XX)),
    "INITIAL with token": ("server", first_of_noise),
    "RETRY": ("caller", of_kind(packet.RETRY)),
    "RESPONSE": ("caller", of_kind(packet.RESPONSE)),
    "FINAL": ("server", of_kind(packet.FINAL)),
}


@pytest.mark.parametrize(
    ("where", "which", "change"),
    [
        pytest.param(*message, change, id=f"{name}-{change.__name__}")
        for name, message in MESSAGES.items()
        for change in (damage, truncate, lose)
    ],
)
def test_a_handshake_message_that_is_damaged_or_lost_is_made_up_for(where, which, change):
    async def scenario(net):
        hosts = {"server": await net.server(), "caller": await net.host("caller")}
        overhear(hosts[where], once(which, change))
        peer = await hosts["caller"].connect(SERVER, service="echo", timeout_s=4.0)
        assert await ask(peer, b"x") == b"x"
        await asyncio.sleep(6)  # no half-open handshake outlives its time
        assert (hosts["server"]._half_open, len(hosts["server"]._peers)) == (0, 1)

    run(scenario)


def test_forged_retries_cost_time_and_not_the_connection():
    async def scenario(net):
        await net.server()
        caller = await net.host("caller")
        dial = asyncio.create_task(caller.connect(SERVER, service="echo", timeout_s=4.0))
        await asyncio.sleep(DELAY_S / 2)
        (local_id,) = caller._peers
        forged = packet.SHORT.pack(packet.RETRY, local_id) + bytes(24)
        caller._receive([forged, forged], SERVER)
        assert await ask(await dial, b"x") == b"x"

    run(scenario)


def test_a_key_that_is_stale_is_answered_and_the_dial_begins_again():
    """The server was reinstalled under new keys: IK fails, XX finds out who it is now."""

    async def scenario(net):
        await net.server()
        caller = await net.host("caller")
        await (await caller.connect(SERVER, service="echo")).close()
        net.world.crash("server")
        net.identities["server"] = identity("server")
        await net.server()
        peer = await caller.connect(SERVER, service="echo", expect="server")
        assert await ask(peer, b"x") == b"x"
        assert peer.identity.static_key != b""

    run(scenario)


def test_a_forged_refusal_costs_time_and_not_the_connection():
    """The true server has agreed to the first message, and is now asked with another pattern."""

    async def scenario(net):
        await net.server()
        caller = await net.host("caller")
        peer = await caller.connect(SERVER, service="echo")
        await ask(peer, b"until its token has come")
        await peer.close()
        began = net.world.now
        dial = asyncio.create_task(caller.connect(SERVER, service="echo", timeout_s=4.0))
        await asyncio.sleep(DELAY_S / 2)
        (local_id,) = caller._peers
        caller._receive([packet.SHORT.pack(packet.REFUSED, local_id)], SERVER)
        assert await ask(await dial, b"x") == b"x"
        assert net.world.now - began < 4 * ROUND_TRIP

    run(scenario)


def test_who_answers_must_be_who_was_asked_for():
    async def scenario(net):
        await net.server()
        caller = await net.host("caller")
        with pytest.raises(PeerRejected, match="is server, not n7"):
            await caller.connect(SERVER, service="echo", expect="n7")

    run(scenario)


@pytest.mark.parametrize("cluster", ["test", "another"])
def test_a_server_of_another_authority_is_refused_and_the_reason_told(cluster):
    """Of another cluster not a byte can be read; what was only damaged would fit the next time."""

    async def scenario(net):
        entropy = random.Random(cluster).randbytes
        foreign = Authority.create(cluster, now=EPOCH, entropy=entropy)
        net.identities["server"] = foreign.issue("server", "echo", now=EPOCH, entropy=entropy)
        await net.server()
        caller = await net.host("caller")
        with pytest.raises(PeerRejected):
            await caller.connect(SERVER, service="echo", timeout_s=4.0)
        assert not caller._peers

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
        assert await ask(peer, b"x") == b"x"
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


def test_a_goodbye_that_is_lost_is_made_up_for_by_a_reset():
    async def scenario(net):
        await net.server()
        caller = await net.host("caller")
        peer = await caller.connect(SERVER, service="echo")
        await asyncio.sleep(1)
        ended = []
        peer.on_close.append(ended.append)
        net.world.network.cut("server", "caller")
        await net.peers_seen[0].close()
        await asyncio.sleep(0.1)
        net.world.network.heal()
        assert not ended
        peer.open_stream().push(b"are you there?")
        await asyncio.sleep(ROUND_TRIP * 1.1)
        assert [type(error) for error in ended] == [PeerRestarted]

    run(scenario)


def test_a_process_that_stood_still_for_too_long_was_given_up_and_learns_of_it():
    async def scenario(net):
        await net.server()
        caller = await net.host("caller")
        peer = await caller.connect(SERVER, service="echo")
        await asyncio.sleep(1)
        theirs, ended = net.peers_seen[0], []
        peer.on_close.append(lambda error: ended.append(type(error)))
        net.world.pause("server")
        await asyncio.sleep(20)
        assert ended == [IdleTimeout]
        assert not theirs.closed
        net.world.resume("server")
        await asyncio.sleep(6)
        assert theirs.closed
        assert not net.hosts["server"]._peers
        assert await ask(await caller.connect(SERVER, service="echo"), b"x") == b"x"

    run(scenario, idle_timeout_s=15.0, keep_alive_s=5.0)


def test_a_dial_that_is_called_off_leaves_nothing_on_either_side():
    async def scenario(net):
        server = await net.server()
        caller = await net.host("caller")
        for after in (0.5, 1.0, 1.5, 2.5, 3.5):  # one-way trips
            dial = asyncio.create_task(caller.connect(SERVER, service="echo"))
            await asyncio.sleep(after * DELAY_S)
            dial.cancel()
            await asyncio.wait([dial])
            assert not caller._peers
        await asyncio.sleep(6)
        assert (server._half_open, len(server._peers)) == (0, 0)

    run(scenario)


def test_copies_of_old_datagrams_change_nothing():
    async def scenario(net):
        server = await net.server()
        caller = await net.host("caller")
        heard = overhear(server)
        peer = await caller.connect(SERVER, service="echo")
        assert await ask(peer, b"x" * 5_000) == b"x" * 5_000
        await asyncio.sleep(1)
        received = net.peers_seen[0].connection.received_packets
        server._receive(heard, caller._endpoint.address)
        assert net.peers_seen[0].connection.received_packets == received
        assert server.counters["replayed"] == sum(d[0] & packet.DATA > 0 for d in heard)
        assert await ask(peer, b"y") == b"y"
        await asyncio.sleep(6)
        assert (server._half_open, len(server._peers)) == (0, 1)

    run(scenario)
