"""Watches of a whole cluster: what an idle one is told, and what becomes of a forgotten one."""

from __future__ import annotations

import asyncio

import pytest
from store_kit import run

from raftd.client import Refused
from raftd.watch import PROGRESS_S, SILENCE_S


def test_an_idle_watch_says_how_far_it_is():
    async def scenario(store):
        client = await store.client()
        await client.put(b"a", b"1")
        watching = client.watch(b"w", revision=1, progress=True)
        first = await anext(watching)
        await client.put(b"a", b"2")
        second = await anext(watching)
        assert (first.revision, first.events) == (0, [])
        assert (second.revision, second.events) == (2, [])
        await watching.aclose()

    run(scenario)


@pytest.mark.parametrize("idle", [True, False])
def test_a_watch_that_missed_nothing_survives_a_compaction_of_what_it_did_not_want(idle):
    """Without the progress it would begin again at a revision that is gone."""

    async def scenario(store):
        client = await store.client()
        watching = client.watch(b"w", revision=1)
        coming = asyncio.ensure_future(anext(watching))
        await asyncio.sleep(PROGRESS_S / 2)
        for i in range(10):
            await client.put(b"a", b"%d" % i)
        if idle:
            await asyncio.sleep(PROGRESS_S + 1)
        await client.compact(10)
        watched = client._leader
        store.world.crash(watched)
        await asyncio.sleep(2)
        store.world.restart(watched)
        if idle:
            await client.put(b"w", b"at last")
            batch = await coming
            assert [event.pair.value for event in batch.events] == [b"at last"]
        else:
            with pytest.raises(Refused, match="compacted"):
                await coming
        await watching.aclose()

    run(scenario)


def test_a_watch_of_a_node_that_is_cut_off_moves_to_another():
    """Its client still reaches it; nothing new does."""

    async def scenario(store):
        client = await store.client()
        watching = client.watch(b"w")
        coming = asyncio.ensure_future(anext(watching))
        await asyncio.sleep(1)
        alone = client._leader
        for other in {"n1", "n2", "n3"} - {alone}:
            store.world.network.cut(alone, other)
            store.world.network.cut(other, alone)
        await client.put(b"w", b"elsewhere")
        batch = await asyncio.wait_for(coming, 3 * PROGRESS_S)
        assert [event.pair.value for event in batch.events] == [b"elsewhere"]
        await watching.aclose()

    run(scenario)


def test_a_watch_of_a_node_that_is_killed_for_good_moves_to_another():
    """Nothing refuses in its place, and a watch has nothing to send: silence must be enough."""

    async def scenario(store):
        client, other = await store.client(), await store.client()
        watching = client.watch(b"w")
        coming = asyncio.ensure_future(anext(watching))
        await asyncio.sleep(PROGRESS_S / 2)
        store.world.crash(client._leader)
        await other.put(b"w", b"elsewhere")
        batch = await asyncio.wait_for(coming, SILENCE_S + 1)
        assert [event.pair.value for event in batch.events] == [b"elsewhere"]
        await watching.aclose()

    run(scenario)
