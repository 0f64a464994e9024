"""The chunk store in virtual time: whole daemons, their metadata in raft, and what befalls them."""

from __future__ import annotations

import asyncio
import dataclasses
import random

import pytest
from chunk_kit import KIB, run

from mapreduce.store import lease, model
from mapreduce.store.client import (
    ChunkLost,
    FileExists,
    FolderNotEmpty,
    NoRoom,
    NoSuchFile,
    WriterLost,
)
from mapreduce.store.healer import Healer
from mapreduce.store.healing import Unlist

DATA = random.Random("data").randbytes(300 * KIB)  # three chunks, the last one short


@pytest.fixture
def short_leases(monkeypatch):
    """Of writers: so that nobody has to wait for half a minute."""
    monkeypatch.setattr(lease, "LEASE_S", 3)


def test_what_is_put_is_read_again_whole_or_in_part():
    async def scenario(chunks):
        store = await chunks.client()
        await store.put("a/b/file", DATA)
        assert await store.read("a/b/file") == DATA
        assert await store.read("a/b/file", 127 * KIB, 5 * KIB) == DATA[127 * KIB : 132 * KIB]
        assert await store.read("a/b/file", len(DATA) - 3, 100) == DATA[-3:]
        assert [name for name, _ in await store.list("a")] == ["b"]
        found = await store.locate("a/b/file")
        assert [(r.offset, r.length) for r in found] == [
            (0, 128 * KIB),
            (128 * KIB, 128 * KIB),
            (256 * KIB, 44 * KIB),
        ]
        assert all(len(r.nodes) == 2 for r in found)

    run(scenario)


def test_an_empty_file_and_a_file_of_one_whole_chunk():
    async def scenario(chunks):
        store = await chunks.client()
        for size in (0, 1, 128 * KIB, 128 * KIB + 1):
            await store.put("f", DATA[:size])
            assert await store.read("f") == DATA[:size]

    run(scenario)


def test_nobody_sees_a_file_before_it_is_sealed():
    async def scenario(chunks):
        store = await chunks.client()
        await store.put("f", b"old")
        file = await store.create("f")
        await file.append(DATA)
        assert await store.read("f") == b"old"
        await file.seal()
        assert await store.read("f") == DATA

    run(scenario)


def test_of_two_creators_one_fails_and_loses_nothing_of_the_other():
    async def scenario(chunks):
        store = await chunks.client()
        first = await store.create("f", replace=False)
        second = await store.create("f", replace=False)
        await first.append(b"first")
        await second.append(b"second")
        ends = await asyncio.gather(first.seal(), second.seal(), return_exceptions=True)
        refused = [type(end) for end in ends if isinstance(end, BaseException)]
        assert refused == [FileExists]
        lost, won = (first, b"second") if first.ended is False else (second, b"first")
        await lost.abandon()
        assert await store.read("f") == won

    run(scenario)


def test_a_flipped_bit_is_found_served_from_elsewhere_and_repaired():
    async def scenario(chunks):
        store = await chunks.client()
        await store.put("f", DATA)
        record = (await store.metadata.chunks())[1]
        harmed = record.nodes[0]
        chunks.flip(harmed, record.chunk, 70 * KIB)
        assert record.nodes[0] not in chunks.good_holders(record)
        for _ in range(6):  # whoever is asked first
            assert await store.read("f") == DATA
        await chunks.healed(store)
        assert chunks.services[harmed].chunks.counts["repaired"] == 1
        assert chunks.good_holders(record) == sorted(record.nodes)

    run(scenario)


def test_the_scrubber_finds_a_flipped_bit_that_nobody_reads():
    async def scenario(chunks):
        store = await chunks.client()
        await store.put("f", DATA)
        record = (await store.metadata.chunks())[0]
        chunks.flip(record.nodes[1], record.chunk, 5)
        await asyncio.sleep(15)
        assert chunks.good_holders(record) == sorted(record.nodes)
        kinds = [line for line in chunks.world.lines if '"chunk.damaged"' in line]
        assert len(kinds) == 1

    run(scenario)


