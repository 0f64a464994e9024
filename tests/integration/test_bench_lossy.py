"""The emulated line of `ring bench transport --lossy`: it holds nothing back, and loses as told."""

from __future__ import annotations

import asyncio
import contextlib

import uvloop

from cluster.bench import lossy
from cluster.bench.transport import make_identities
from netstack.runtime.policy import LinkPolicy


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.transport.sendto(data, addr)


class Caller(asyncio.DatagramProtocol):
    def __init__(self):
        self.came = asyncio.Queue()

    def datagram_received(self, data, addr):
        self.came.put_nowait(data)


@contextlib.asynccontextmanager
async def relayed(policy):
    """A relay to an echo: (relay, caller's transport, what comes back)."""
    loop = asyncio.get_running_loop()
    echo, _ = await loop.create_datagram_endpoint(Echo, ("127.0.0.1", 0))
    relay = lossy.Relay(echo.get_extra_info("sockname"), policy)
    to = ("127.0.0.1", relay.port)
    caller, protocol = await loop.create_datagram_endpoint(Caller, remote_addr=to)
    try:
        yield relay, caller, protocol.came
    finally:
        for one in (echo, relay, caller):
            one.close()


def on_its_loop(scenario):
    """The loop that the relay runs on in earnest: its timers may be early by a millisecond."""

    def test():
        uvloop.run(scenario())

    test.__name__ = scenario.__name__
    return test


@on_its_loop
async def test_each_packet_comes_though_none_follows_to_push_it():
    async with relayed(LinkPolicy(delay_s=0.0015, rate_bytes_s=1e6)) as (_, caller, came):
        for i in range(50):
            caller.sendto(b"%d" % i)
            assert await asyncio.wait_for(came.get(), 20) == b"%d" % i


@on_its_loop
async def test_a_train_comes_in_order():
    sent = [b"%d" % i for i in range(40)]
    async with relayed(LinkPolicy(delay_s=0.003, rate_bytes_s=1e6)) as (_, caller, came):
        for data in sent:
            caller.sendto(data)
        assert [await asyncio.wait_for(came.get(), 20) for _ in sent] == sent


@on_its_loop
async def test_it_loses_what_it_counts_as_lost():
    async with relayed(LinkPolicy(loss=0.3)) as (relay, caller, came):
        there, back = relay._there.counts, relay._back.counts
        for i in range(300):
            caller.sendto(b"%d" % i)
            await asyncio.sleep(0)
        for _ in range(20_000):
            if back["passed"] + back["dropped"] == there["passed"] == 300 - there["dropped"]:
                break
            await asyncio.sleep(0.001)
        got = [await asyncio.wait_for(came.get(), 20) for _ in range(back["passed"])]
    assert len(set(got)) == back["passed"]
    assert 40 < there["dropped"] < 150


def test_goodput_is_what_has_arrived_and_no_more_than_the_line_carries(tmp_path):
    make_identities(tmp_path)
    rate = lossy._goodput(lossy.OURS, "bbr", 0.01, 0.004, 0.5, tmp_path)
    assert 0 < rate < lossy.RATE_BYTES_S


def test_a_line_holds_a_product_of_rate_and_round_trip():
    assert lossy.line(0.02, 0.1) == LinkPolicy(
        loss=0.02, delay_s=0.05, rate_bytes_s=12_500_000.0, queue_bytes=1_250_000
    )
    assert lossy.line(0.02, 0.001).queue_bytes == 60_000
