"""The log beside a plain list: whatever ends the process, what was promised is there again.

test_wal_crashes.py has the examples; here every call of an append is the last one, every byte of
a log is damaged in turn, and a machine does all of it in any order, snapshots included.
"""

from __future__ import annotations

import errno

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from storage_kit import (
    CALLS_MAX,
    SEGMENT,
    Contents,
    Machine,
    contents,
    entries,
    entry,
    failure,
    meta,
    persist,
    state_at,
)

from netstack.runtime.disk import Disk
from netstack.runtime.memory_disk import MemoryStorage
from raftd import wal as wal_module
from raftd.log import Entry, HardState
from raftd.outputs import Persist
from raftd.snapshot_store import save
from raftd.wal import DamagedLog, Wal

SEEDS = st.integers(0, 2**16)
TEARS = range(6)  # what is left of the unsynced writes, six times by chance


def begun(*items: Persist, **options: int) -> tuple[Machine, Contents]:
    """A log in which these are durable."""
    machine, held = Machine(**options), Contents()
    for item in items:
        machine.append(item)
        held = held.after(item)
    return machine, held


# -- the end of the process, at every call


PAST = (persist(entries(1, 4), hard_state=HardState(1, "n1", 2)), persist(entries(5, 7)))
BATCHES = {
    "entries": [persist(entries(8, 9), hard_state=HardState(1, "n1", 7))],
    "a vote": [persist(hard_state=HardState(2, "n2", 7))],
    "another end": [persist(entries(5, 6, 2), cut=5, hard_state=HardState(2, None, 3))],
    "several at once": [
        persist(entries(8, 8)),
        persist(entries(8, 9, 2), cut=8),
        persist(hard_state=HardState(3, "n3", 4)),
    ],
    "more than a segment": [persist([entry(8, 1, b"x" * 3000)])],
}


@pytest.mark.parametrize("batch", BATCHES.values(), ids=list(BATCHES))
@pytest.mark.parametrize("segment", [256, 4096], ids=["rotates", "stays"])
def test_an_append_cut_off_at_any_call_has_happened_or_has_not(batch, segment):
    """Whole or not at all: a commit that is ahead of its entries would apply what they replace."""
    for tear in TEARS:
        for call in range(1, CALLS_MAX):
            machine, before = begun(*PAST, segment=segment)
            after = before
            for item in batch:
                after = after.after(item)
            machine.disk.faults.eio_at = call
            error = failure(lambda log=machine: log.append(*batch))
            if error is None:
                assert call > 2, "a write and a sync at least"
                assert contents(machine.cut_off(tear)) == after
                break
            assert error == errno.EIO
            found = contents(machine.cut_off(tear))
            assert found in (before, after)
            machine.append(*batch)
            assert contents(machine.reopen()) in (after, found.after(batch[-1]))


def test_the_process_may_end_again_while_it_cuts_a_torn_tail():
    for call in range(1, 20):
        machine, held = begun(*PAST, segment=4096)
        machine.wal._file.write_at(machine.wal._offset, wal_module.MAGIC + b"half of it" * 100)
        machine.wal._file.sync()
        machine.disk.faults.eio_at = call
        if failure(machine.reopen) is None:
            assert call > 3, "copy, cut and sync are three calls at least"
            assert contents(machine.restored) == held
            return
        assert contents(machine.cut_off(call)) == held
    pytest.fail("opening never came to an end")


@pytest.mark.parametrize("batch", BATCHES.values(), ids=list(BATCHES))
def test_a_batch_that_found_no_room_is_appended_as_it_was(batch):
    """Full at any moment of it, any number of times; nothing is twice there, nothing missing."""
    refused = 0
    for room in range(CALLS_MAX):
        machine, after = begun(*PAST, segment=256)
        for item in batch:
            after = after.after(item)
        for _ in range(3):
            filling = FillsUp(machine, room)
            error = failure(lambda log=machine: log.append(*batch))
            filling.end()
            if error is None:
                break
            assert error == errno.ENOSPC
            refused += 1
        else:
            machine.append(*batch)
        assert contents(machine.reopen()) == after
        if not filling.refused:
            break
    assert refused