def test_two_copies_damaged_in_different_places_make_one_good_one():
    async def scenario(chunks):
        store = await chunks.client()
        await store.put("f", DATA, chunk_bytes=4 * 1024 * KIB)
        [record] = await store.metadata.chunks()
        chunks.flip(record.nodes[0], record.chunk, 0)
        chunks.flip(record.nodes[1], record.chunk, len(DATA) - 1)
        assert not chunks.good_holders(record)
        assert await store.read("f") == DATA
        await chunks.healed(store)


def test_what_nobody_has_is_said_to_be_lost():
    async def scenario(chunks):
        store = await chunks.client()
        await store.put("f", DATA)
        record = (await store.metadata.chunks())[1]
        for name in record.nodes:
            chunks.flip(name, record.chunk, 7)
        with pytest.raises(ChunkLost, match=record.nodes[0]):
            await store.read("f")
        assert all(chunks.services[n].chunks.status()["damaged"] == 1 for n in record.nodes)
        assert await store.read("f", 0, 100 * KIB) == DATA[: 100 * KIB]

    run(scenario)


def test_a_dead_server_s_chunks_are_copied_and_its_own_are_garbage_when_it_returns():
    async def scenario(chunks):
        store = await chunks.client()
        await store.put("f", DATA)
        before = await store.metadata.chunks()
        dead = before[0].nodes[0]
        chunks.world.crash(dead)
        await chunks.until(lambda live: dead not in live, store)
        await chunks.healed(store, patience_s=30)
        assert all(dead not in record.nodes for record in await store.metadata.chunks())
        chunks.world.restart(dead)
        await asyncio.sleep(10)
        assert not chunks.held(dead).held, "garbage was kept"
        assert await store.read("f") == DATA

    run(scenario)


def test_a_server_that_comes_back_in_time_keeps_its_chunks():
    async def scenario(chunks):
        store = await chunks.client()
        await store.put("f", DATA)
        before = await store.metadata.chunks()
        name = before[0].nodes[0]
        chunks.world.crash(name)
        await asyncio.sleep(0.5)
        chunks.world.restart(name)
        await asyncio.sleep(10)
        assert await store.metadata.chunks() == before

    run(scenario)


def test_two_of_three_replicas_die_and_the_third_serves():
    async def scenario(chunks):
        store = await chunks.client()
        await store.put("f", DATA, replicas=3)
        for name in ("c1", "c2"):
            chunks.world.crash(name)
        assert await store.read("f") == DATA
        await asyncio.sleep(8)
        assert chunks.services["c3"].chunks.status()["under_replicated"] == 3
        for name in ("c1", "c2"):
            chunks.world.restart(name)
        await chunks.healed(store)

    run(scenario, servers=3)


def test_a_server_killed_in_the_middle_of_a_write_is_replaced():
    async def scenario(chunks):
        store = await chunks.client()
        file = await store.create("f")
        await file.append(DATA)
        half = await store.metadata.chunks()
        chunks.world.crash(half[0].nodes[0])
        await file.append(DATA)
        await file.seal()
        assert await store.read("f") == DATA + DATA
        chunks.world.restart(half[0].nodes[0])
        await chunks.healed(store)

    run(scenario)


def test_with_too_few_servers_nothing_is_promised():
    async def scenario(chunks):
        store = await chunks.client()
        chunks.world.crash("c1")
        with pytest.raises(NoRoom, match=r"c2"):
            await store.put("f", DATA)
        with pytest.raises(NoSuchFile):
            await store.stat("f")
        chunks.world.restart("c1")
        await chunks.until(lambda live: len(live) == 2, store)
        await asyncio.sleep(6)  # until it is no longer suspected
        await store.put("f", DATA)

    run(scenario, servers=2)


def test_who_can_do_with_less_gets_less_and_the_rest_later():
    async def scenario(chunks):
        store = await chunks.client()
        chunks.world.crash("c1")
        await store.put("f", DATA, least_replicas=1)
        assert {found.nodes[0] for found in await store.locate("f")} == {"c2"}
        assert all(len(found.nodes) == 1 for found in await store.locate("f"))
        assert (await store.stat("f")).replicas == 2
        chunks.world.restart("c1")
        await chunks.healed(store)
        assert all(len(found.nodes) == 2 for found in await store.locate("f"))
        await asyncio.sleep(6)  # until it is no longer suspected
        await store.put("g", DATA, least_replicas=1)
        assert all(len(found.nodes) == 2 for found in await store.locate("g"))

    run(scenario, servers=2)


