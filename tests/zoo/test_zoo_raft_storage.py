"""Planted bugs of disk, log, snapshots, store and what hangs on it; and what catches each.

A judge is a test of tests/unit/raftd, where it passes; here it must fail. test_zoo_wal.py and
test_zoo_store.py have those that an example catches; most of these take a machine.
"""

from __future__ import annotations

import contextlib
import heapq
import importlib
import random
import sys
from pathlib import Path

import google_crc32c
import msgpack
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from netstack.runtime.disk import DiskFile
from netstack.runtime.memory_disk import MemoryStorage
from raftd import commands, snapshot_store, store
from raftd import wal as wal_module
from raftd.lease import LeaseKeeper
from raftd.sessions import UNKNOWN, Sessions
from raftd.store import FAILED, Frozen, Store
from raftd.wal import DamagedLog, Wal
from raftd.watch import Batch, Watcher, WatchHub

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "raftd"))
kit = importlib.import_module("storage_kit")
logs = importlib.import_module("test_wal")
snapshots = importlib.import_module("test_snapshot_store")
stores = importlib.import_module("test_store_machine")
sessions = importlib.import_module("test_sessions")
watches = importlib.import_module("test_watch")
leases = importlib.import_module("test_lease")
disks = importlib.import_module("test_disk_crashes")
asked = importlib.import_module("test_commands")


CAUGHT = (AssertionError, DamagedLog, pytest.fail.Exception)


def machine(name: str, of: type):
    """A judge that runs a state machine until it finds something."""

    def judge() -> None:
        run_state_machine_as_test(
            of,
            settings=settings(
                max_examples=1_000,
                stateful_step_count=40,
                deadline=None,
                database=None,
                derandomize=True,
                phases=(Phase.generate,),
                report_multiple_bugs=False,
            ),
        )

    judge.__name__ = name
    return judge


the_log = machine("the_log", logs.WalMachine)
half_installed = machine("half_installed", logs.WithHalfInstalledSnapshots)
the_store = machine("the_store", stores.StoreAndModel)
the_clients = machine("the_clients", sessions.SessionMachine)
the_watchers = machine("the_watchers", watches.WatchMachine)
the_disk = machine("the_disk", disks.DiskMachine)
the_disk_in_power_cut_mode = machine("the_disk_in_power_cut_mode", disks.PowerCutMachine)
the_keeper = machine("the_keeper", leases.KeeperMachine)


def every_append_cut_off():
    for batch in logs.BATCHES.values():
        logs.test_an_append_cut_off_at_any_call_has_happened_or_has_not(batch, 256)


def every_full_disk():
    for batch in logs.BATCHES.values():
        logs.test_a_batch_that_found_no_room_is_appended_as_it_was(batch)


def flips():
    for bit in (0, 7):
        snapshots.test_a_flipped_bit_anywhere_makes_the_one_before_count(bit)


# -- the disk


class ForgetsWhatItSynced(MemoryStorage):
    def sync(self, handle):
        """The next power cut takes it all the same."""


class KeepsAllOrNothing(MemoryStorage):
    def crash(self, rng):
        if rng.random() < 0.5:
            for file in self._files.values():
                file.undo.clear()
        super().crash(random.Random(1))


class ShowsOnlyWhatIsSynced(DiskFile):
    def read_at(self, offset, count):
        return self._storage.pread(self._handle, offset, count)


class LetsItOutAtOnce(DiskFile):
    def write_at(self, offset, data):
        super().write_at(offset, data)
        self._storage.pwrite(self._handle, offset, data)
        self._pending.clear()


# -- the log


class ReportsBeforeItSyncs(Wal):
    def _write(self, payload):
        before_sync, self._disk.before_sync = self._disk.before_sync, lambda: False
        try:
            super()._write(payload)
        finally:
            self._disk.before_sync = before_sync


def does_not_sync_what_it_renames(self):
    if not self.path.endswith(".new"):
        real_sync(self)


