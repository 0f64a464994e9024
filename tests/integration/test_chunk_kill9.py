"""The chunk store as real processes: kill -9, power cuts, rotten disks, and what a person types."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal

import pytest
from chunk_real_kit import KIB, make_ring, until
from ring_kit import alive

from mapreduce.store.client import ChunkStore, SyncChunkStore

DATA = random.Random("real").randbytes(1500 * KIB)


@pytest.fixture(scope="module", params=["plain", pytest.param("power-cut", marks=pytest.mark.slow)])
def cluster(request, tmp_path_factory):
    home = tmp_path_factory.mktemp(request.param) / "home"
    extra = {"power_cut": True} if request.param == "power-cut" else {}
    ring = make_ring(home, servers=4, **extra)
    yield ring
    pids = ring.pids()
    ring("down")
    assert not [pid for pid in pids if alive(pid)], "daemons were left behind"


@pytest.fixture
def store(cluster):
    with SyncChunkStore(cluster.home / "cluster.toml") as found:
        until(lambda: len(servers(found)) == 4, "four living servers")
        yield found


def servers(store):
    return store.run(store.asynchronous.links.servers(fresh=True))


def chunks(store, path):
    return store.run(store.asynchronous.metadata.chunks(store.stat(path).file))


def kill(cluster, name):
    os.kill(cluster.status()[name]["pid"], signal.SIGKILL)


def healed(store, path):
    """Whether all chunks are where they should be, and only there."""
    live = servers(store)
    records = chunks(store, path)
    return all(set(r.nodes) <= set(live) and len(r.nodes) == r.replicas for r in records)


def test_kill_9_in_the_middle_of_a_write(cluster, store):
    async def write():
        async with ChunkStore.connect(cluster.home / "cluster.toml") as own:
            writer = await own.create("written")
            for at in range(0, len(DATA), 100 * KIB):
                await writer.append(DATA[at : at + 100 * KIB])
                if at == 600 * KIB:
                    file = writer._entry.file
                    victim = (await own.metadata.chunks(file))[-1].nodes[0]
                    await asyncio.to_thread(kill, cluster, victim)
            await writer.seal()

    asyncio.run(write())
    assert store.read("written") == DATA
    until(lambda: healed(store, "written"), "two replicas of each chunk")
    assert store.read("written") == DATA


def test_kill_9_in_the_middle_of_a_read(cluster, store):
    store.put("read", DATA)
    victim = chunks(store, "read")[0].nodes[0]

    async def read():
        async with ChunkStore.connect(cluster.home / "cluster.toml") as own:
            parts = []
            async for piece in own.stream("read"):
                if not parts:
                    await asyncio.to_thread(kill, cluster, victim)
                parts.append(piece)
            return b"".join(parts)

    assert asyncio.run(read()) == DATA


@pytest.mark.slow
def test_two_of_three_die_and_the_third_serves(cluster, store):
    store.put("three", DATA[: 300 * KIB], replicas=3)
    for name in chunks(store, "three")[0].nodes[:2]:
        cluster("kill", name)
    assert store.read("three") == DATA[: 300 * KIB]
    cluster("restart", "all")
    until(lambda: healed(store, "three"), "three replicas of each chunk")


@pytest.mark.slow
def test_all_at_once_and_what_was_sealed_is_there(cluster, store):
    for i in range(5):
        store.put(f"kept{i}", DATA[i * 1000 :])
    cluster("kill", "all")
    cluster("restart", "all")
    for i in range(5):
        assert store.read(f"kept{i}") == DATA[i * 1000 :]


def test_a_bit_that_flips_on_a_disk_is_found_and_mended(cluster, store):
    store.put("rotten", DATA)
    record = chunks(store, "rotten")[2]
    name = record.nodes[1]
    path = cluster.home / "nodes" / name / "data" / "chunks" / record.chunk.replace("/", "-")
    with path.open("r+b") as file:
        file.seek(100_000)
        byte = file.read(1)
        file.seek(100_000)
        file.write(bytes([byte[0] ^ 8]))
    for _ in range(4):
        assert store.read("rotten") == DATA
    until(lambda: path.read_bytes()[100_000:100_001] == byte, "the mended bit")


@pytest.mark.slow
def test_the_metadata_s_leader_is_killed_in_the_middle_of_a_write(cluster, store):
    async def write():
        async with ChunkStore.connect(cluster.home / "cluster.toml") as own:
            writer = await own.create("led")
            await writer.append(DATA[: 700 * KIB])
            await asyncio.to_thread(cluster, "kill", "leader")
            await writer.append(DATA[700 * KIB :])
            await writer.seal()

    asyncio.run(write())
    cluster("restart", "all")
    assert store.read("led") == DATA


def test_what_a_person_types(cluster, store, tmp_path):
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    (folder / "a").write_bytes(DATA)
    (folder / "deep" / "b").write_bytes(b"b")
    cluster("mr", "fs", "put", str(folder), "typed/")
    listed = json.loads(cluster("mr", "fs", "ls", "typed/in", "--json").stdout)
    assert [(item["name"], item["folder"], item["bytes"]) for item in listed] == [
        ("a", False, len(DATA)),
        ("deep", True, 0),
    ]
    told = json.loads(cluster("mr", "fs", "stat", "typed/in/a", "--json").stdout)
    assert (told["bytes"], told["replicas"], len(told["chunks"])) == (len(DATA), 2, 6)
    assert cluster("mr", "fs", "get", "typed/in/deep/b").stdout == "b"
    out = tmp_path / "out"
    cluster("mr", "fs", "get", "typed/in", str(out))
    assert (out / "a").read_bytes() == DATA
    assert (out / "deep" / "b").read_bytes() == b"b"
    assert "rm -r" in cluster("mr", "fs", "rm", "typed", status=2).stderr
    cluster("mr", "fs", "rm", "-r", "typed")
    assert "no 'typed/in/a'" in cluster("mr", "fs", "get", "typed/in/a", status=2).stderr
    assert "no /nowhere" in cluster("mr", "fs", "put", "/nowhere", "x", status=2).stderr


def test_a_full_disk_is_said_and_written_around(cluster, store):
    cluster("disk", "full", "c1")
    try:
        until(lambda: servers(store)["c1"].free_bytes == 0, "word of the full disk")
        for i in range(4):
            store.put(f"around{i}", DATA[: 300 * KIB])
            assert all("c1" not in record.nodes for record in chunks(store, f"around{i}"))
    finally:
        cluster("disk", "heal")
