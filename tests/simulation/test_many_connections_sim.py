"""A thousand connections on one endpoint, and a flood of strangers that they do not notice."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc

from host_kit import DELAY_S, FIRST_MESSAGE, ROUND_TRIP, SERVER, ask, run

from netstack.transport import packet
from netstack.transport.handshake import Initiator
from netstack.transport.host import Host

CONNECTIONS = 1000
CALLERS = 10

# Both ends of an idle connection that has been used, as tracemalloc counts; 15,600 were measured.
IDLE_PAIR_BYTES_MAX = 32_000


class Stranger:
    """Writes to the server from any address, and hears what it would have been sent."""

    def __init__(self, server: Host) -> None:
        self.server = server
        self.sent = 0
        self.answers: dict[tuple[str, int], list[bytes]] = {}
        self.answered = 0
        send = server._send

        def overheard(datagrams, destination, mark=0):
            if destination[0].startswith("127.66."):
                self.answers.setdefault(destination, []).extend(datagrams)
                self.answered += sum(map(len, datagrams))
            send(datagrams, destination, mark)

        server._send = overheard

    @staticmethod
    def address(number):
        return f"127.66.{number >> 8 & 255}.{number & 255}", 5000

    def say(self, number, data):
        self.sent += len(data)
        self.server._receive((data,), self.address(number))

    def knock(self, number, initiator):
        """With a good first message; whoever hears the RETRY at his address knocks again."""
        self.say(number, initiator.take()[0])
        for answer in self.answers.pop(self.address(number), ()):
            if answer[0] == packet.RETRY:
                initiator.receive(answer, 0.0)
                self.say(number, initiator.take()[0])


def test_a_thousand_dial_at_once_and_each_is_served_and_stays():
    """More than four times as many as there may be handshakes under way: the others wait."""

    async def scenario(net):
        server = await net.server()
        callers = [await net.host(f"caller-{i}") for i in range(CALLERS)]
        dials = [
            caller.connect(SERVER, service="echo", expect="server", timeout_s=20.0)
            for caller in callers
            for _ in range(CONNECTIONS // CALLERS)
        ]
        peers = await asyncio.gather(*dials)
        assert len(server._peers) == CONNECTIONS
        assert server.counters["half_open_refused"] > 0
        questions = [b"question %d" % i for i in range(CONNECTIONS)]
        asked = (ask(peer, q) for peer, q in zip(peers, questions, strict=True))
        assert await asyncio.gather(*asked) == questions
        assert server._half_open == 0
        await asyncio.sleep(20)  # longer than the idle time-out: signs of life keep them all
        assert not any(peer.closed for peer in peers)
        await asyncio.gather(*(peer.close() for peer in peers))
        await asyncio.sleep(1)
        assert not server._peers
        assert not any(caller._peers for caller in callers)
        await asyncio.sleep(20)
        assert not server._alarms  # nothing is left that would remember them

    run(scenario)


class _Unwalked(dict):
    """The connections of a host, for whom must be asked by name."""

    def values(self):
        raise AssertionError("all connections are walked")

    keys = items = __iter__ = values


def test_time_passes_without_a_look_at_those_for_whom_nothing_is_due():
    async def scenario(net):
        server, caller = await net.server(), await net.host("caller")
        peers = [await caller.connect(SERVER, service="echo") for _ in range(20)]
        await asyncio.sleep(1)  # the last acknowledgements have left
        for host in (server, caller):
            host._peers = _Unwalked(host._peers)
        looks = []
        for peer in peers[1:]:
            peer.connection.on_deadline = looks.append
        for i in range(100):
            assert await ask(peers[0], b"%d" % i) == b"%d" % i
        assert not looks  # two seconds and hundreds of timers, of one connection

    run(scenario)


def test_the_clock_is_read_once_for_a_train():
    async def scenario(net):
        server, caller = await net.server(), await net.host("caller")
        peer = await caller.connect(SERVER, service="echo")
        await ask(peer, b"x")
        await asyncio.sleep(1)
        train = [peer.connection.outgoing.seal(b"\x01") for _ in range(50)]
        readings = []
        now = server._now
        server._now = lambda: (readings.append(1), now())[1]
        server._receive(train, caller.address)
        assert len(readings) == 1
        await asyncio.sleep(0)  # and once for what leaves at the end of the turn
        assert len(readings) == 2

    run(scenario)


def test_a_silent_connection_costs_little_memory():
    async def scenario(net):
        await net.server()
        caller = await net.host("caller")

        async def dial_many(count):
            peers = [await caller.connect(SERVER, service="echo") for _ in range(count)]
            for peer in peers:
                assert await ask(peer, b"x" * 5000) == b"x" * 5000
            await asyncio.sleep(1)
            gc.collect()
            return peers

        kept = await dial_many(20)  # what is made once is made now
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            kept += await dial_many(50)
            each = (tracemalloc.get_traced_memory()[0] - before) / 50
        finally:
            tracemalloc.stop()
        assert each < IDLE_PAIR_BYTES_MAX

    run(scenario)


def test_a_flood_of_first_messages_leaves_nothing_and_is_answered_with_less():
    async def scenario(net):
        server, caller = await net.server(), await net.host("caller")
        old = await caller.connect(SERVER, service="echo")
        stranger = Stranger(server)
        for i in range(20_000):
            stranger.say(i, packet.initial(packet.INITIAL_XX, i, b"", FIRST_MESSAGE, 1200))
        assert await ask(old, b"still served") == b"still served"
        assert (len(server._peers), server._half_open) == (1, 0)
        assert 20 * stranger.answered < stranger.sent
        new = await caller.connect(SERVER, service="echo")
        assert await ask(new, b"and so are others") == b"and so are others"

    run(scenario)


def test_a_flood_from_addresses_that_can_receive_is_bounded_and_forgotten():
    """They show their tokens, so each costs a handshake's state, up to a limit; then they rest."""

    async def scenario(net):
        server, caller = await net.server(), await net.host("caller")
        old = await caller.connect(SERVER, service="echo")
        context = caller._context("echo", 77)
        stranger = Stranger(server)
        for i in range(300):
            stranger.knock(i, Initiator(context, remote_static=None, token=b"", now=0.0))
            if i % 100 == 0:
                began = net.world.now
                assert await ask(old, b"%d" % i) == b"%d" % i
                assert net.world.now - began < 2 * ROUND_TRIP
        await asyncio.sleep(DELAY_S)
        limit = net.config.max_half_open
        assert (server._half_open, len(server._peers)) == (limit, limit + 1)
        assert server.counters["half_open_refused"] == 300 - limit
        assert stranger.answered < stranger.sent
        await asyncio.sleep(net.config.handshake_timeout_s + 1)
        assert (server._half_open, len(server._peers), len(server._by_initial)) == (0, 1, 0)
        new = await caller.connect(SERVER, service="echo")
        assert await ask(new, b"there is room again") == b"there is room again"

    run(scenario, max_half_open=64)