real_sync = DiskFile.sync


class CutsAfterItAppends(Wal):
    def _apply_item(self, item, entries):
        reset, cut, added, hard_state = item
        entries = super()._apply_item([reset, None, added, hard_state], entries)
        return entries if cut is None else [known for known in entries if known.index < cut]


class CountsTheAttempt(Wal):
    def _write(self, payload):
        self._sequence += 1
        super()._write(payload)
        self._sequence -= 1


class WritesItemByItem(Wal):
    def append(self, persists):
        for persist in persists:
            super().append([persist])


class KeepsEverySegment(Wal):
    def _remove_segments(self, index):
        """Room is cheap."""


class CountsOneTooFar(Wal):
    def _remove_segments(self, index):
        super()._remove_segments(index + 1)


class NeverSaysThatASnapshotCame(Wal):
    def _write(self, payload):
        items = msgpack.unpackb(payload)
        if len(items) > 1 or items[0][0] is None or items[0][2] or items[0][3]:
            super()._write(payload)


class ZerosAreTheEnd(Wal):
    def _judge_end(self, path, data, offset, *, is_last):
        if data[offset : offset + wal_module.HEADER.size].strip(b"\0"):
            super()._judge_end(path, data, offset, is_last=is_last)


class MendsWhatItRefuses(Wal):
    def _replay(self, restored):
        try:
            return super()._replay(restored)
        except DamagedLog:
            self._write(msgpack.packb([[restored.snapshot.index, None, [], None]]))
            raise


def copies_first(data, offset, salt):
    if offset + wal_module.HEADER.size <= len(data):
        start = offset + wal_module.HEADER.size
        data[start : start + wal_module.HEADER.unpack_from(data, offset)[1]]
    return real_parse(data, offset, salt)


real_parse = wal_module._parse


# -- snapshots


def believes_the_head(content):
    with contextlib.suppress(msgpack.UnpackException, ValueError, TypeError):
        head = msgpack.Unpacker()
        head.feed(content[4:])
        index, term, membership = head.unpack()
        members = snapshot_store.Membership.unpack(membership)
        data = content[4 + head.tell() :]
        return snapshot_store.SnapshotMeta(index, term, members), data
    return None


def writes_in_place(disk, meta, parts):
    whole = b"".join(parts)
    with disk.open(f"snap/{meta.index:020d}.snap") as file:
        body = msgpack.packb([meta.index, meta.term, meta.membership.pack()]) + whole
        file.write_at(0, google_crc32c.value(body).to_bytes(4, "big"))
        file.append(body)
        file.sync()
    return whole


def removes_whatever_is_old(disk, index):
    for name in sorted(disk.list("snap"))[: -snapshot_store.KEPT]:
        disk.remove(f"snap/{name}")


def takes_the_oldest(disk):
    for name in disk.list("snap"):
        return snapshot_store._parse(disk.read(f"snap/{name}")), 0
    return None, 0


# -- the store


class LooksAtItsModelWhileItSits(Frozen):
    def parts(self):
        self._histories = [(history, len(history)) for history, _ in self._histories]
        return super().parts()


class OneCompareWillDo(Store):
    def _txn(self, compares, then, otherwise):
        holding = [compare for compare in compares if self._holds(*compare)]
        return super()._txn(holding[:1] or compares, then, otherwise)


class MoreWhenItIsJustEnough(Store):
    def range(self, *of, **how):
        pairs, more, count = super().range(*of, **how)
        return pairs, more or bool(pairs and len(of) > 3 and of[3] == count), count


class KeepsWhatIsDeleted(Store):
    def _compact_to(self, revision):
        histories, keys = dict(self._histories), list(self._keys)
        super()._compact_to(revision)
        for key in keys:
            if key not in self._histories:
                self._histories[key] = histories[key]
                self._keys.add(key)


class KeepsWhatItHadBefore(Store):
    def restore(self, data):
        before = self._lease_keys
        super().restore(data)
        self._lease_keys = {**before, **self._lease_keys}