def test_the_healer_has_only_itself_to_send_to():
    """Of three servers one is the healer and one is dead; the healer verifies and clones, too."""

    async def scenario(chunks):
        store = await chunks.client()
        for _ in range(20):
            await store.put("f", DATA[: 64 * KIB], replace=True)
            [found] = await store.locate("f")
            healers = [n for n, s in chunks.services.items() if s.chunks.health is not None]
            if healers and healers[0] not in found.nodes:
                break
            await asyncio.sleep(0.5)
        else:
            raise AssertionError("the healer held it each time")
        dead, holder = found.nodes
        chunks.world.crash(dead)
        await chunks.until(lambda live: dead not in live, store)
        await chunks.healed(store, patience_s=30)
        assert {*(await store.locate("f"))[0].nodes} == {healers[0], holder}

    run(scenario, servers=3)


def test_workers_are_servers_too(tmp_path):
    """What runs jobs keeps chunks, heals them, and finds them again when it is restarted."""

    async def scenario(chunks):
        store = await chunks.client()
        await store.put("f", DATA)
        first = (await store.locate("f"))[0]
        assert set(first.nodes) <= {"c1", "c2", "c3"}
        victim = first.nodes[0]
        said = chunks.services[victim].status()
        assert (said["role"], said["trouble"]) == ("worker", "")
        assert said["chunks"] >= 1
        chunks.world.crash(victim)
        assert await store.read("f") == DATA
        await chunks.until(lambda live: victim not in live, store)
        await chunks.healed(store)
        assert victim not in (await store.locate("f"))[0].nodes
        chunks.world.restart(victim)
        await chunks.until(lambda live: victim in live, store)
        assert chunks.services[victim].metrics()["ring_chunks_held"] >= 1
        await store.put("g", DATA, replicas=3)
        assert all(victim in found.nodes for found in await store.locate("g"))

    run(scenario, servers=3, home=tmp_path)


def test_a_full_disk_is_not_written_to():
    async def scenario(chunks):
        store = await chunks.client()
        chunks.world.nodes["c1"].runtime.disk.faults.apply({"full": True})
        for i in range(6):
            await store.put(f"f{i}", DATA)
        assert all("c1" not in record.nodes for record in await store.metadata.chunks())
        assert not chunks.held("c1").held

    run(scenario)


def test_the_metadata_s_leader_dies_in_the_middle_of_everything():
    async def scenario(chunks):
        store = await chunks.client()
        file = await store.create("f")
        await file.append(DATA)
        for _ in range(2):
            leader = await store.metadata._raft.leader()
            chunks.world.crash(leader)
            await file.append(DATA)
            chunks.world.restart(leader)
        await file.seal()
        assert await store.read("f") == DATA * 3
        await chunks.healed(store)

    run(scenario)


@pytest.mark.slow
def test_a_writer_that_dies_leaves_nothing_behind(short_leases):
    async def scenario(chunks):
        store = await chunks.client()
        await store.put("kept", DATA)
        other = await chunks.client("client2")
        file = await other.create("f")
        await file.append(DATA)
        chunks.world.crash("client2")
        await asyncio.sleep(12)
        records = await store.metadata.chunks()
        kept = (await store.stat("kept")).file
        assert {model.file_of(record.chunk) for record in records} == {kept}
        held = {c for name in chunks.names for c in chunks.held(name).held}
        assert {model.file_of(chunk) for chunk in held} == {kept}

    run(scenario)


def test_a_writer_that_slept_through_its_lease_cannot_seal(short_leases):
    async def scenario(chunks):
        store = await chunks.client()
        other = await chunks.client("client2")
        file = await other.create("f")
        await file.append(DATA)
        chunks.world.pause("client2")
        await asyncio.sleep(12)
        chunks.world.resume("client2")
        with pytest.raises(WriterLost):
            await file.seal()
        with pytest.raises(NoSuchFile):
            await store.stat("f")

    run(scenario)


