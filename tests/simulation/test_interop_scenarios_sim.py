"""The scenarios of the QUIC interop runner, by their names and with their parameters.

Each is one test `test_NAME_…` over two Hosts and the runner's line (interop_kit.py), judged by the
wire; handshakecorruption is in test_interop_corruption_sim.py. NOT_HERE says which are not ours,
and why. Where a scenario asks for something of QUIC that this transport has in another form, that
is what is tested:

    handshake      the runner wants no Retry; here a stranger's address is always asked for
    retry          so every first dial is this scenario
    resumption     there are no tickets: a later dial is shorter because the address token and the
                   peer's key are known (IK); certificates are shown each time all the same
    keyupdate      each direction changes its key by its own count of packets; the runner has one
                   side begin and the other follow
    amplification  the droplist takes what goes to the server, the 2nd to the 7th; the certificates
                   of nine authorities are left out: an answer is one datagram here
    rebind         what is under way to the old address is lost, as at a router that forgot
    migration      a server has no preferred address to offer, and ids do not change: the client
                   moves to another address by itself, and its old one goes on hearing
    crosstraffic   the other flow is a connection of ours with CUBIC, as there is no TCP in a world
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from pathlib import Path

import pytest
from host_kit import SERVER
from interop_kit import (
    BANDWIDTH_BITS_S,
    DELAY_S,
    HEADERS_BYTES,
    KB,
    MB,
    PAYLOAD_MAX,
    Blackhole,
    CorruptRate,
    Droplist,
    DropRate,
    faults,
    fetch,
    fifty_connections,
    move,
    run,
)

from netstack.transport import packet

NOT_HERE = {
    "versionnegotiation": "there is one version; another does not decrypt",
    "v2": "the same",
    "zerortt": "no data leaves before the handshake: what can be replayed is nothing",
    "http3": "another protocol's test; files are fetched by hq-interop's idea here too",
    "ipv6": "a node lives on a loopback address of IPv4",
}

SCENARIOS = (
    *("handshake", "transfer", "longrtt", "chacha20", "multiplexing", "retry", "resumption"),
    *("amplificationlimit", "blackhole", "keyupdate", "handshakeloss", "transferloss"),
    *("handshakecorruption", "transfercorruption", "ecn", "rebind-port", "rebind-addr"),
    *("connectionmigration", "goodput", "crosstraffic"),
)

RIVAL = ("127.0.0.1", 7001)

# The share of the line that payload can have: what headers, tags and frames leave of it.
PAYLOAD_SHARE = (PAYLOAD_MAX - packet.OVERHEAD - 17) / (PAYLOAD_MAX + HEADERS_BYTES)


def test_every_scenario_of_the_runner_is_here_or_has_its_reason():
    files = Path(__file__).parent.glob("test_interop_*_sim.py")
    ours = re.findall(r"^def test_(\w+)", "".join(f.read_text() for f in files), re.MULTILINE)
    for name in SCENARIOS:
        assert any(test.startswith(name.replace("-", "_") + "_") for test in ours), name
    assert not set(SCENARIOS) & set(NOT_HERE)


def test_handshake_is_one_and_brings_a_file():
    async def scenario(site):
        _, _, peer = await site.dial()
        assert site.world.now == pytest.approx(5 * DELAY_S, abs=0.01)
        await fetch(peer, KB)
        assert site.wire.handshakes() == 1
        assert site.wire.amplification() < 3

    run(scenario)


def test_transfer_of_three_files_at_once_grows_its_windows():
    """Small windows at first: credit must be given back many times."""

    async def scenario(site):
        _, _, peer = await site.dial()
        await asyncio.gather(*(fetch(peer, size * MB) for size in (2, 3, 5)))
        assert site.wire.handshakes() == 1

    run(scenario, stream_window=64 * KB, connection_window=128 * KB)


def test_longrtt_one_handshake_in_spite_of_the_initials_sent_again():
    async def scenario(site):
        _, _, peer = await site.dial()
        assert site.world.now == pytest.approx(5 * 0.750, abs=0.1)
        await fetch(peer, KB)
        assert len(site.wire.of(packet.INITIAL_XX)) >= 2
        assert site.wire.handshakes() == 1
        await asyncio.sleep(10)
        assert len(site.hosts["server"]._peers) == 1

    run(scenario, delay_s=0.750)


def test_chacha20_carries_a_transfer():
    async def scenario(site):
        _, _, peer = await site.dial()
        await fetch(peer, 3 * MB)
        sessions = [c._session for c in (peer.connection, site.peers_seen[0].connection)]
        assert [s._suite for s in sessions] == ["ChaChaPoly"] * 2
        assert site.wire.handshakes() == 1

    run(scenario, suite="ChaChaPoly")


def test_multiplexing_of_1999_files_through_1000_streams_at_a_time():
    async def scenario(site):
        _, _, peer = await site.dial()
        streams, asking, most = peer.connection.streams, [], 0
        while len(asking) < 1999:
            more = min(streams.allowed, 1999 - len(asking))
            asking += [asyncio.create_task(fetch(peer, 32)) for _ in range(more)]
            await asyncio.sleep(DELAY_S)  # each opens its stream at once
            most = max(most, len(streams))
        await asyncio.gather(*asking)
        assert most == 1000
        assert site.wire.handshakes() == 1
        await asyncio.sleep(1)
        assert not len(streams) + len(site.peers_seen[0].connection.streams)

    run(scenario, max_streams=1000)


def test_retry_is_answered_with_its_token_and_costs_no_state():
    async def scenario(site):
        server, client = await site.server(), await site.client()
        dial = asyncio.create_task(client.connect(SERVER, service="echo"))
        await asyncio.sleep(1.9 * DELAY_S)
        assert not server._peers  # the RETRY is under way, and nobody is remembered
        peer = await dial
        await fetch(peer, 10 * KB)
        bare, shown = site.wire.of(packet.INITIAL_XX)
        (retry,) = site.wire.of(packet.RETRY)
        token = retry.head[packet.SHORT.size :]
        assert packet.parse_initial(bare.head)[1] == b""
        assert packet.parse_initial(shown.head)[1] == token
        assert site.wire.handshakes() == 1

    run(scenario)


def test_resumption_saves_a_round_trip_and_two_messages():
    async def scenario(site):
        _, client, peer = await site.dial()
        await fetch(peer, 5 * KB)
        await peer.close()
        began, before = site.world.now, len(site.wire.seen)
        again = await client.connect(SERVER, service="echo")
        assert site.world.now - began == pytest.approx(2 * DELAY_S, abs=0.005)
        await fetch(again, 10 * KB)
        kinds = {s.kind for s in site.wire.seen[before:]} - {packet.DATA}
        assert kinds - {packet.RESET} == {packet.INITIAL_IK, packet.RESPONSE}
        assert site.wire.handshakes() == 2

    run(scenario)


def test_amplificationlimit_is_kept_while_the_client_cannot_get_through():
    async def scenario(site):
        _, _, peer = await site.dial()
        assert site.up.fault.count > 7
        await fetch(peer, 5 * KB)
        assert site.wire.count("lost") == 6
        assert site.wire.amplification() < 1  # three times would be allowed
        assert site.wire.handshakes() == 1

    run(scenario, Droplist(2, 3, 4, 5, 6, 7), handshake_timeout_s=30.0)


def test_blackhole_of_two_seconds_is_sat_out():
    async def scenario(site):
        _, _, peer = await site.dial()
        await fetch(peer, 10 * MB)
        assert site.wire.handshakes() == 1
        assert site.wire.count("lost") > 10
        # What the line could carry, the hole, at most as long again to notice its end (probes are
        # sent at doubling intervals: the last may just have missed it), and a new slow start.
        line_s = 10 * MB * 8 / BANDWIDTH_BITS_S / PAYLOAD_SHARE
        assert site.world.now < line_s + 2 + 2 + 0.5

    hole = Blackhole(5.0, 2.0)
    run(scenario, hole, hole)


def test_keyupdate_within_the_first_megabyte_by_both_sides():
    async def scenario(site):
        _, _, peer = await site.dial()
        ends = peer.connection, site.peers_seen[0].connection
        for connection in ends:
            connection._session._rekey_after = 300
        await fetch(peer, 3 * MB)
        for to_server in (True, False):
            sealed = site.wire.of(packet.DATA, to_server=to_server)
            phases = [s.kind & packet.PHASE_BIT for s in sealed]
            assert 1 in phases[: MB // 1472]  # within the first megabyte
            assert 0 in phases
        assert site.wire.handshakes() == 1
        assert not any(connection._session.tampered for connection in ends)

    run(scenario)


@pytest.mark.parametrize("seed", range(3))
def test_handshakeloss_fifty_connections_with_three_tenths_lost(seed):
    site = fifty_connections(faults(DropRate, 0.30, 3, seed=seed))
    assert 0.25 < site.wire.count("lost") / len(site.wire.seen) < 0.35
    assert site.wire.handshakes() == 50


@pytest.mark.parametrize("seed", range(3))
def test_transferloss_of_two_percent_in_bursts(seed):
    async def scenario(site):
        _, _, peer = await site.dial()
        await fetch(peer, 2 * MB)
        assert site.wire.count("lost") > 20
        assert site.wire.handshakes() == 1
        assert site.world.now < 60

    run(scenario, *faults(DropRate, 0.02, 3, seed=seed))


@pytest.mark.parametrize("seed", range(3))
def test_transfercorruption_of_two_percent_in_bursts(seed):
    async def scenario(site):
        server, client, peer = await site.dial()
        await fetch(peer, 2 * MB)
        assert site.wire.count("damaged") > 20
        assert site.world.now < 60
        # What was damaged was noticed, at whichever end it arrived.
        assert sum(server.counters.values()) + sum(client.counters.values()) > 20

    run(scenario, *faults(CorruptRate, 0.02, 3, seed=seed))


def test_ecn_is_sent_by_both_counted_by_both_and_no_mark_is_invented():
    async def scenario(site):
        _, _, peer = await site.dial()
        await fetch(peer, 100 * KB)
        await asyncio.sleep(1)
        for to_server in (True, False):
            sealed = site.wire.of(packet.DATA, to_server=to_server)
            assert {s.mark for s in sealed} == {2}
        for connection in (peer.connection, site.peers_seen[0].connection):
            assert connection.outgoing.ecn.capable  # the other's counts have come, and add up
            assert connection.acks.ect0 > 0
            assert connection.acks.ce == connection.outgoing.ecn.marks == 0

    run(scenario)


@pytest.mark.parametrize("congestion", ["newreno", "cubic", "dctcp"])
def test_ecn_marks_of_a_queue_take_the_place_of_drops(congestion):
    """Beyond the runner: a line that marks at five packets."""

    async def scenario(site):
        _, _, peer = await site.dial()
        await fetch(peer, 3 * MB)
        theirs = site.peers_seen[0].connection
        assert theirs.outgoing.ecn.marks > 10
        await asyncio.sleep(0.1)  # the last acknowledgements are on their way
        assert peer.connection.acks.ce == theirs.outgoing.ecn.marks
        return site.wire.count("queue full")

    assert run(scenario, mark_packets=5, congestion=congestion, pacing=True) <= 10


async def transfer_while_rebound(site, hosts):
    """First after 1 s, then every 5 s; each new path is asked for an answer, and gets used."""
    server, client, peer = await site.dial()
    paths = [client.address]

    async def router():
        await asyncio.sleep(1.0)
        while True:
            await site.rebind(client, hosts[len(paths) % len(hosts)])
            paths.append(client.address)
            await asyncio.sleep(5.0)

    forgetful = asyncio.create_task(router())
    await fetch(peer, 10 * MB)
    forgetful.cancel()
    await asyncio.sleep(1)
    assert len(paths) >= 3
    assert site.wire.handshakes() == 1
    assert site.peers_seen[0].address == client.address
    down = [s for s in site.wire.seen if not s.to_server]
    assert list(dict.fromkeys(s.client for s in down)) == paths  # each in its turn, none twice
    assert server.counters["challenges"] >= len(paths) - 1
    assert site.world.log.count('"transport.moved"') == len(paths) - 1
    for path in paths[1:]:
        first = next(s for s in down if s.client == path)
        assert first.size == packet.OVERHEAD + 9  # a CHALLENGE alone


def test_rebind_port_first_after_one_second_then_every_five():
    async def scenario(site):
        await transfer_while_rebound(site, ["127.0.0.1"])

    run(scenario)


def test_rebind_addr_first_after_one_second_then_every_five():
    async def scenario(site):
        await transfer_while_rebound(site, [f"127.0.0.{i}" for i in range(2, 9)])

    run(scenario)


def test_connectionmigration_of_a_client_that_moves_by_itself_loses_nothing():
    async def scenario(site):
        server, client, peer = await site.dial()
        old = client._endpoint
        fetching = asyncio.create_task(fetch(peer, 2 * MB))
        await asyncio.sleep(0.8)
        await move(client, ("127.0.0.2", 4321))
        await fetching
        old.close()
        assert site.peers_seen[0].address == ("127.0.0.2", 4321)
        assert server.counters["challenges"] == 1
        assert site.wire.handshakes() == 1
        assert site.wire.count("lost") == 0

    run(scenario)


@pytest.mark.parametrize("congestion", ["newreno", "cubic", "bbr"])
def test_goodput_of_ten_megabytes_is_near_what_the_line_has(congestion):
    async def scenario(site):
        _, _, peer = await site.dial()
        began = site.world.now
        await fetch(peer, 10 * MB)
        return 10 * MB * 8 / (site.world.now - began)

    goodput = run(scenario, congestion=congestion, pacing=True)
    assert 0.9 < goodput / (BANDWIDTH_BITS_S * PAYLOAD_SHARE) <= 1


def test_crosstraffic_leaves_a_flow_its_share_beside_cubic():
    async def scenario(site):
        _, _, peer = await site.dial()
        site.config = replace(site.config, congestion="cubic")
        await site.server("rival-server", RIVAL)
        other = await site.client("rival-client", "rival-server")
        rival = await other.connect(RIVAL, service="echo")
        crossing = asyncio.create_task(fetch(rival, 40 * MB))
        began = site.world.now
        await fetch(peer, 25 * MB)
        crossing.cancel()
        return 25 * MB * 8 / (site.world.now - began)

    goodput = run(scenario, stream_buffer=64 * MB)
    assert 0.25 < goodput / (BANDWIDTH_BITS_S * PAYLOAD_SHARE) < 0.75
