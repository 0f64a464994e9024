"""The three presets over a simulated network: what each promises, and what it does not."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from presets_kit import DELAY_S, SERVER, read_all, run

from netstack.presets.bytestream import CLOSED, LOST, REFUSED, StreamReset
from netstack.presets.datagrams import DIALLING_MAX, PAYLOAD_MAX, RECEIVED_MAX
from netstack.presets.jitter import JitterBuffer
from netstack.presets.media import MediaReceiver, MediaSender
from netstack.presets.rtp import RtpPacket, encode
from netstack.transport.config import TransportConfig

NOBODY = ("127.0.0.1", 9)


class TestDatagrams:
    def test_keep_their_boundaries(self):
        async def scenario(net):
            server, client = await net.datagrams("server", SERVER), await net.datagrams("client")
            messages = [b"a", b"", b"b" * PAYLOAD_MAX, b"c"]
            for message in messages:
                client.send(message, SERVER)
            assert [(await server.receive())[0] for _ in messages] == messages

        run(scenario)

    def test_are_answered_at_the_address_they_came_from(self):
        async def scenario(net):
            server, client = await net.datagrams("server", SERVER), await net.datagrams("client")
            client.send(b"ping", SERVER)
            data, source = await server.receive()
            assert (data, source) == (b"ping", client.address)
            server.send(b"pong", source)
            assert await client.receive() == (b"pong", SERVER)

        run(scenario)

    def test_that_are_lost_are_not_sent_again_and_hold_up_nothing(self):
        async def scenario(net):
            server, client = await net.datagrams("server", SERVER), await net.datagrams("client")
            await client.reach(SERVER)
            client.send(b"first", SERVER)
            await server.receive()
            net.world.network.cut("client", "server")
            client.send(b"lost", SERVER)
            await asyncio.sleep(0.001)
            net.world.network.heal()
            began = net.world.now
            client.send(b"second", SERVER)
            assert (await server.receive())[0] == b"second"
            assert net.world.now - began == pytest.approx(DELAY_S)
            await asyncio.sleep(5)
            assert not server._received

        run(scenario)

    def test_overtake_and_are_overtaken(self):
        async def scenario(net):
            server, client = await net.datagrams("server", SERVER), await net.datagrams("client")
            await client.reach(SERVER)
            for i in range(100):
                client.send(b"%d" % i, SERVER)
                await asyncio.sleep(0.001)
            got = [int((await server.receive())[0]) for _ in range(100)]
            assert sorted(got) == list(range(100))
            assert got != sorted(got)

        run(scenario, reorder=0.3)

    def test_arrive_once_on_a_link_that_doubles(self):
        async def scenario(net):
            server, client = await net.datagrams("server", SERVER), await net.datagrams("client")
            for i in range(10):
                client.send(b"%d" % i, SERVER)
            await asyncio.sleep(1)
            assert [data for data, _ in server._received] == [b"%d" % i for i in range(10)]

        run(scenario, duplicate=1.0)

    def test_have_no_congestion_control_that_delays_them(self):
        """Half are overtaken: a controller would take that for loss, and hold others back."""

        async def scenario(net):
            server, client = await net.datagrams("server", SERVER), await net.datagrams("client")
            await client.reach(SERVER)
            loop, delays = asyncio.get_running_loop(), []
            receiving = asyncio.ensure_future(_delays(server, loop, delays, 200))
            for _ in range(200):
                client.send((b"%r" % loop.time()).ljust(1_000), SERVER)
                await asyncio.sleep(0.002)
            await receiving
            assert max(delays) <= DELAY_S + 0.1 + 1e-6

        run(scenario, reorder=0.5, reorder_s=0.1)

    def test_to_nobody_are_counted_and_given_up(self):
        async def scenario(net):
            client = await net.datagrams("client")
            for _ in range(DIALLING_MAX + 3):
                client.send(b"x", NOBODY)
            await asyncio.sleep(10)
            assert client.counters == {"dropped_while_dialling": 3, "nobody_there": DIALLING_MAX}
            client.send(b"x", NOBODY)  # it is tried anew

        run(scenario)

    def test_that_nobody_reads_are_dropped_beyond_a_bound(self):
        async def scenario(net):
            server, client = await net.datagrams("server", SERVER), await net.datagrams("client")
            await client.reach(SERVER)
            for _ in range(RECEIVED_MAX + 50):
                client.send(b"x", SERVER)
                await asyncio.sleep(0.0001)
            await asyncio.sleep(1)
            assert len(server._received) == RECEIVED_MAX
            assert server.counters == {"dropped_unread": 50}

        run(scenario)

    def test_too_large_for_a_packet_are_refused_at_once(self):
        async def scenario(net):
            client = await net.datagrams("client")
            with pytest.raises(ValueError, match=f"{PAYLOAD_MAX} are the most"):
                client.send(bytes(PAYLOAD_MAX + 1), SERVER)

        run(scenario)

    def test_of_a_stranger_are_not_taken(self):
        async def scenario(net):
            server = await net.datagrams("server", SERVER)
            stranger = await net.datagrams("stranger", service="other")
            stranger.send(b"let me in", SERVER)
            await asyncio.sleep(5)
            assert not server._received

        run(scenario)


async def _delays(server, loop, delays, count):
    for _ in range(count):
        data, _ = await server.receive()
        delays.append(loop.time() - float(data))


class TestByteStream:
    def test_knows_where_its_other_end_is(self):
        async def scenario(net):
            here, there = await net.pair()
            assert SERVER in (here.address, there.address)
            assert here.address != there.address

        run(scenario)

    def test_carries_bytes_in_order_once_over_a_bad_link(self):
        async def scenario(net):
            here, there = await net.pair()
            data = net.world.rng.randbytes(300_000)
            reading = asyncio.ensure_future(read_all(there))
            for start in range(0, len(data), 7_000):
                await here.write(data[start : start + 7_000])
            here.finish()
            assert await reading == data

        run(scenario, loss=0.05, duplicate=0.05, reorder=0.1)

    def test_is_opened_by_who_connects_though_the_other_speaks_first(self):
        async def scenario(net):
            here, there = await net.pair()
            await there.write(b"220 welcome")
            assert await here.read() == b"220 welcome"

        run(scenario)

    def test_half_closed_one_way_carries_on_the_other(self):
        async def scenario(net):
            here, there = await net.pair()
            await here.write(b"question")
            here.finish()
            assert await read_all(there) == b"question"
            for part in (b"a long ", b"answer"):
                await there.write(part)
                await asyncio.sleep(1)
            there.finish()
            assert await read_all(here) == b"a long answer"
            assert (here.error, there.error) == (None, None)

        run(scenario)

    def test_reset_breaks_both_directions_at_the_other_end_with_its_code(self):
        async def scenario(net):
            here, there = await net.pair()
            told = []
            there.on_reset = told.append
            reading = asyncio.ensure_future(read_all(there))
            await here.write(bytes(100_000))
            here.abort(77)
            with pytest.raises(StreamReset) as caught:
                await reading
            assert caught.value.code == 77
            assert [error.code for error in told] == [77]
            with pytest.raises(StreamReset):
                await there.write(b"x")
            with pytest.raises(StreamReset):
                await here.read()

        run(scenario)

    def test_closed_answers_what_still_comes_by_a_reset(self):
        async def scenario(net):
            here, there = await net.pair()
            await here.write(b"last words")
            here.close()
            assert await read_all(there) == b"last words"
            await there.write(b"an answer that nobody reads")
            await asyncio.sleep(1)
            with pytest.raises(StreamReset) as caught:
                await there.write(b"x")
            assert caught.value.code == CLOSED

        run(scenario)

    def test_closed_at_both_ends_leaves_nothing_behind(self):
        async def scenario(net):
            server = await net.streams("server", SERVER, backlog=4)
            client = await net.streams("client")
            for _ in range(20):
                accepting = asyncio.ensure_future(server.accept())
                here = await client.connect(SERVER)
                there = await accepting
                here.close()
                there.close()
            await asyncio.sleep(1)
            for socket in (server, client):
                ((peer, streams),) = socket._open.items()
                assert not streams
                assert not peer._streams
                assert len(peer.connection.streams) == 0

        run(scenario)

    def test_is_refused_where_nobody_accepts(self):
        async def scenario(net):
            await net.streams("server", SERVER)
            client = await net.streams("client")
            with pytest.raises(StreamReset, match="nobody accepts") as caught:
                await client.connect(SERVER)
            assert caught.value.code == REFUSED

        run(scenario)

    def test_is_refused_beyond_the_backlog(self):
        async def scenario(net):
            await net.streams("server", SERVER, backlog=2)
            client = await net.streams("client")
            tries = [asyncio.ensure_future(client.connect(SERVER)) for _ in range(5)]
            await asyncio.sleep(1)
            assert sum(task.done() for task in tries) == 3  # refused; two wait to be accepted
            ends = await asyncio.gather(*tries, return_exceptions=True)
            assert sorted(end.code for end in ends) == [LOST, LOST, REFUSED, REFUSED, REFUSED]

        run(scenario)

    def test_to_nobody_is_told_so_in_time(self):
        async def scenario(net):
            client = await net.streams("client")
            with pytest.raises(StreamReset, match=r"no answer from 127\.0\.0\.1:9"):
                await client.connect(NOBODY)

        run(scenario)

    def test_breaks_when_the_other_end_was_killed_and_a_new_one_can_be_had(self):
        async def scenario(net):
            here, _ = await net.pair()
            told = []
            here.on_reset = told.append
            net.world.crash("server")
            net.world.nodes.pop("server")
            again = await net.streams("server", SERVER, backlog=4)
            await here.write(b"are you there?")
            await asyncio.sleep(1)
            assert [error.code for error in told] == [LOST]
            with pytest.raises(StreamReset):
                await here.read()
            accepting = asyncio.ensure_future(again.accept())
            second = await net.sockets["client"].connect(SERVER)
            await second.write(b"hello again")
            assert await (await accepting).read() == b"hello again"

        run(scenario)

    def test_holds_a_writer_back_while_nobody_reads(self):
        async def scenario(net):
            config = TransportConfig(stream_window=50_000, stream_buffer=100_000)
            here, there = await net.pair(config=config)
            data = bytes(500_000)
            writing = asyncio.ensure_future(here.write(data))
            await asyncio.sleep(5)
            assert not writing.done()
            assert here._stream.buffered <= 100_000
            here_done = asyncio.ensure_future(_finish(here, writing))
            assert len(await read_all(there)) == len(data)
            await here_done

        run(scenario)


async def _finish(stream, writing):
    await writing
    stream.finish()


async def media(net, delays, *, segments, headway=160, clock_rate=8000):
    """Payloads played, the receiver, for segments that are held up by `delays` (ms)."""
    server, client = await net.datagrams("server", SERVER), await net.datagrams("client")
    await client.reach(SERVER)
    await asyncio.sleep(1)
    slots = []
    receiver = MediaReceiver(
        net.runtimes["server"],
        server,
        JitterBuffer(segments, headway),
        clock_rate=clock_rate,
        play=slots.append,
    )
    sender = MediaSender(
        net.runtimes["client"], client, SERVER, clock_rate=clock_rate, headway=headway
    )
    sender._sequence, sender._timestamp = 0xFFFE, 0xFFFFFF00  # both wrap, soon
    loop = asyncio.get_running_loop()
    send = client.send
    client.send = lambda data, to: loop.call_later(next(held) / 1000, send, data, to)
    held = iter(delays)
    await sender.stream(b"%d" % i for i in range(len(delays)))
    await asyncio.sleep(0.5 + segments * headway / clock_rate)
    return slots[: len(delays)], receiver


class TestMedia:
    def test_is_played_in_step_across_the_wrap_of_sequence_and_timestamp(self):
        async def scenario(net):
            delays = [0, 99, 0, 60, 99, 0, 0, 99, 50, 0]
            slots, receiver = await media(net, delays, segments=5)
            assert [slot.payload for slot in slots] == [b"%d" % i for i in range(10)]
            assert {b.due - a.due for a, b in pairwise(slots)} == {160}
            assert receiver.buffer.late == 0
            stats = receiver.stats()
            assert (stats["spread_ms"], stats["segments_needed"]) == (99, 5)

        run(scenario)

    def test_has_a_gap_with_a_segment_less_in_the_buffer(self):
        async def scenario(net):
            slots, receiver = await media(net, [0, 99, 0, 0], segments=4)
            assert [slot.payload for slot in slots] == [b"0", None, b"2", b"3"]
            assert receiver.buffer.late == 1

        run(scenario)

    def test_of_another_source_and_what_is_no_media_is_counted_and_not_played(self):
        async def scenario(net):
            server, client = await net.datagrams("server", SERVER), await net.datagrams("client")
            played = []
            receiver = MediaReceiver(
                net.runtimes["server"], server, JitterBuffer(1, 160), clock_rate=8000,
                play=played.append,
            )  # fmt: skip
            client.send(encode(RtpPacket(1, 0, source=7, payload=b"mine")), SERVER)
            await asyncio.sleep(0.1)
            client.send(encode(RtpPacket(2, 160, source=8, payload=b"not mine")), SERVER)
            client.send(b"junk", SERVER)
            await asyncio.sleep(0.1)
            assert [slot.payload for slot in played if slot.payload] == [b"mine"]
            assert receiver.counters == {"other_sources": 1, "malformed": 1}
            receiver.stop()

        run(scenario)
