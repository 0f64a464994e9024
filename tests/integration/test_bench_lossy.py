"""The emulated line of `ring bench transport --lossy`: it holds nothing back, and loses as told."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
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
    relay = lossy.Relay(echo.get_extra_info("sockname"), policy, seed=1)
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
    rate = lossy._goodput(lossy.OURS, "bbr", 0.01, 0.004, 0.5, tmp_path, 1)
    assert 0 < rate < lossy.RATE_BYTES_S


def test_a_line_holds_a_product_of_rate_and_round_trip():
    assert lossy.line(0.02, 0.1) == LinkPolicy(
        loss=0.02, delay_s=0.05, rate_bytes_s=12_500_000.0, queue_bytes=1_250_000
    )
    assert lossy.line(0.02, 0.001).queue_bytes == 60_000


class Goodput:
    """Takes the place of the runs: writes down which were asked for, and gives each a rate."""

    def __init__(self):
        self.asked = []

    def __call__(self, kind, control, loss, rtt_s, seconds, home, seed):
        who = kind if kind == "aioquic" else control
        self.asked.append((loss, rtt_s, seed, who))
        # The first run of each is an outlier, of which a median knows nothing.
        first = [asked[3] for asked in self.asked].count(who) == 1
        return {"aioquic": 1e6, "cubic": 2e6, "bbr": 8e6}[who] * (100 if first else 1)


@pytest.fixture
def goodput(monkeypatch):
    goodput = Goodput()
    monkeypatch.setattr(lossy, "_goodput", goodput)
    return goodput


def installed(monkeypatch, yes):
    monkeypatch.setattr(lossy, "_installed", lambda: yes)


def test_a_cell_is_the_median_of_several_runs_taken_in_turn(goodput, monkeypatch):
    installed(monkeypatch, True)
    report = lossy.run(peers=True, seconds=1.0)
    cells = [(loss, rtt_s) for loss in lossy.LOSSES for rtt_s in lossy.RTTS_S]
    assert lossy.ROUNDS >= 3
    assert goodput.asked == [
        # All three meet the same line, and the next round throws other dice.
        (loss, rtt_s, seed, who)
        for loss, rtt_s in cells
        for seed in range(1, lossy.ROUNDS + 1)
        for who in ("aioquic", "cubic", "bbr")
    ]
    assert [(row.ours, row.peer, row.theirs, row.note) for row in report.rows] == [
        (2.0, "aioquic", 1.0, ""),
        (8.0, "aioquic", 1.0, ""),
    ] * len(cells)


@pytest.mark.parametrize(
    ("peers", "shown"), [(True, ("aioquic", "aioquic is not installed")), (False, ("-", ""))]
)
def test_a_peer_is_missed_only_where_it_was_asked_for(goodput, monkeypatch, peers, shown):
    installed(monkeypatch, False)
    report = lossy.run(peers=peers, seconds=1.0)
    assert {(row.peer, row.note) for row in report.rows} == {shown}
    assert {row.theirs for row in report.rows} == {None}
    assert "aioquic" not in {who for *_, who in goodput.asked}


def test_who_was_not_asked_for_is_not_run(goodput, monkeypatch):
    installed(monkeypatch, True)
    lossy.run(peers=False, seconds=1.0)
    assert {who for *_, who in goodput.asked} == {"cubic", "bbr"}


def test_a_seed_is_a_line():
    async def losses(seed):
        relay = lossy.Relay(("127.0.0.1", 9), lossy.line(0.3, 0.01), seed)
        try:
            return [not list(relay._there.shape(b"x", 0.0)) for _ in range(100)]
        finally:
            relay.close()

    async def scenario():
        assert await losses(1) == await losses(1) != await losses(2)

    uvloop.run(scenario())
