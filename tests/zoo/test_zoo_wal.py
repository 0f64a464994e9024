"""Planted bugs of the write-ahead log, and the test of its crashes that catches each."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from raftd import wal as wal_module
from raftd.wal import DamagedLog, Wal

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "raftd"))
crashes = importlib.import_module("test_wal_crashes")
appends = importlib.import_module("test_wal")

CAUGHT = (AssertionError, DamagedLog, pytest.fail.Exception)


def power_cuts():
    for seed in range(60):
        crashes.test_after_a_power_cut_all_that_was_promised_is_there_and_nothing_was_made_up(seed)


def flips():
    for seed in range(40):
        crashes.test_a_flipped_bit_is_refused_or_is_nothing_but_the_tail(seed)


def never_syncs(self):
    self._disk.before_sync()


def believes_every_record(data, offset, salt):
    if offset + wal_module.HEADER.size > len(data):
        return None
    magic, length, _, _, sequence = wal_module.HEADER.unpack_from(data, offset)
    start = offset + wal_module.HEADER.size
    if magic != wal_module.MAGIC:
        return None
    return sequence, data[start : start + length], wal_module._padded(start + length - offset)


class CutsWhateverIsDamaged(Wal):
    def _judge_end(self, path, data, offset, *, is_last):
        """All is a tail."""


class LeavesTheTornTail(Wal):
    def _cut_tail(self, path, data, offset):
        """Whoever comes next writes over it."""


class ForgetsTheHardStateAtASegment(Wal):
    def _reset_item(self):
        return [None, None, [], [0, None, 0]]


class IgnoresTruncation(Wal):
    def _apply_item(self, item, entries):
        return super()._apply_item([item[0], None, *item[2:]], entries)


class DeletesOneSegmentTooMany(Wal):
    def _remove_segments(self, index):
        super()._remove_segments(index)
        for name in sorted(self._segments)[:1]:
            self._disk.remove(f"wal/{name}")
            del self._segments[name]


class CountsBeforeTheSync(Wal):
    def _write(self, payload):
        offset, sequence = self._offset, self._sequence
        try:
            super()._write(payload)
        except OSError:
            self._sequence = sequence + 1
            self._offset = offset
            raise


class TrustsAnySnapshot(Wal):
    @classmethod
    def open(cls, disk, segment_bytes=0):
        from unittest import mock

        found = wal_module.load_newest
        with mock.patch.object(wal_module, "load_newest", lambda disk: (found(disk)[0], 0)):
            return super().open(disk, segment_bytes)


class KeepsTheLogBesideANewSnapshot(Wal):
    def _apply_item(self, item, entries):
        return super()._apply_item([None, *item[1:]], entries)


class TellsOfACommitBeforeItsEntries(Wal):
    def append(self, persists):
        for persist in persists:
            self._hard_state = persist.hard_state or self._hard_state
        super().append(persists)


def interruptions():
    batch = appends.BATCHES["another end"]
    appends.test_an_append_cut_off_at_any_call_has_happened_or_has_not(batch, 256)


LOG = "test_wal_crashes.Wal"
ZOO = [
    (TellsOfACommitBeforeItsEntries, "storage_kit.Wal", interruptions),
    (never_syncs, "netstack.runtime.disk.DiskFile.sync", power_cuts),
    (believes_every_record, "raftd.wal._parse", flips),
    (CutsWhateverIsDamaged, LOG, flips),
    (CutsWhateverIsDamaged, LOG, crashes.test_a_missing_segment_is_refused),
    (LeavesTheTornTail, LOG, crashes.test_a_torn_tail_is_cut_and_a_copy_of_it_kept),
    (
        ForgetsTheHardStateAtASegment,
        LOG,
        crashes.test_the_hard_state_outlives_the_segment_in_which_it_was_written,
    ),
    (IgnoresTruncation, LOG, crashes.test_a_conflicting_end_stays_replaced),
    (IgnoresTruncation, LOG, power_cuts),
    (
        DeletesOneSegmentTooMany,
        LOG,
        crashes.test_segments_that_a_snapshot_covers_are_deleted_and_no_others,
    ),
    (CountsBeforeTheSync, LOG, crashes.test_a_batch_that_met_a_full_disk_can_be_appended_again),
    (TrustsAnySnapshot, LOG, crashes.test_a_damaged_snapshot_whose_entries_are_gone_is_refused),
    (KeepsTheLogBesideANewSnapshot, LOG, crashes.test_a_snapshot_of_the_leader_replaces_the_log),
]


# Where the copy that is to be kept is not there: the disk says so.
BY_ITS_NAME = {LeavesTheTornTail: FileNotFoundError}


def _id(value: object) -> str:
    return "" if isinstance(value, str) else getattr(value, "__name__", "")


@pytest.mark.parametrize(("bug", "where", "judge"), ZOO, ids=_id)
def test_the_bug_is_caught(bug, where, judge, monkeypatch):
    with monkeypatch.context() as planted:
        planted.setattr(where, bug)
        with pytest.raises(BY_ITS_NAME.get(bug, CAUGHT)):
            judge()
