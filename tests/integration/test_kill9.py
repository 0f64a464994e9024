"""kill -9 under load, with and without what a power cut loses: nothing acknowledged is lost.

Each test runs against real processes, once as the kernel keeps what was written but not synced,
and once in power-cut mode, where kill -9 loses it.
"""

from __future__ import annotations

import asyncio

import pytest
from load_kit import Load
from ring_kit import PATIENCE, Ring, alive

from netstack.rpc.errors import Failed
from raftd.client import NotReached, OutcomeUnknown, RaftClient

# Writes that must get through after each misfortune: the cluster serves again.
ENOUGH = 40


@pytest.fixture(scope="module", params=["plain", "power-cut"])
def cluster(request, tmp_path_factory):
    ring = Ring(tmp_path_factory.mktemp(request.param) / "home")
    ring.up(*(["--power-cut"] if request.param == "power-cut" else []))
    yield ring
    pids = ring.pids()
    ring("down")
    assert not [pid for pid in pids if alive(pid)], "daemons were left behind"


@pytest.fixture
async def load(cluster, request):
    """Clients that write, judged at the end when all nodes are up again."""
    cluster.healthy()
    async with RaftClient.connect(cluster.home / "cluster.toml") as client:
        async with Load(client, request.node.name.encode()[:60]) as load:
            await load.progress(ENOUGH, PATIENCE)
            yield load
            await asyncio.to_thread(cluster.healthy)
            await load.progress(ENOUGH, PATIENCE)
        await load.judge()
    assert load.acknowledged > 3 * ENOUGH, "too little was written to tell"


async def ring(cluster, *arguments: str) -> None:
    await asyncio.to_thread(cluster, *arguments)


async def test_the_leader_again_and_again(cluster, load):
    for _ in range(3):
        leader = await asyncio.to_thread(cluster.leader)
        await ring(cluster, "kill", leader)
        await load.progress(ENOUGH, PATIENCE)
        await ring(cluster, "restart", leader)


async def test_a_follower_again_and_again(cluster, load):
    for _ in range(3):
        roles = await asyncio.to_thread(cluster.roles)
        follower = roles["follower"][0]
        await ring(cluster, "kill", follower)
        await load.progress(ENOUGH, PATIENCE)
        await ring(cluster, "restart", follower)


async def test_a_majority_stops_writing_and_comes_back(cluster, load):
    await ring(cluster, "kill", "majority")
    await asyncio.sleep(0.5)  # what was under way is over
    before = load.acknowledged
    await asyncio.sleep(1.0)
    assert load.acknowledged == before, "a minority acknowledged writes"
    await ring(cluster, "restart", "all")
    await load.progress(ENOUGH, PATIENCE)


async def test_all_at_once(cluster, load):
    for _ in range(2):
        await ring(cluster, "kill", "all")
        await ring(cluster, "restart", "all")
        await load.progress(ENOUGH, PATIENCE)


async def test_a_paused_leader_gives_no_stale_read_and_steps_down(cluster, load):
    leader = await asyncio.to_thread(cluster.leader)
    key = b"paused leader"
    # A connection of its own: the one that writes leaves its leader when there is another.
    async with RaftClient.connect(cluster.home / "cluster.toml") as other:
        await other.put(key, b"old")
        alone = other._clients[leader]
        await ring(cluster, "pause", leader)
        # Asked while it sleeps: it finds the question when it wakes, still believing that it leads.
        question = asyncio.create_task(
            alone.call("kv.range", [key, b"", 0, 0, False, False, False], timeout_s=PATIENCE)
        )
        await _put(load.client, key, b"new")
        await ring(cluster, "resume", leader)
        try:
            answer = await question
        except Failed as refusal:
            assert refusal.reason == "not-leader"
        else:
            assert b"new" in repr(answer).encode(), "a leader of the past answered a read"
    roles = await asyncio.to_thread(cluster.roles)
    assert leader not in roles.get("leader", []), f"{leader} still believes that it leads"


async def _put(client: RaftClient, key: bytes, value: bytes) -> None:
    """Written for certain, whoever leads."""
    while True:
        try:
            await client.put(key, value)
        except (OutcomeUnknown, NotReached):
            continue
        return