def test_a_removed_file_s_chunks_go_after_a_while():
    async def scenario(chunks):
        store = await chunks.client()
        await store.put("f", DATA)
        await store.remove("f")
        assert any(chunks.held(name).held for name in chunks.names), "gone before it was garbage"
        await asyncio.sleep(10)
        assert not any(chunks.held(name).held for name in chunks.names)

    run(scenario)


def test_a_replica_of_an_older_version_is_not_served():
    async def scenario(chunks):
        store = await chunks.client()
        await store.put("f", DATA[: 100 * KIB])
        [record] = await store.metadata.chunks()
        stale = record.nodes[0]
        held = chunks.held(stale)
        # As if it had slept while the chunk was begun anew.
        old = held.held[record.chunk]
        held.write(record.chunk, record.version + 1, 0, DATA[: 100 * KIB][::-1])
        held.finish(record.chunk, record.version + 1, 100 * KIB)
        assert held.held[record.chunk] != old
        for _ in range(6):
            assert await store.read("f") == DATA[: 100 * KIB]

    run(scenario)


def test_a_disk_that_was_lost_is_filled_again():
    async def scenario(chunks):
        store = await chunks.client()
        for i in range(5):
            await store.put(f"f{i}", DATA)
        chunks.world.crash("c2")
        chunks.world.nodes["c2"].storage._files.clear()
        chunks.world.restart("c2")
        await chunks.healed(store)
        for i in range(5):
            assert await store.read(f"f{i}") == DATA

    run(scenario)


def test_when_it_is_sealed_all_its_replicas_are_on_their_disks():
    async def scenario(chunks):
        store = await chunks.client()
        for i in range(4):
            await store.put(f"f{i}", DATA, replicas=3)
        for name in chunks.names:
            chunks.world.crash(name)  # power off, at once
        for record in await store.metadata.chunks():
            assert len(record.nodes) == 3
            assert chunks.good_holders(record) == list(record.nodes)

    run(scenario)


def test_a_server_asks_once_more_before_it_deletes():
    """Between its look at the records and the deletion it may have been listed."""

    async def scenario(chunks):
        store = await chunks.client()
        await store.put("f", DATA)
        [record, *_] = await store.metadata.chunks()
        server = chunks.services[record.nodes[0]].chunks
        await server._delete(record.chunk)
        assert record.chunk in server.files.held

    run(scenario)


def test_nobody_is_taken_off_a_record_while_the_others_copies_are_not_good():
    async def scenario(chunks):
        store = await chunks.client()
        await store.put("f", DATA, replicas=3)
        [record, *_] = await store.metadata.chunks()
        wanted = dataclasses.replace(record, replicas=2)
        assert await store.metadata.replace(record, wanted)
        server = chunks.services["c1"].chunks
        healer = Healer(server, server._fetcher)
        gone, *holders = record.nodes
        chunks.flip(holders[0], record.chunk, 9)
        await healer._unlist(Unlist(wanted, gone, tuple(holders)))
        found = await store.metadata.chunk(record.chunk)
        assert gone in found.nodes

    run(scenario, scan_ms=60_000, scrub_s=600)


def test_a_folder_that_is_filled_at_the_last_moment_is_not_removed():
    async def scenario(chunks):
        store = await chunks.client()
        await store.make_folder("d")
        metadata = store.metadata
        ranged = metadata._range

        async def then_filled(prefix, limit=0):
            found = await ranged(prefix, limit)
            if not found and limit == 1:
                await store.put("d/f", b"just in time")
            return found

        metadata._range = then_filled
        with pytest.raises(FolderNotEmpty):
            await store.remove_folder("d")
        assert await store.read("d/f") == b"just in time"

    run(scenario)


def test_of_two_renames_to_one_name_one_file_is_left():
    async def scenario(chunks):
        store = await chunks.client()
        await store.put("a", b"a")
        await store.put("b", b"b")
        await asyncio.gather(store.rename("a", "d/c"), store.rename("b", "d/c"))
        assert await store.read("d/c") in (b"a", b"b")
        assert [name for name, _ in await store.list()] == ["d"]
        await asyncio.sleep(8)
        assert len({r.chunk for r in await store.metadata.chunks()}) == 1

    run(scenario)