class FillsUp:
    """A disk that takes `room` more changes and then is full."""

    def __init__(self, machine: Machine, room: int) -> None:
        self.room, self.refused = room, False
        self._disk, self._before = machine.disk, machine.disk.before_write
        machine.disk.before_write = self._count

    def _count(self) -> None:
        self.room -= 1
        if self.room < 0:
            self.refused = True
            raise OSError(errno.ENOSPC, "no space left on device")

    def end(self) -> None:
        self._disk.before_write = self._before


# -- damage


def test_every_bit_of_the_past_is_guarded():
    """Damage before the last record is refused in one line, or is where nothing is read."""
    items = [persist(entries(i, i), hard_state=HardState(i)) for i in range(1, 9)]
    machine, held = begun(*items, segment=256)
    assert len(machine.segments()) > 2
    last = (machine.segments()[-1], record_offsets(machine, machine.segments()[-1])[-1])
    refused = unread = 0
    for name in machine.segments():
        end = written_bytes(machine, name)
        for offset in range(end):
            path = f"wal/{name}"
            machine.flip(path, offset, offset % 8)
            in_the_last = (name, offset) >= last
            try:
                found = contents(machine.reopen())
            except DamagedLog as error:
                assert_one_clear_line(str(error), name)
                assert not in_the_last
                refused += 1
            else:
                without_last = held._replace(entries=held.entries[:-1], hard_state=HardState(7))
                assert found == held or (in_the_last and found == without_last)
                unread += found == held
                if found != held:
                    machine.append(persist([held.entries[-1]], hard_state=HardState(8)))
                    continue
            machine.flip(path, offset, offset % 8)
    assert refused > 4 * unread > 0


def assert_one_clear_line(text: str, name: str) -> None:
    assert name in text
    assert "\n" not in text
    assert "ring repair" in text


# What a client would have to guess.
GUESSED = 0x12345678


def record_offsets(machine: Machine, name: str) -> list[int]:
    data, offset, found = machine.disk.read(f"wal/{name}"), 0, []
    salt = wal_module._salt_of(data)
    while (record := wal_module._parse(data, offset, salt)) is not None:
        found.append(offset)
        offset += record[2]
    return found


def written_bytes(machine: Machine, name: str) -> int:
    return len(machine.disk.read(f"wal/{name}").rstrip(b"\0"))


def test_the_first_segment_is_missed_unless_a_snapshot_has_its_entries():
    machine, held = begun(*[persist(entries(i, i)) for i in range(1, 20)])
    machine.disk.remove(f"wal/{machine.segments()[0]}")
    with pytest.raises(DamagedLog, match="before index"):
        machine.reopen()
    save(machine.disk, meta(15), [state_at(15)])
    assert contents(machine.reopen()) == held.with_snapshot(meta(15))


def test_records_of_another_time_are_not_taken_for_the_next():
    """A whole and valid record that does not count on is no part of the log."""
    machine, held = begun(*PAST, segment=4096)
    first = machine.disk.read(f"wal/{machine.segments()[0]}")
    old = first[: record_offsets(machine, machine.segments()[0])[2]]
    machine.wal._file.write_at(machine.wal._offset, old)
    assert contents(machine.reopen()) == held
    machine.append(persist(entries(8, 8)))
    assert contents(machine.reopen()) == held.after(persist(entries(8, 8)))


@pytest.mark.parametrize("record", [1, 2, 5])
def test_a_piece_of_the_log_that_reads_as_zeros_is_missed(record):
    """What a disk gives for a sector that it lost; acknowledged entries follow it."""
    machine, _ = begun(*[persist(entries(i, i)) for i in range(1, 9)], segment=4096)
    name = machine.segments()[0]
    with machine.disk.open(f"wal/{name}") as file:
        file.write_at(record_offsets(machine, name)[record], bytes(32))
        file.sync()
    with pytest.raises(DamagedLog) as caught:
        machine.reopen()
    assert_one_clear_line(str(caught.value), name)


def test_bytes_of_a_client_never_become_a_record():
    """A value that looks like a record is torn at its head; the next append ends before it."""
    machine, held = begun(persist(entries(1, 3)), segment=64 * 1024)
    at, sequence = machine.wal._offset, machine.wal._sequence
    short = persist(entries(4, 4))
    length = len(wal_module._record(0, 0, packed(short)))
    never = packed(persist([entry(5, 9, b"never proposed")]))
    forged = wal_module._record(GUESSED, sequence + 2, never)
    # Of the record under way only this reached the disk: a value, without what came before it.
    machine.wal._file.write_at(at + length, forged)
    machine.wal._file.sync()
    machine.reopen()  # it is no damaged middle either
    machine.append(short)
    assert contents(machine.reopen()) == held.after(short)


