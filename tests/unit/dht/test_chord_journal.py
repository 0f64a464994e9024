"""The log of a peer: what is read back after every way in which it can end."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dht.chord.journal import DAMAGED, PATH, Journal
from dht.chord.records import Record
from netstack.runtime.disk import Disk
from netstack.runtime.memory_disk import MemoryStorage


def disk() -> Disk:
    return Disk(MemoryStorage(), lambda seconds: None)


def record(key: str, version: int = 1, value: bytes | None = b"value") -> Record:
    return Record(key.encode(), value, version, "d1/0@1", 0.0)


BATCHES = [[record("a"), record("b")], [record("a", 2)], [b"b"], [record("c", 1, None)]]
ITEMS = [item for batch in BATCHES for item in batch]


def written(on: Disk) -> int:
    journal, items, lost = Journal.open(on)
    assert (items, lost) == ([], 0)
    for batch in BATCHES:
        journal.append(batch)
    end = journal.size
    journal.close()
    return end


def test_what_was_appended_is_read_back_in_order():
    there = disk()
    written(there)
    journal, items, lost = Journal.open(there)
    assert (items, lost) == (ITEMS, 0)
    journal.append([record("d")])
    journal.close()
    assert Journal.open(there)[1] == [*ITEMS, record("d")]


def test_one_batch_is_one_sync_and_zeros_are_laid_out_rarely():
    there = disk()
    journal, _, _ = Journal.open(there)
    for i in range(100):
        journal.append([record(f"k{i}")])
    assert journal.syncs == 100
    assert repr(journal) == f"<Journal {journal.size} B, 100 syncs>"


@given(cut=st.integers(0, 400))
@settings(max_examples=60, deadline=None)
def test_a_log_cut_anywhere_gives_a_prefix(cut):
    there = disk()
    end = written(there)
    with there.open(PATH) as file:
        file.truncate(min(cut, end))
    _, items, lost = Journal.open(there)
    assert items == ITEMS[: len(items)]
    assert lost <= cut


@given(at=st.integers(0, 200), bit=st.integers(0, 7))
@settings(max_examples=60, deadline=None)
def test_a_flipped_bit_ends_the_reading_and_is_kept_aside(at, bit):
    there = disk()
    end = written(there)
    at = min(at, end - 1)
    with there.open(PATH) as file:
        old = file.read_at(at, 1)[0]
        file.write_at(at, bytes([old ^ 1 << bit]))
    journal, items, lost = Journal.open(there)
    assert items == ITEMS[: len(items)]
    assert len(items) < len(ITEMS)
    assert lost > 0
    assert len(there.read(DAMAGED)) == lost
    journal.append([record("after")])
    journal.close()
    assert Journal.open(there)[1] == [*items, record("after")]


def test_a_rewritten_log_holds_just_the_records():
    there = disk()
    journal, _, _ = Journal.open(there)
    for version in range(1, 600):
        journal.append([record("a", version)])
    before = journal.size
    journal.rewrite([record("a", 599), record("b")])
    assert journal.size < before
    journal.append([record("c")])
    journal.close()
    assert Journal.open(there)[1] == [record("a", 599), record("b"), record("c")]


def test_a_full_disk_keeps_nothing_of_the_batch():
    there = disk()
    journal, _, _ = Journal.open(there)
    journal.append([record("a")])
    there.faults.full = True
    with pytest.raises(OSError, match="No space") as caught:
        journal.append([record("b")])
    assert caught.value.errno == errno.ENOSPC
    there.faults.full = False
    journal.append([record("c")])
    journal.close()
    assert Journal.open(there)[1] == [record("a"), record("c")]


def test_something_else_in_its_place_is_kept_aside():
    there = disk()
    there.replace(PATH, b"a letter to grandmother")
    _, items, lost = Journal.open(there)
    assert (items, lost) == ([], 23)
    assert there.read(DAMAGED) == b"a letter to grandmother"
