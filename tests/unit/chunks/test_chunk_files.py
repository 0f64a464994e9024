"""Chunks on one disk: written in order, whole or not at all, checked at every read."""

from __future__ import annotations

import errno
import os
import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mapreduce.store import blocks
from mapreduce.store.blocks import BLOCK_BYTES, block_sums, parse, read_trailer, stored_bytes
from mapreduce.store.chunk_files import PARTS, WHOLE, Absent, ChunkFiles, OutOfOrder
from mapreduce.store.errors import Damaged
from netstack.runtime.disk import Disk
from netstack.runtime.failpoints import Died, Failpoints
from netstack.runtime.memory_disk import MemoryStorage

NAME = "0123456789abcdef/00000002"
FILE = f"{WHOLE}/0123456789abcdef-00000002"
DATA = random.Random(0).randbytes(2 * BLOCK_BYTES + 1000)


class Place:
    """A disk in power-cut mode, and the lives of a server on it."""

    def __init__(self):
        self.storage = MemoryStorage()
        self.begin()

    def begin(self):
        self.disk = Disk(self.storage, lambda s: None)
        self.disk.faults.power_cut = True
        self.disk.failpoint = self.points = Failpoints(self._die, lambda s: None)
        self.files = ChunkFiles(self.disk)
        self.files.recover()

    def _die(self):
        raise Died

    def cut_power(self, seed=0):
        self.storage.crash(random.Random(seed))
        self.begin()

    def write(self, data=DATA, version=1, step=BLOCK_BYTES):
        for at in range(0, max(len(data), 1), step):
            self.files.write(NAME, version, at, data[at : at + step])
        self.files.finish(NAME, version, len(data))

    def flip(self, offset, bit=1):
        self.storage._files[FILE].data[offset] ^= bit


@pytest.fixture
def place():
    return Place()


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, len(DATA)])
def test_what_is_written_is_read(place, size):
    place.write(DATA[:size])
    assert place.files.read(NAME, 1, 0, 10**9) == DATA[:size]
    assert (
        place.files.read(NAME, 1, size - 5 if size > 5 else 0, 3)
        == DATA[:size][size - 5 if size > 5 else 0 :][:3]
    )
    assert place.disk.open(FILE).size == stored_bytes(size)


def test_any_part_of_it(place):
    place.write()
    for offset, length in ((0, 1), (BLOCK_BYTES - 1, 2), (70_000, 65_000), (len(DATA), 5)):
        assert place.files.read(NAME, 1, offset, length) == DATA[offset : offset + length]


def test_it_is_there_after_a_power_cut(place):
    place.write()
    place.cut_power()
    assert place.files.read(NAME, 1, 0, len(DATA)) == DATA


@pytest.mark.parametrize("point", ["chunks.finish.before-sync", "chunks.finish.before-rename"])
def test_power_cut_while_it_is_finished_leaves_all_or_nothing(place, point):
    place.points.apply({point: {"action": "crash"}})
    with pytest.raises(Died):
        place.write()
    for seed in range(5):
        place.cut_power(seed)
        assert place.files.held == {}
        assert place.disk.list(PARTS) == []


@pytest.mark.parametrize("where", ["first", "middle", "last", "sums", "trailer", "magic"])
def test_no_bit_flips_unseen(place, where):
    place.write()
    size = stored_bytes(len(DATA))
    offset = {
        "first": 0,
        "middle": BLOCK_BYTES + 7,
        "last": len(DATA) - 1,
        "sums": len(DATA) + 2,
        "trailer": size - 20,
        "magic": size - blocks.TRAILER_BYTES,
    }[where]
    place.flip(offset)
    if where in ("first", "middle", "last"):
        with pytest.raises(Damaged):
            list(place.files.verify(NAME, 1))
        with pytest.raises(Damaged):
            place.files.read(NAME, 1, offset, 1)
        assert not place.files.good(NAME, 1, len(DATA))
    else:
        place.begin()
        assert place.files.unreadable == [FILE.rpartition("/")[2]]
        assert place.files.held == {}


def test_the_blocks_beside_a_damaged_one_are_still_served(place):
    place.write()
    place.flip(BLOCK_BYTES + 1)
    assert place.files.read(NAME, 1, 0, BLOCK_BYTES) == DATA[:BLOCK_BYTES]
    assert place.files.read(NAME, 1, 2 * BLOCK_BYTES, 10) == DATA[2 * BLOCK_BYTES :][:10]


def test_a_damaged_chunk_is_replaced_by_a_good_one(place):
    place.write()
    place.flip(3)
    with pytest.raises(Damaged):
        place.files.read(NAME, 1, 0, 5)
    place.write()
    assert place.files.good(NAME, 1, len(DATA))
    assert place.files.read(NAME, 1, 0, 5) == DATA[:5]


def test_another_version_is_absent(place):
    place.write(version=2)
    for version in (1, 3):
        with pytest.raises(Absent, match="version 2"):
            place.files.read(NAME, version, 0, 1)
    with pytest.raises(Absent, match="not here"):
        place.files.read("0123456789abcdef/00000000", 1, 0, 1)