class CompactsFromWhereItBegan(Store):
    def restore(self, data):
        super().restore(data)
        self.compacted = max(0, self.compacted - 1)


class LooksIntoTheFuture(Store):
    def range(self, key, range_end=b"", revision=0, *of, **how):
        return super().range(key, range_end, min(revision, self.revision), *of, **how)


# -- sessions


class TrustsWhoeverComesBack(Sessions):
    def lookup(self, session_id, sequence, done, *, retry, base, index):
        again = retry and session_id not in self._sessions
        return super().lookup(session_id, sequence, done, retry=again, base=base, index=index)


class ForgetsOneAnswerTooMany(Sessions):
    def lookup(self, session_id, sequence, done, *, retry, base, index):
        found = super().lookup(session_id, sequence, done, retry=retry, base=base, index=index)
        if session_id in self._sessions:
            self._sessions[session_id].answers.pop(done, None)
        return found


class RemembersSuccessOnly(Sessions):
    def record(self, session_id, sequence, answer):
        if answer[0] != FAILED:
            super().record(session_id, sequence, answer)


class HorizonIsTheFirst(Sessions):
    def lookup(self, session_id, sequence, done, *, retry, base, index):
        before = self.horizon
        found = super().lookup(session_id, sequence, done, retry=retry, base=base, index=index)
        self.horizon = before or self.horizon
        return found


class LoadsInAnyOrder(Sessions):
    def load(self, dumped):
        super().load([dumped[0], sorted(dumped[1])])


class LetsTheLateTakeBack(Sessions):
    def lookup(self, session_id, sequence, done, *, retry, base, index):
        known = self._sessions.get(session_id)
        if known is not None:
            known.done = min(known.done, done)
        return super().lookup(session_id, sequence, done, retry=retry, base=base, index=index)


class RefusesAndForgets(Sessions):
    def lookup(self, session_id, sequence, done, *, retry, base, index):
        found = super().lookup(session_id, sequence, done, retry=retry, base=base, index=index)
        if found is not UNKNOWN and session_id not in self._sessions:
            self._sessions.popitem(last=False)
        return found


# -- watches


class ParksSilently(Watcher):
    def offer(self, revision, events):
        wake, self._wake = self._wake, lambda: None
        before = len(self._pending)
        super().offer(revision, events)
        self._wake = wake
        if len(self._pending) > before:
            wake()


class TearsRevisionsApart(Watcher):
    def take(self):
        return [Batch(b.revision, [event]) for b in super().take() for event in b.events]


class NeverParks(Watcher):
    def offer(self, revision, events):
        watch, most = sys.modules["raftd.watch"], sys.modules["raftd.watch"].PENDING_MAX
        watch.PENDING_MAX = 10**9
        super().offer(revision, events)
        watch.PENDING_MAX = most


class MissesTheSnapshot(Watcher):
    def lost_touch(self):
        """It goes on with what comes next."""


class ForgetsToSayThatThereIsMore(Watcher):
    def take(self):
        wake, self._wake = self._wake, lambda: None
        try:
            return super().take()
        finally:
            self._wake = wake


class JoinsWithAGap(Watcher):
    def _catch_up(self):
        super()._catch_up()
        self._next += not self._behind


class TellsWhatIsLeft(WatchHub):
    def since(self, revision):
        return super().since(max(revision, self._store.compacted + 1))


class RebuildsByKey(WatchHub):
    def rebuild(self, versions):
        super().rebuild(versions)
        self._history = [(at, [event]) for at, events in self._history for event in events]


# -- leases


class PromisesWhatIsGoing(LeaseKeeper):
    def keep(self, lease_id, ttl_s, now):
        self._deadlines[lease_id] = now + ttl_s
        heapq.heappush(self._heap, (now + ttl_s, lease_id))

    def remaining(self, lease_id, now):
        return max(0.0, self._deadlines.get(lease_id, now) - now)