def test_a_segment_begins_with_its_first_record_or_is_damaged():
    """It was put in place whole; zeros there are a lost sector, and not the end of the log."""
    machine, _ = begun(*PAST, segment=4096)
    name = machine.segments()[-1]
    with machine.disk.open(f"wal/{name}") as file:
        file.write_at(0, bytes(file.size))
        file.sync()
    with pytest.raises(DamagedLog) as caught:
        machine.reopen()
    assert_one_clear_line(str(caught.value), name)


def test_a_segment_keeps_its_salt_through_later_lives():
    machine, held = begun(persist(entries(1, 3)), segment=64 * 1024)
    for life in range(4, 8):
        machine.wal.close()
        machine.wal, _ = Wal.open(machine.disk, machine.segment, salt=life)
        item = persist(entries(life, life))
        machine.append(item)
        held = held.after(item)
    assert contents(machine.reopen()) == held


def packed(item: Persist) -> bytes:
    return wal_module.msgpack.packb([[None, item.truncate_from, item.entries, None]])


def test_a_torn_tail_full_of_magic_is_judged_without_copying_it_over_and_over(monkeypatch):
    """Else a value of 1 MiB that repeats the magic keeps a node from starting for minutes."""
    copied = 0

    class Counted(bytes):
        def __getitem__(self, key):
            nonlocal copied
            found = super().__getitem__(key)
            if isinstance(key, slice):
                copied += len(found)
            return found

    tail = wal_module.MAGIC * 1000
    machine, _ = begun(persist(entries(1, 3)), segment=64 * 1024)
    machine.wal._file.write_at(machine.wal._offset, tail)
    read = type(machine.disk).read
    monkeypatch.setattr(
        type(machine.disk), "read", lambda self, path: Counted(read(self, path)), raising=True
    )
    machine.reopen()
    assert copied < 100 * machine.segment


# -- the log and its snapshots


def test_a_snapshot_lets_go_of_the_segments_before_it_and_of_no_others():
    machine, held = begun(*[persist(entries(i, i)) for i in range(1, 60)], segment=512)
    for index in (10, 25, 40, 59):
        before = machine.segments()
        save(machine.disk, meta(index), [state_at(index)])
        machine.wal.forget_before(index)
        held = held.with_snapshot(meta(index))
        assert machine.segments() == before[-len(machine.segments()) :]
        assert len(machine.segments()) < len(before)
        assert contents(machine.reopen()) == held
    assert len(machine.segments()) == 1


def test_a_segment_stays_while_one_entry_in_it_is_needed():
    machine, held = begun(*[persist(entries(i, i)) for i in range(1, 60)])
    tops = sorted(machine.wal._segments.values())
    save(machine.disk, meta(tops[1] - 1), [state_at(tops[1] - 1)])
    machine.wal.forget_before(tops[1] - 1)
    assert len(machine.segments()) == len(tops) - 1
    assert contents(machine.reopen()) == held.with_snapshot(meta(tops[1] - 1))


def test_what_follows_a_snapshot_that_was_installed_by_half_is_kept():
    """The snapshot is on disk and the record that says so is not: the power went in between."""
    machine, held = begun(*PAST)
    save(machine.disk, meta(100, 3), [state_at(100)])
    assert contents(machine.reopen()) == Contents(held.hard_state, meta(100, 3))
    item = persist(entries(101, 102, 3), hard_state=HardState(3, None, 102))
    machine.append(item)
    assert contents(machine.reopen()) == Contents(
        item.hard_state, meta(100, 3), tuple(item.entries)
    )


def test_what_follows_a_snapshot_that_overtook_the_log_is_kept():
    """Others had its entries durable; the leader applied them before its own disk had them."""
    machine, held = begun(*PAST)
    save(machine.disk, meta(held.last + 2), [state_at(held.last + 2)])
    machine.reopen()
    item = persist(entries(held.last + 3, held.last + 5))
    machine.append(item)
    assert contents(machine.reopen()).entries == tuple(item.entries)


