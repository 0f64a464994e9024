"""Peers of swarms in a ring of whole daemons: concurrent announces, deaths, expiry."""

from __future__ import annotations

import asyncio

from dht_kit import SimulatedRing, run

from dht.torrent.chord_ring import ChordRing
from dht.torrent.directory import LIFE_S, RingDirectory
from dht.torrent.errors import TrackerError

HASH = bytes(range(20))
HERE = "127.0.0.1"
RETRIES = 20


async def insist(directory: RingDirectory, port: int, now: float) -> None:
    """As a peer does: again until the ring has it."""
    for _ in range(RETRIES):
        try:
            await directory.announce(HASH, (HERE, port), now)
        except TrackerError:
            await asyncio.sleep(1.0 + port % 7)
        else:
            return
    raise AssertionError(f"the ring never took {port}")


def test_announces_at_once_from_two_clients_are_all_found_while_a_peer_dies():
    async def scenario(ring: SimulatedRing):
        await ring.ideal()
        ours, theirs = [
            RingDirectory(ChordRing(await ring.client(name))) for name in ("client", "other")
        ]
        ports = range(5000, 5024)
        said = [
            asyncio.ensure_future(insist((ours, theirs)[port % 2], port, 0.0)) for port in ports
        ]
        await asyncio.sleep(0.02)
        ring.world.crash("d2")
        await asyncio.gather(*said)
        for directory in (ours, theirs):
            assert sorted(await directory.find(HASH, 1.0)) == [(HERE, port) for port in ports]
        # Another dies: the lists have lived on in replicas.
        await ring.ideal()
        ring.world.crash("d4")
        assert len(await ours.find(HASH, 1.0)) == len(ports)
        await theirs.withdraw(HASH, (HERE, 5000), 1.0)
        assert (HERE, 5000) not in await ours.find(HASH, 1.0)

    run(scenario, count=5)


def test_a_swarm_that_all_have_left_is_forgotten_by_the_ring_itself():
    async def scenario(ring: SimulatedRing):
        await ring.ideal()
        directory = RingDirectory(ChordRing(await ring.client()))
        await directory.announce(HASH, (HERE, 5000), 0.0)
        assert await directory.find(HASH, 1.0) == [(HERE, 5000)]
        await asyncio.sleep(LIFE_S + 1)
        assert await directory.find(HASH, 1.0) == []  # the record is gone, not only the entry

    run(scenario, count=3, settings={"vnodes": 1})