class ANewLeaderIsStrict(LeaseKeeper):
    def start(self, leases, now):
        before = dict(self._deadlines)
        super().start(leases, now)
        for lease_id in before.keys() & leases.keys():
            self._deadlines[lease_id] = before[lease_id]
            heapq.heappush(self._heap, (before[lease_id], lease_id))


class GivesUpOnAFailure(LeaseKeeper):
    def not_revoked(self, lease_id, now):
        self._revoking.discard(lease_id)


class BringsTheRevokedBack(LeaseKeeper):
    def not_revoked(self, lease_id, now):
        self._deadlines.setdefault(lease_id, now)
        super().not_revoked(lease_id, now)


# -- commands


def takes_the_end_in(key, begin, end):
    return real_in_range(key, begin, end) or (bool(end) and key == end)


real_in_range = commands.in_range


def ends_at_the_last_byte(prefix):
    return prefix[:-1] + bytes([min(prefix[-1] + 1, 255)])


def does_not_look_inside(compares, then, otherwise, depth):
    flat = [[op for op in branch if op[:1] != [commands.TXN]] for branch in (then, otherwise)]
    return real_check_txn(compares, *flat, depth)


real_check_txn = commands._check_txn

DISK_FILE = "netstack.runtime.disk.DiskFile"
LOG, TABLE, WATCHER = "storage_kit.Wal", "raftd.store.Sessions", "raftd.watch.Watcher"
STORE, KEEPER = "test_store_machine.Store", "test_lease.LeaseKeeper"
HUB = "raftd.store.WatchHub"
ZOO = [
    (ForgetsWhatItSynced, "test_disk_crashes.MemoryStorage", the_disk),
    (
        KeepsAllOrNothing,
        "test_disk_crashes.MemoryStorage",
        disks.test_of_an_unsynced_write_any_sectors_may_have_been_kept,
    ),
    (ShowsOnlyWhatIsSynced, DISK_FILE, the_disk_in_power_cut_mode),
    (LetsItOutAtOnce, DISK_FILE, the_disk_in_power_cut_mode),
    (ReportsBeforeItSyncs, LOG, the_log),
    (ReportsBeforeItSyncs, LOG, every_append_cut_off),
    (does_not_sync_what_it_renames, "netstack.runtime.disk.DiskFile.sync", the_log),
    (CutsAfterItAppends, LOG, the_log),
    (CountsTheAttempt, LOG, every_full_disk),
    (WritesItemByItem, LOG, every_append_cut_off),
    (WritesItemByItem, LOG, logs.test_a_batch_is_one_sync),
    (
        KeepsEverySegment,
        LOG,
        logs.test_a_snapshot_lets_go_of_the_segments_before_it_and_of_no_others,
    ),
    (CountsOneTooFar, LOG, logs.test_a_segment_stays_while_one_entry_in_it_is_needed),
    (NeverSaysThatASnapshotCame, LOG, half_installed),
    (
        NeverSaysThatASnapshotCame,
        LOG,
        logs.test_what_follows_a_snapshot_that_overtook_the_log_is_kept,
    ),
    (
        ZerosAreTheEnd,
        LOG,
        lambda: logs.test_a_piece_of_the_log_that_reads_as_zeros_is_missed(1),
    ),
    (MendsWhatItRefuses, LOG, logs.test_a_log_that_was_refused_is_refused_again),
    (believes_the_head, "raftd.snapshot_store._parse", flips),
    (
        writes_in_place,
        "test_snapshot_store.save",
        lambda: snapshots.test_a_save_that_fails_at_any_call_leaves_what_was_there(False),
    ),
    (
        removes_whatever_is_old,
        "test_snapshot_store.remove_older",
        snapshots.test_none_that_is_newer_than_asked_for_is_removed,
    ),
    (takes_the_oldest, "raftd.wal.load_newest", the_log),
    (LooksAtItsModelWhileItSits, "raftd.store.Frozen", the_store),
    (OneCompareWillDo, STORE, the_store),
    (MoreWhenItIsJustEnough, STORE, the_store),
    (KeepsWhatIsDeleted, STORE, the_store),
    (KeepsWhatItHadBefore, STORE, the_store),
    (CompactsFromWhereItBegan, STORE, the_store),
    (LooksIntoTheFuture, STORE, the_store),
    (TrustsWhoeverComesBack, TABLE, the_clients),
    (
        TrustsWhoeverComesBack,
        TABLE,
        sessions.test_a_forgotten_session_that_sends_something_new_is_still_a_forgotten_one,
    ),
    (ForgetsOneAnswerTooMany, TABLE, the_clients),
    (RemembersSuccessOnly, TABLE, sessions.test_a_failure_is_an_answer_like_any_other),
    (HorizonIsTheFirst, TABLE, the_clients),
    (LoadsInAnyOrder, TABLE, the_clients),
    (
        LetsTheLateTakeBack,
        TABLE,
        sessions.test_a_late_command_does_not_take_back_what_its_client_has_said,
    ),
    (
        RefusesAndForgets,
        "test_sessions.Sessions",
        sessions.test_a_refused_retry_takes_nobody_elses_place,
    ),
    (ParksSilently, WATCHER, the_watchers),
    (TearsRevisionsApart, WATCHER, the_watchers),
    (NeverParks, WATCHER, the_watchers),
    (MissesTheSnapshot, WATCHER, the_watchers),
    (MissesTheSnapshot, WATCHER, watches.test_a_snapshot_wakes_whoever_watches),
    (ForgetsToSayThatThereIsMore, WATCHER, the_watchers),
    (JoinsWithAGap, WATCHER, the_watchers),
    (TellsWhatIsLeft, HUB, the_watchers),
    (RebuildsByKey, HUB, the_watchers),
    (
        PromisesWhatIsGoing,
        KEEPER,
        leases.test_a_lease_that_is_being_revoked_cannot_be_promised_more_time,
    ),
    (ANewLeaderIsStrict, KEEPER, the_keeper),
    (GivesUpOnAFailure, KEEPER, the_keeper),
    (
        BringsTheRevokedBack,
        KEEPER,
        leases.test_a_revocation_that_failed_after_all_does_not_bring_a_lease_back,
    ),
    (
        takes_the_end_in,
        "raftd.commands.in_range",
        asked.test_the_end_of_a_prefix_takes_in_what_begins_with_it_and_no_more,
    ),
    (
        ends_at_the_last_byte,
        "raftd.commands.prefix_end",
        asked.test_the_end_of_a_prefix_takes_in_what_begins_with_it_and_no_more,
    ),
    (
        does_not_look_inside,
        "raftd.commands._check_txn",
        lambda: asked.test_a_refusal_names_the_field_and_what_is_wrong(
            asked.txn(asked.PUT, asked.txn(asked.PUT)), "txn: key b'k' is put twice"
        ),
    ),
]


def _id(value: object) -> str:
    name = getattr(value, "__name__", "")
    return "" if isinstance(value, str) else name.strip("<>")


@pytest.mark.parametrize(("bug", "where", "judge"), ZOO, ids=_id)
def test_the_bug_is_caught(bug, where, judge, monkeypatch):
    with monkeypatch.context() as planted:
        planted.setattr(where, bug)
        for code, operation in store._OPERATIONS.items():
            if operation.__name__ in vars(bug):
                planted.setitem(store._OPERATIONS, code, vars(bug)[operation.__name__])
        with pytest.raises(CAUGHT):
            judge()


def test_the_parse_that_copies_first_is_caught(monkeypatch):
    monkeypatch.setattr(wal_module, "_parse", copies_first)
    with pytest.raises(AssertionError), monkeypatch.context() as inner:
        logs.test_a_torn_tail_full_of_magic_is_judged_without_copying_it_over_and_over(inner)