@pytest.mark.parametrize("index", [5, 7], ids=["in the middle", "at the end"])
def test_a_snapshot_of_another_past_replaces_the_log_for_good(index):
    machine, _ = begun(*PAST)
    save(machine.disk, meta(index, 3), [state_at(index)])
    assert machine.reopen().entries == []
    item = persist(entries(index + 1, index + 2, 3))
    machine.append(item)
    assert contents(machine.reopen()).entries == tuple(item.entries)


def test_a_snapshot_within_the_log_keeps_what_is_behind_it():
    machine, held = begun(*PAST)
    save(machine.disk, meta(6), [state_at(6)])
    assert contents(machine.reopen()) == held.with_snapshot(meta(6))
    machine.append(persist(entries(8, 9)))
    assert [known.index for known in machine.reopen().entries] == [7, 8, 9]


@pytest.mark.parametrize("first", [5, 2])
def test_a_hole_in_the_log_or_a_piece_told_twice_is_damage(first):
    """Each record is whole; what they tell does not fit together."""
    machine, _ = begun(persist(entries(1, 3)), persist(entries(first, 6)))
    with pytest.raises(DamagedLog, match=f"entry {first} follows entry 3 in the log"):
        machine.reopen()


def test_a_log_that_was_refused_is_refused_again():
    """The supervisor starts the node a second time; nothing was mended meanwhile."""
    machine, _ = begun(*[persist(entries(i, i)) for i in range(1, 60)])
    save(machine.disk, meta(5), [state_at(5)])
    machine.disk.remove(f"wal/{machine.segments()[0]}")
    for _ in range(3):
        with pytest.raises(DamagedLog, match="before index"):
            machine.reopen()


def test_a_restart_leaves_the_entries_that_an_older_snapshot_needs():
    machine, held = begun(*[persist(entries(i, i)) for i in range(1, 11)])
    for index in (4, 10):
        save(machine.disk, meta(index), [state_at(index)])
        machine.wal.forget_before(index)
        assert contents(machine.reopen()) == held.with_snapshot(meta(index))
    machine.flip(f"snap/{10:020d}.snap", 40)
    assert contents(machine.reopen()) == held.with_snapshot(meta(4))


def test_without_its_entries_a_damaged_snapshot_is_not_replaced_by_the_one_before():
    machine, _ = begun(*[persist(entries(i, i)) for i in range(1, 60)])
    for index in (10, 50):
        save(machine.disk, meta(index), [state_at(index)])
        machine.wal.forget_before(index)
    machine.flip(f"snap/{50:020d}.snap", 40)
    with pytest.raises(DamagedLog) as caught:
        machine.reopen()
    assert "\n" not in str(caught.value)


# -- any of it, in any order


