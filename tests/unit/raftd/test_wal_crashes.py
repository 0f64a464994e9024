"""The write-ahead log on a disk that loses power, flips bits, fails and fills up."""

from __future__ import annotations

import errno
import random
from dataclasses import dataclass, field

import pytest

from netstack.runtime.disk import Disk
from netstack.runtime.memory_disk import MemoryStorage
from raftd.log import COMMAND, Entry, HardState, SnapshotMeta
from raftd.membership import Membership
from raftd.outputs import Persist
from raftd.wal import DamagedLog, Wal

SMALL = 4096  # bytes a segment: many segments in a short test


@dataclass
class Bench:
    """A log, what was reported durable, and what was under way when the power went."""

    storage: MemoryStorage = field(default_factory=MemoryStorage)
    entries: list[Entry] = field(default_factory=list)
    hard_state: HardState = field(default_factory=HardState)
    sequence: int = 0

    def __post_init__(self) -> None:
        self.disk = Disk(self.storage, lambda _: None)
        self.wal, _ = Wal.open(self.disk, SMALL)

    def persist(self, count: int, term: int, truncate_from: int | None = None) -> Persist:
        """The next batch, and what the log holds once it is durable."""
        kept = [e for e in self.entries if truncate_from is None or e.index < truncate_from]
        first = kept[-1].index + 1 if kept else 1
        added = [
            Entry(first + i, term, COMMAND, b"%d:%d" % (term, first + i) * 8) for i in range(count)
        ]
        self.sequence += 1
        self.expected = kept + added
        self.expected_state = HardState(term, "n1", self.hard_state.commit)
        return Persist(self.sequence, None, truncate_from, added, self.expected_state, ())

    def append(self, count: int, term: int = 1, truncate_from: int | None = None) -> None:
        persist = self.persist(count, term, truncate_from)
        self.wal.append([persist])
        self.entries, self.hard_state = self.expected, self.expected_state

    def reopen(self) -> list[Entry]:
        self.wal.close()
        self.wal, restored = Wal.open(self.disk, SMALL)
        self.restored = restored
        return restored.entries


def test_what_was_appended_is_there_again():
    bench = Bench()
    for term in range(1, 6):
        bench.append(7, term)
    assert bench.reopen() == bench.entries
    assert bench.restored.hard_state == bench.hard_state


def test_a_conflicting_end_stays_replaced():
    bench = Bench()
    bench.append(10, 1)
    bench.append(2, 2, truncate_from=4)
    assert [e.term for e in bench.reopen()] == [1, 1, 1, 2, 2]
    bench.append(1, 3, truncate_from=1)
    assert [(e.index, e.term) for e in bench.reopen()] == [(1, 3)]


def test_the_log_goes_on_over_many_segments():
    bench = Bench()
    for _ in range(100):
        bench.append(3)
        if len(bench.storage.list("wal")) > 3:
            break
    assert len(bench.storage.list("wal")) > 3
    assert bench.reopen() == bench.entries
    bench.append(3, 2)
    assert bench.reopen() == bench.entries


@pytest.mark.parametrize("seed", range(150))
def test_after_a_power_cut_all_that_was_promised_is_there_and_nothing_was_made_up(seed):
    """The batch under way may be there or not; whole, or not at all."""
    rng = random.Random(seed)
    bench = Bench()
    for life in range(1, 5):
        for _ in range(rng.randint(0, 12)):
            last = bench.entries[-1].index if bench.entries else 0
            cut = rng.randint(1, last) if last and rng.random() < 0.2 else None
            bench.append(rng.randint(1, 6), life, cut)
        under_way = bench.persist(rng.randint(1, 40), life)
        bench.storage.run_unsynced(lambda batch=under_way: bench.wal.append([batch]))
        bench.storage.crash(rng)
        found = bench.reopen()
        assert found in (bench.entries, bench.expected)
        assert bench.restored.hard_state in (bench.hard_state, bench.expected_state)
        bench.entries, bench.hard_state = found, bench.restored.hard_state


def test_a_torn_tail_is_cut_and_a_copy_of_it_kept():
    bench = Bench()
    bench.append(5)
    name = bench.storage.list("wal")[-1]
    with bench.disk.open(f"wal/{name}") as file:
        offset = bench.wal._offset
        file.write_at(offset, b"RWA1 half a record")
        file.sync()
    assert bench.reopen() == bench.entries
    assert bench.disk.read("wal/torn-tail").startswith(b"RWA1 half")
    bench.append(5)
    assert bench.reopen() == bench.entries


def _all_bytes_of_the_log(bench: Bench) -> list[tuple[str, int]]:
    names = [n for n in bench.storage.list("wal") if n.endswith(".seg")]
    return [
        (name, offset)
        for name in names
        for offset in range(len(bench.disk.read(f"wal/{name}").rstrip(b"\0")))
    ]