def test_a_later_version_takes_the_place_of_an_earlier(place):
    place.write(version=1)
    place.write(DATA[::-1], version=2)
    assert place.files.read(NAME, 2, 0, 9) == DATA[::-1][:9]


def test_pieces_come_in_order(place):
    with pytest.raises(OutOfOrder, match="not being written"):
        place.files.write(NAME, 1, BLOCK_BYTES, b"x")
    place.files.write(NAME, 1, 0, DATA[:BLOCK_BYTES])
    with pytest.raises(OutOfOrder, match="does not follow"):
        place.files.write(NAME, 1, 2 * BLOCK_BYTES, b"x")
    with pytest.raises(OutOfOrder, match="was not written to"):
        place.files.finish(NAME, 1, len(DATA))


def test_a_piece_that_comes_twice_is_written_once(place):
    for _ in range(2):
        place.files.write(NAME, 1, 0, DATA[:BLOCK_BYTES])
    place.files.write(NAME, 1, BLOCK_BYTES, DATA[BLOCK_BYTES:])
    for _ in range(2):
        place.files.finish(NAME, 1, len(DATA))
    assert place.files.read(NAME, 1, 0, len(DATA)) == DATA


def test_an_older_writer_does_not_disturb_a_newer(place):
    place.files.write(NAME, 2, 0, DATA[:BLOCK_BYTES])
    with pytest.raises(OutOfOrder):
        place.files.write(NAME, 1, 0, b"old")
    place.files.finish(NAME, 2, BLOCK_BYTES)


def test_a_full_disk_leaves_nothing_half_written(place):
    place.files.write(NAME, 1, 0, DATA[:BLOCK_BYTES])
    place.disk.faults.full = True
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        place.files.write(NAME, 1, BLOCK_BYTES, DATA[BLOCK_BYTES:])
    assert place.files.parts() == {}
    assert place.disk.list(PARTS) == []


def test_a_sync_that_fails_promises_nothing(place):
    place.disk.faults.sync_error = True
    with pytest.raises(OSError, match="error"):
        place.write()
    assert place.files.held == {}
    place.write()
    assert place.files.good(NAME, 1, len(DATA))


def test_a_chunk_under_another_s_name_is_not_taken_for_it(place):
    place.write()
    place.storage.rename(FILE, FILE[:-1] + "7")
    place.begin()
    assert place.files.held == {}


def test_what_is_deleted_is_gone(place):
    place.write()
    place.files.delete(NAME)
    place.files.delete(NAME)
    place.begin()
    assert place.files.held == {}


def test_the_form_of_a_chunk_s_end():
    sums = blocks.Sums(NAME, 3, len(DATA), block_sums(DATA))
    footer = sums.trailer()
    assert len(DATA) + len(footer) == stored_bytes(len(DATA))
    assert read_trailer(stored_bytes(len(DATA)), footer[-blocks.TRAILER_BYTES :]) == len(footer)
    assert parse(footer) == sums
    with pytest.raises(Damaged, match="fit"):
        read_trailer(stored_bytes(len(DATA)) + 1, footer[-blocks.TRAILER_BYTES :])


class FilesMachine(RuleBasedStateMachine):
    """Against a map of what was promised; power cuts and bit flips in between."""

    def __init__(self):
        super().__init__()
        self.place = Place()
        self.promised: dict[str, tuple[int, bytes]] = {}
        self.flipped: set[str] = set()
        self.seed = 0

    names = st.sampled_from([f"0123456789abcdef/0000000{i}" for i in range(3)])

    @rule(name=names, blocks=st.integers(0, 2), rest=st.integers(0, 40), whole=st.booleans())
    def write(self, name, blocks, rest, whole):
        self.seed += 1
        data = random.Random(self.seed).randbytes(blocks * BLOCK_BYTES + rest)
        version = self.seed  # each time it is begun, a later one
        files = self.place.files
        for at in range(0, max(len(data), 1), BLOCK_BYTES):
            files.write(name, version, at, data[at : at + BLOCK_BYTES])
        if whole:
            files.finish(name, version, len(data))
            self.promised[name] = (version, data)
            self.flipped.discard(name)

    @rule(name=names)
    def delete(self, name):
        self.place.files.delete(name)
        self.promised.pop(name, None)
        self.flipped.discard(name)

    @rule(name=names, offset=st.integers(0, 10**6))
    def flip(self, name, offset):
        version, data = self.promised.get(name, (0, b""))
        if data:
            path = f"{WHOLE}/{name.replace('/', '-')}"
            offset %= len(data)
            self.place.storage._files[path].data[offset] ^= 1
            self.promised[name] = (version, data)
            self.flipped.add(name)

    @rule(seed=st.integers(0, 100))
    def power_cut(self, seed):
        self.place.cut_power(seed)

    @invariant()
    def all_that_was_promised_is_there(self):
        files = self.place.files
        assert set(files.held) == set(self.promised)
        for name, (version, data) in self.promised.items():
            try:
                read = files.read(name, version, 0, 10**9)
            except Damaged:
                assert name in self.flipped
            else:
                assert read == data, "damaged bytes were handed out"


TestFiles = FilesMachine.TestCase
TestFiles.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