class WalMachine(RuleBasedStateMachine):
    """Against Contents. The rules end in a restart, after a power cut or without one."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Machine(512)
        self.held = Contents()
        self.term = 1

    def _batch(self, data: st.DataObject) -> list[Persist]:
        held, items = self.held, []
        for _ in range(data.draw(st.integers(1, 3))):
            base = held.snapshot.index if held.snapshot is not None else 0
            cut = None
            if held.last > base and data.draw(st.integers(0, 3)) == 0:
                cut = data.draw(st.integers(base + 1, held.last))
                self.term += 1
            first = cut if cut is not None else held.last + 1
            added: list[Entry] = entries(first, first + data.draw(st.integers(-1, 4)), self.term)
            state = None
            if data.draw(st.booleans()):
                state = HardState(self.term, data.draw(st.sampled_from([None, "n1"])), base)
            items.append(persist(added, cut=cut, hard_state=state))
            held = held.after(items[-1])
        return items

    def _after(self, items: list[Persist]) -> Contents:
        held = self.held
        for item in items:
            held = held.after(item)
        return held

    @rule(data=st.data())
    def append(self, data: st.DataObject) -> None:
        items = self._batch(data)
        self.log.append(*items)
        self.held = self._after(items)

    @rule(data=st.data(), call=st.integers(1, 8), seed=SEEDS)
    def append_and_be_cut_off(self, data: st.DataObject, call: int, seed: int) -> None:
        items = self._batch(data)
        after = self._after(items)
        self.log.disk.faults.eio_at = call
        if failure(lambda: self.log.append(*items)) is None:
            self.held = after
        found = contents(self.log.cut_off(seed))
        half = self.held._replace(hard_state=after.hard_state)
        assert found in (self.held, after, half)
        self.held = found

    @rule(seed=SEEDS)
    def be_cut_off(self, seed: int) -> None:
        assert contents(self.log.cut_off(seed)) == self.held

    @rule()
    def restart(self) -> None:
        assert contents(self.log.reopen()) == self.held

    @precondition(lambda self: self.held.entries)
    @rule(data=st.data())
    def take_a_snapshot(self, data: st.DataObject) -> None:
        at = data.draw(st.sampled_from(self.held.entries))
        save(self.log.disk, meta(at.index, at.term), [state_at(at.index)])
        self.held = self.held.with_snapshot(meta(at.index, at.term))
        self.log.wal.forget_before(at.index)

    @precondition(lambda self: self.held.entries)
    @rule(data=st.data(), call=st.integers(1, 6), seed=SEEDS)
    def be_cut_off_in_a_snapshot(self, data: st.DataObject, call: int, seed: int) -> None:
        at = data.draw(st.sampled_from(self.held.entries))
        of = meta(at.index, at.term)
        self.log.disk.faults.eio_at = call
        if failure(lambda: save(self.log.disk, of, [state_at(at.index)])) is None:
            self.held = self.held.with_snapshot(of)
        assert contents(self.log.cut_off(seed)) == self.held

    @rule(ahead=st.integers(1, 5))
    def install_a_snapshot(self, ahead: int) -> None:
        self.term += 1
        of = meta(self.held.last + ahead, self.term)
        item = persist(
            entries(of.index + 1, of.index + 2, self.term),
            snapshot=(of, state_at(of.index)),
            hard_state=HardState(self.term, None, of.index),
        )
        self.log.append(item)
        self.held = self.held.after(item)


class WithHalfInstalledSnapshots(WalMachine):
    """The same, and the leader's snapshot may come when the power goes."""

    @rule(ahead=st.integers(-3, 5), call=st.integers(1, 8), seed=SEEDS)
    def be_cut_off_while_one_is_installed(self, ahead: int, call: int, seed: int) -> None:
        base = self.held.snapshot.index if self.held.snapshot is not None else 0
        self.term += 1
        of = meta(max(base + 1, self.held.last + ahead), self.term)
        state = HardState(self.term, None, of.index)
        item = persist(snapshot=(of, state_at(of.index)), hard_state=state)
        self.log.disk.faults.eio_at = call
        if failure(lambda: self.log.append(item)) is None:
            self.held = self.held.after(item)
        found = contents(self.log.cut_off(seed))
        assert found.hard_state in (self.held.hard_state, state)
        assert found._replace(hard_state=state) in (
            self.held._replace(hard_state=state),
            Contents(state, of),
        )
        self.held = found


WalMachine.TestCase.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, database=None
)
TestWalMachine = WalMachine.TestCase

WithHalfInstalledSnapshots.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    database=None,
)
TestWithHalfInstalledSnapshots = WithHalfInstalledSnapshots.TestCase


def test_a_log_that_was_never_written_is_empty():
    machine = Machine()
    assert contents(machine.reopen()) == Contents()
    assert machine.segments() == []


def test_a_persist_that_has_nothing_writes_nothing():
    machine, held = begun(*PAST)
    syncs = machine.wal.syncs
    machine.append(persist(), persist())
    assert machine.wal.syncs == syncs
    assert contents(machine.reopen()) == held


def test_a_batch_is_one_sync():
    machine, _ = begun(*PAST, segment=64 * 1024)
    syncs = machine.wal.syncs
    machine.append(*[persist(entries(i, i)) for i in range(8, 28)])
    assert machine.wal.syncs == syncs + 1
    assert isinstance(machine.wal, Wal)


def test_all_syncs_are_timed_those_of_new_segments_too():
    now = [0.0]

    def pause(seconds: float) -> None:
        now[0] += seconds

    disk = Disk(MemoryStorage(), pause)
    disk.faults.apply({"slow_s": 0.25})
    wal, _ = Wal.open(disk, SEGMENT, clock=lambda: now[0])
    for index in range(1, 41):
        wal.append([persist(entries(index, index))])
    segments = len([name for name in disk.list("wal") if name.endswith(".seg")])
    assert segments > 1
    assert wal.syncs == 40 + segments
    assert wal.sync_s == pytest.approx(wal.syncs * 0.25)
    assert wal.sync_s == pytest.approx(now[0])