@pytest.mark.parametrize("seed", range(40))
def test_a_flipped_bit_is_refused_or_is_nothing_but_the_tail(seed):
    """Never another log than the one written: refused, or the last batch alone is missing."""
    rng = random.Random(seed)
    bench = Bench()
    before_last: list[Entry] = []
    for _ in range(rng.randint(2, 30)):
        before_last = bench.entries
        bench.append(rng.randint(1, 4))
    name, offset = rng.choice(_all_bytes_of_the_log(bench))
    with bench.disk.open(f"wal/{name}") as file:
        byte = file.read_at(offset, 1)[0]
        file.write_at(offset, bytes([byte ^ 1 << rng.randrange(8)]))
        file.sync()
    found, refusal = None, ""
    try:
        found = bench.reopen()
    except DamagedLog as error:
        refusal = str(error)
    if found is None:
        assert name in refusal
        assert "\n" not in refusal
        assert "ring repair" in refusal
    else:
        # Bytes that nothing reads (padding, the unused field) may be anything.
        assert found in (bench.entries, before_last)


def test_a_missing_segment_is_refused():
    bench = Bench()
    while len(bench.storage.list("wal")) < 4:
        bench.append(5)
    bench.disk.remove(f"wal/{bench.storage.list('wal')[1]}")
    with pytest.raises(DamagedLog):
        bench.reopen()


@pytest.mark.parametrize("call", [1, 2])
def test_an_error_of_the_disk_comes_through_and_the_past_is_untouched(call):
    bench = Bench()
    bench.append(3)
    bench.disk.faults.eio_at = call
    with pytest.raises(OSError, match="error") as caught:
        bench.append(3)
    assert caught.value.errno == errno.EIO
    bench.disk.faults.heal()
    assert bench.reopen()[:3] == bench.entries


def test_a_batch_that_met_a_full_disk_can_be_appended_again():
    bench = Bench()
    bench.append(3)
    bench.disk.faults.full = True
    batch = bench.persist(30, 1)
    for _ in range(3):
        with pytest.raises(OSError, match="space"):
            bench.wal.append([batch])
    bench.disk.faults.full = False
    bench.wal.append([batch])
    assert bench.reopen() == bench.expected


def test_segments_that_a_snapshot_covers_are_deleted_and_no_others():
    bench = Bench()
    while len(bench.storage.list("wal")) < 5:
        bench.append(5)
    middle = bench.entries[len(bench.entries) // 2]
    meta = SnapshotMeta(middle.index, middle.term, Membership.of({"n1": ("127.0.0.1", 1)}))
    from raftd.snapshot_store import save

    save(bench.disk, meta, [b"state"])
    bench.wal.forget_before(meta.index)
    assert 1 < len(bench.storage.list("wal")) < 5
    behind = [e for e in bench.entries if e.index > meta.index]
    assert bench.reopen() == behind
    assert bench.restored.snapshot == meta
    assert bench.restored.snapshot_data == b"state"
    assert bench.restored.hard_state == bench.hard_state


def test_the_hard_state_outlives_the_segment_in_which_it_was_written():
    from raftd.snapshot_store import save

    bench = Bench()
    vote = HardState(7, "n3", 0)
    bench.wal.append([Persist(1, None, None, [], vote, ())])
    index = 0
    while len(bench.storage.list("wal")) < 3:
        index += 1
        entry = Entry(index, 7, COMMAND, b"x" * 100)
        bench.wal.append([Persist(1 + index, None, None, [entry], None, ())])
    members = Membership.of({"n1": ("127.0.0.1", 1)})
    save(bench.disk, SnapshotMeta(index - 1, 7, members), [b""])
    bench.wal.forget_before(index - 1)
    bench.reopen()
    assert bench.restored.hard_state == vote


def test_a_snapshot_of_the_leader_replaces_the_log():
    bench = Bench()
    bench.append(5)
    meta = SnapshotMeta(100, 3, Membership.of({"n1": ("127.0.0.1", 1)}))
    bench.wal.append([Persist(2, (meta, b"theirs"), None, [], HardState(3, None, 100), ())])
    bench.wal.append([Persist(3, None, None, [Entry(101, 3, COMMAND, b"x")], None, ())])
    assert [e.index for e in bench.reopen()] == [101]
    assert bench.restored.snapshot == meta
    assert bench.restored.snapshot_data == b"theirs"


@pytest.mark.parametrize("position", [0, 4, 30, -1])
def test_a_damaged_snapshot_gives_way_to_the_one_before_while_the_log_reaches_back(position):
    from raftd.snapshot_store import save

    bench = Bench()
    bench.append(10)
    members = Membership.of({"n1": ("127.0.0.1", 1)})
    save(bench.disk, SnapshotMeta(4, 1, members), [b"older", b" state"])
    save(bench.disk, SnapshotMeta(8, 1, members), [b"newer state"])
    bench.reopen()
    assert bench.restored.snapshot.index == 8
    name = bench.storage.list("snap")[-1]
    content = bytearray(bench.disk.read(f"snap/{name}"))
    content[position] ^= 0x10
    bench.disk.replace(f"snap/{name}", bytes(content))
    assert [e.index for e in bench.reopen()] == [5, 6, 7, 8, 9, 10]
    assert bench.restored.snapshot.index == 4
    assert bench.restored.snapshot_data == b"older state"


def test_a_damaged_snapshot_whose_entries_are_gone_is_refused():
    from raftd.snapshot_store import save

    bench = Bench()
    members = Membership.of({"n1": ("127.0.0.1", 1)})
    save(bench.disk, SnapshotMeta(8, 1, members), [b"state"])
    name = bench.storage.list("snap")[-1]
    bench.disk.replace(f"snap/{name}", b"rubbish")
    with pytest.raises(DamagedLog, match="snapshot at index 8"):
        bench.reopen()
