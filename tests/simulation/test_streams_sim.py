"""Streams as an application holds them: waiting, ending, giving up; on good and on bad lines."""

from __future__ import annotations

import asyncio

import pytest
from host_kit import SERVER, ask, run

from netstack.transport.errors import TransportError


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
        assert 400_000 <= stuck <= 200_000 + 400_000  # the reader's window, the writer's buffer
        assert not task.done()
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


def test_a_writer_that_waits_is_told_when_the_reader_gives_up():
    async def scenario(net):
        kept = []
        await net.host("server", SERVER, lambda peer: setattr(peer, "on_stream", kept.append))
        caller = await net.host("caller")
        peer = await caller.connect(SERVER, service="echo")
        writing = asyncio.create_task(peer.open_stream().write(bytes(2_000_000)))
        await asyncio.sleep(5)
        assert not writing.done()
        kept[0].reset(9)
        with pytest.raises(TransportError, match="code 9"):
            await writing

    run(scenario, stream_window=200_000, stream_buffer=400_000)


@pytest.mark.parametrize("fin", [False, True], ids=["open both ways", "ended by the caller"])
def test_who_is_given_up_is_told_once_and_who_gave_up_is_not_told(fin):
    async def scenario(net):
        accepted = []
        told = {"caller": [], "server": []}

        def opened(stream):
            accepted.append(stream)
            stream.on_reset = told["server"].append

        await net.host("server", SERVER, lambda peer: setattr(peer, "on_stream", opened))
        caller = await net.host("caller")
        peer = await caller.connect(SERVER, service="echo")
        stream = peer.open_stream()
        stream.on_reset = told["caller"].append
        stream.push(b"x", fin=fin)
        await asyncio.sleep(1)
        accepted[0].reset(9)
        await asyncio.sleep(1)
        assert told == {"caller": [9], "server": []}
        with pytest.raises(TransportError, match="code 9"):
            await stream.read()

    run(scenario)


@pytest.mark.parametrize("way", ["reset", "stop"])
def test_one_direction_given_up_is_told_once(way):
    async def scenario(net):
        accepted, codes = [], []
        await net.host("server", SERVER, lambda peer: setattr(peer, "on_stream", accepted.append))
        caller = await net.host("caller")
        peer = await caller.connect(SERVER, service="echo")
        stream = peer.open_stream()
        stream.on_reset = codes.append
        stream.push(b"x")
        await asyncio.sleep(1)
        theirs = accepted[0].peer
        getattr(theirs.connection.streams, way)(stream.id, 9)
        theirs.touch()
        await asyncio.sleep(1)
        assert codes == [9]

    run(scenario)


def test_both_give_up_at_once_and_neither_is_told_that_the_other_did():
    """Who has given up does not wait for anything any more."""

    async def scenario(net):
        accepted, codes = [], []
        await net.host("server", SERVER, lambda peer: setattr(peer, "on_stream", accepted.append))
        caller = await net.host("caller")
        peer = await caller.connect(SERVER, service="echo")
        stream = peer.open_stream()
        stream.push(b"x")
        await asyncio.sleep(1)
        for one in (stream, accepted[0]):
            one.on_reset = codes.append
            one.reset(9)
        await asyncio.sleep(1)
        assert codes == []
        assert not peer._streams

    run(scenario)


def test_a_stream_that_is_over_is_forgotten():
    async def scenario(net):
        await net.server()
        caller = await net.host("caller")
        peer = await caller.connect(SERVER, service="echo")
        for _ in range(100):
            await ask(peer, b"x")
        await asyncio.sleep(1)
        assert len(peer.connection.streams) == 0
        assert (len(peer._streams), len(net.peers_seen[0]._streams)) == (0, 0)

    run(scenario)


@pytest.mark.parametrize("data", [b"", b"all of it"])
def test_a_receiver_set_late_is_told_of_the_end(data):
    async def scenario(net):
        kept, got = [], []
        await net.host("server", SERVER, lambda peer: setattr(peer, "on_stream", kept.append))
        peer = await (await net.host("caller")).connect(SERVER, service="echo")
        stream = peer.open_stream()
        stream.push(data)
        await asyncio.sleep(0.1)
        stream.push(b"", fin=True)
        await asyncio.sleep(0.1)
        if data:
            assert await kept[0].read() == data
        kept[0].receiver = lambda data, fin: got.append((data, fin))
        assert got == [(b"", True)]

    run(scenario)


def test_streams_that_are_given_up_cost_no_credit_of_the_connection():
    async def scenario(net):
        await net.server()
        caller = await net.host("caller")
        peer = await caller.connect(SERVER, service="echo")
        await asyncio.sleep(0.1)
        for _ in range(20):
            stream = peer.open_stream()
            stream.receiver = lambda data, fin: None
            net.world.network.cut("caller", "server")
            stream.push(bytes(10_000))
            await asyncio.sleep(0.01)
            stream.reset()
            net.world.network.heal()
            await asyncio.sleep(0.5)
        answer = await asyncio.wait_for(ask(peer, b"x" * 1_000), 10.0)
        assert answer == b"x" * 1_000

    run(scenario, connection_window=100_000)


@pytest.mark.parametrize("where", ["on_stream", "receiver"])
def test_a_callback_that_raises_costs_its_own_connection_and_no_other(where):
    async def scenario(net):
        def opened(stream):
            if where == "on_stream":
                raise ZeroDivisionError
            stream.receiver = lambda data, fin: 1 // 0 if data == b"bad" else stream.push(data)

        def seen(peer):
            peer.on_stream = opened if where == "receiver" or not net.peers_seen else None
            net.peers_seen.append(peer)
            if peer.on_stream is None:
                peer.on_stream = lambda stream: setattr(
                    stream, "receiver", lambda data, fin: stream.push(data, fin=fin)
                )

        server = await net.host("server", SERVER, seen)
        bad = await (await net.host("first")).connect(SERVER, service="echo")
        stream = bad.open_stream()
        stream.push(b"bad")
        with pytest.raises(TransportError, match="a bug on the other side"):
            await stream.read()
        assert server.counters["callback_errors"] == 1
        good = await (await net.host("second")).connect(SERVER, service="echo")
        other = good.open_stream()
        other.push(b"good")
        assert await other.read() == b"good"
        assert '"transport.callback_error"' in net.world.log

    run(scenario)
