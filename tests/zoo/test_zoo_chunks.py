"""Planted bugs of the chunk store, and the test that catches each."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from mapreduce.store import healing, lease, model
from mapreduce.store.blocks import Sums
from mapreduce.store.chunk_files import WHOLE, Absent, ChunkFiles, _name
from mapreduce.store.chunk_server import ChunkServer
from mapreduce.store.healer import Healer
from mapreduce.store.metadata import Metadata
from mapreduce.store.writer import FileWriter
from netstack.rpc.errors import Unavailable

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "unit" / "chunks"), str(TESTS / "simulation")]
files = importlib.import_module("test_chunk_files")
plans = importlib.import_module("test_chunk_plans")
sim = importlib.import_module("test_chunk_store_sim")

CAUGHT = (AssertionError, pytest.fail.Exception)


def on_a_disk(test, *arguments):
    def judge():
        test(files.Place(), *arguments)

    judge.__name__ = test.__name__
    return judge


def does_not_verify(self, block, data):
    """The disk has always been good to us."""


def serves_a_stale_version(self, chunk, version):
    if chunk not in self.held:
        raise Absent(chunk)
    return self.held[chunk]


def names_it_before_it_is_synced(self, chunk, version, length):
    part = self._parts.pop(chunk)
    sums = Sums(chunk, version, length, bytes(part.sums))
    part.file.write_at(length, sums.trailer())
    self._disk.rename(part.path, f"{WHOLE}/{_name(chunk)}")
    self.held[chunk] = sums


_write = FileWriter._write
_txn = Metadata._txn


async def acknowledges_before_all_have_it(self, record, data):
    first = model.ChunkRecord(
        record.chunk, record.version, record.length, record.replicas, record.nodes[:1]
    )
    return await _write(self, first, data)


async def deletes_without_asking_again(self, chunk):
    await self._do(self.files.delete, chunk)


async def repairs_nothing(self, record):
    """Somebody else has it."""


async def takes_off_without_checking(self, action):
    import dataclasses

    rest = tuple(name for name in action.record.nodes if name != action.node)
    after = dataclasses.replace(action.record, nodes=rest)
    await self._server.metadata.replace(action.record, after)


async def seals_without_its_lease(self, compares, then):
    return await _txn(self, [c for c in compares if not c[2].startswith(model.WRITERS)], then)


async def overwrites_what_it_should_not(self, compares, then):
    compares = [c for c in compares if not (c[0] == "version" and c[3] == 0)]
    return await _txn(self, compares, then)


async def removes_a_folder_blindly(self, compares, then):
    compares = [c for c in compares if c[0] != "mod"]
    return await _txn(self, compares, then)


def forgets_whom_it_asked_already(records, servers, under_way, rng):
    return _plan(records, servers, (), rng)


def takes_off_the_living_first(record, servers):
    found = _unlist(record, servers)
    if found is None and len(record.nodes) > record.replicas - 1 and len(record.nodes) > 1:
        return healing.Unlist(record, record.nodes[0], record.nodes[1:])
    return found


_plan, _unlist = healing.plan, healing._unlist


def slept_through_its_lease():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lease, "LEASE_S", 3)
        sim.test_a_writer_that_slept_through_its_lease_cannot_seal(None)


def middle_bit(place):
    files.test_no_bit_flips_unseen(place, "middle")


async def dials_itself(self, method, body):
    """The healer is a server as any other."""
    raise Unavailable("no connection to itself")


FLIPPED = sim.test_a_flipped_bit_is_found_served_from_elsewhere_and_repaired
SEALED = sim.test_when_it_is_sealed_all_its_replicas_are_on_their_disks
ZOO = [
    (does_not_verify, Sums, "check", on_a_disk(middle_bit)),
    (does_not_verify, Sums, "check", FLIPPED),
    (
        serves_a_stale_version,
        ChunkFiles,
        "_sums",
        on_a_disk(files.test_another_version_is_absent),
    ),
    (
        serves_a_stale_version,
        ChunkFiles,
        "_sums",
        sim.test_a_replica_of_an_older_version_is_not_served,
    ),
    (
        names_it_before_it_is_synced,
        ChunkFiles,
        "finish",
        on_a_disk(files.test_it_is_there_after_a_power_cut),
    ),
    (acknowledges_before_all_have_it, FileWriter, "_write", SEALED),
    (
        deletes_without_asking_again,
        ChunkServer,
        "_delete",
        sim.test_a_server_asks_once_more_before_it_deletes,
    ),
    (
        repairs_nothing,
        ChunkServer,
        "_repair",
        sim.test_the_scrubber_finds_a_flipped_bit_that_nobody_reads,
    ),
    (
        takes_off_without_checking,
        Healer,
        "_unlist",
        sim.test_nobody_is_taken_off_a_record_while_the_others_copies_are_not_good,
    ),
    (
        dials_itself,
        ChunkServer,
        "ask_itself",
        sim.test_the_healer_has_only_itself_to_send_to,
    ),
    (seals_without_its_lease, Metadata, "_txn", slept_through_its_lease),
    (
        overwrites_what_it_should_not,
        Metadata,
        "_txn",
        sim.test_of_two_creators_one_fails_and_loses_nothing_of_the_other,
    ),
    (
        removes_a_folder_blindly,
        Metadata,
        "_txn",
        sim.test_a_folder_that_is_filled_at_the_last_moment_is_not_removed,
    ),
    (
        forgets_whom_it_asked_already,
        plans,
        "plan",
        plans.TestHealing().test_a_clone_under_way_is_not_begun_again,
    ),
    (
        takes_off_the_living_first,
        healing,
        "_unlist",
        plans.TestHealing().test_nothing_is_done_about_what_is_well,
    ),
]


# Where the bug shows by what the store itself says, and no assertion of the test is needed.
BY_ITS_NAME = {names_it_before_it_is_synced: Absent}


@pytest.mark.parametrize(
    ("bug", "where", "what", "judge"), ZOO, ids=lambda v: getattr(v, "__name__", "")
)
def test_the_bug_is_caught(bug, where, what, judge, monkeypatch):
    with monkeypatch.context() as planted:
        planted.setattr(where, what, bug)
        with pytest.raises(BY_ITS_NAME.get(bug, CAUGHT)):
            judge()


@pytest.mark.parametrize("judge", list(dict.fromkeys(j for *_, j in ZOO)), ids=lambda j: j.__name__)
def test_the_judge_finds_nothing_wrong_with_the_original(judge):
    judge()
