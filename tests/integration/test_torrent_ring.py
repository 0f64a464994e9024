"""A swarm in the cluster's Chord ring: real peers of both kinds, and kill -9 of who is asked."""

from __future__ import annotations

import asyncio
import time

import pytest
from ring_kit import Ring
from torrent_roles_kit import HOST, PATIENCE_S, end, tree

from dht.torrent.chord_ring import directory


@pytest.fixture
def ring(tmp_path):
    """Beside `roles`, which have a home of their own."""
    ring = Ring(tmp_path / "ring")
    yield ring
    ring("down", status=None)


async def listed(config, info_hash):
    async with directory(config) as ring:
        return await ring.find(info_hash, time.time())


@pytest.mark.timeout(6 * PATIENCE_S)
def test_the_swarm_goes_on_without_its_tracker_and_without_two_peers_of_the_ring(
    ring, roles, content, tmp_path
):
    ring.up("dht=5")
    config = ring.home / "cluster.toml"
    tracker = roles.tracker()
    torrent = roles.torrent(content, tracker.ready["http"])
    seed = roles.seed(torrent, content, ring=config)
    first = roles.get(torrent, tmp_path / "one", ring=config, seed=True)
    first.wait_for("complete")
    # Both are in the ring now: who comes next needs nobody else.
    first.wait_for("status", lambda says: says["in_ring"])
    tracker.kill()
    second = roles.get(torrent, tmp_path / "two", ring=config)
    says = second.wait_for("complete")
    assert says["in_ring"] == 2
    gone = f"{tracker.ready['http']}: Connection refused"
    assert says["trouble"] in ("", gone)
    assert second.status() == 0
    for name in ("d1", "d2"):
        ring("kill", name)
    # The link, without a tracker in it: all that is known is the info-hash.
    link = f"magnet:?xt=urn:btih:{seed.ready['info_hash']}"
    third = roles.get(link, tmp_path / "three", ring=config)
    third.wait_for("complete")
    assert third.status() == 0
    for folder in ("one", "two", "three"):
        assert tree(tmp_path / folder / content.name) == tree(content)
    # Who leaves a ring that is whole is in no list any more; who was killed is, for a while.
    ring.wait(lambda: not ring("dht", "nodes", status=None).returncode, "an ideal ring of three")
    assert end(seed) == 0
    first.kill()
    info_hash = bytes.fromhex(seed.ready["info_hash"])
    found = asyncio.run(listed(config, info_hash))
    assert (HOST, seed.port) not in found
    assert (HOST, first.port) in found


@pytest.mark.slow
@pytest.mark.timeout(6 * PATIENCE_S)
def test_what_people_type(ring, roles, content, tmp_path):
    torrent, to = roles.torrent(content), tmp_path / "out"
    get = ("torrent", "get", str(torrent), "--ring", "--to", str(to))
    assert "`ring up` makes one" in ring(*get, status=6).stderr
    ring.up("raft=1")
    assert "ring up dht=5" in ring(*get, status=6).stderr
    ring.up("dht=3")
    seed = roles.seed(torrent, content, ring=ring.home / "cluster.toml")
    assert "is complete" in ring(*get).stderr
    assert tree(to / content.name) == tree(content)
    assert end(seed) == 0
    private = roles.torrent(content, "http://127.0.0.1:1/announce", private=True)
    said = ring("torrent", "get", str(private), "--ring", "--to", str(to), status=2).stderr
    assert "this torrent is private" in said
    ring("down")
    assert "ring up" in ring(*get, status=6).stderr
