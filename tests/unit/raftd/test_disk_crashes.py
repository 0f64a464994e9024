"""What a power cut leaves on a disk, beside a plain dictionary; and what the kernel is asked for.

The log's tests believe the disk in memory; here it has to earn that.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from netstack.runtime.disk import Disk
from netstack.runtime.memory_disk import SECTOR_BYTES, MemoryStorage
from netstack.runtime.os_disk import OsStorage

NAMES = ["a", "f/b", "f/c"]
NAME = st.sampled_from(NAMES)
OFFSET = st.integers(0, 1500)


def a_disk(storage=None) -> Disk:
    return Disk(MemoryStorage() if storage is None else storage, lambda _: None)


class DiskMachine(RuleBasedStateMachine):
    """What is read is what was written; what was synced is there after a power cut."""

    power_cut_mode = False

    def __init__(self) -> None:
        super().__init__()
        self.storage = MemoryStorage()
        self._start()
        self.now: dict[str, bytearray] = {}  # as the process sees it
        self.durable: dict[str, bytes] = {}  # at least, for files that were not written since
        self.dirty: set[str] = set()

    def _start(self) -> None:
        self.disk = a_disk(self.storage)
        self.disk.faults.power_cut = self.power_cut_mode
        self.files = {}

    def _file(self, name: str):
        if name not in self.files:
            self.files[name] = self.disk.open(name)
            if name not in self.now:
                self.now[name], self.durable[name] = bytearray(), b""
        return self.files[name]

    @rule(name=NAME, offset=OFFSET, size=st.integers(1, 1500), byte=st.integers(1, 9))
    def write(self, name: str, offset: int, size: int, byte: int) -> None:
        self._file(name).write_at(offset, bytes([byte]) * size)
        held = self.now[name]
        held.extend(bytes(max(0, offset + size - len(held))))
        held[offset : offset + size] = bytes([byte]) * size
        self.dirty.add(name)

    @rule(name=NAME, size=st.integers(0, 2000))
    def truncate(self, name: str, size: int) -> None:
        self._file(name).truncate(size)
        held = self.now[name]
        del held[size:]
        held.extend(bytes(size - len(held)))
        self.dirty.add(name)

    @rule(name=NAME)
    def sync(self, name: str) -> None:
        self._file(name).sync()
        self.durable[name] = bytes(self.now[name])
        self.dirty.discard(name)

    @rule(name=NAME, offset=st.integers(0, 2500), count=st.integers(0, 2500))
    def read(self, name: str, offset: int, count: int) -> None:
        file = self._file(name)
        assert file.size == len(self.now[name])
        assert file.read_at(offset, count) == bytes(self.now[name][offset : offset + count])

    @rule(name=NAME, data=st.binary(max_size=20), call=st.integers(0, 4))
    def replace(self, name: str, data: bytes, call: int) -> None:
        """It fails as a whole or not at all."""
        if name in self.files:
            return  # a file that is open stays the old one, as everywhere
        self.disk.faults.eio_at = call
        try:
            self.disk.replace(name, data)
        except OSError:
            return
        finally:
            self.disk.faults.heal()
        self.now[name], self.durable[name] = bytearray(data), data
        self.dirty.discard(name)

    @precondition(lambda self: self.now)
    @rule(data=st.data(), seed=st.integers(0, 999))
    def lose_power(self, data: st.DataObject, seed: int) -> None:
        self.storage.crash(random.Random(seed))
        self._start()
        for name in list(self.now):
            found = self.disk.read(name)
            if name not in self.dirty or self.power_cut_mode:
                assert found == self.durable[name], "synced, or never let out of the process"
            self.now[name], self.durable[name] = bytearray(found), found
        self.dirty.clear()


class PowerCutMachine(DiskMachine):
    power_cut_mode = True


for machine in (DiskMachine, PowerCutMachine):
    machine.TestCase.settings = settings(
        max_examples=60, stateful_step_count=40, deadline=None, database=None
    )
TestDiskMachine = DiskMachine.TestCase
TestPowerCutMachine = PowerCutMachine.TestCase


# -- the power goes


def outcomes(work) -> set[bytes]:
    """What a file of two sectors of x can be after a cut in the middle of `work`."""
    found = set()
    for seed in range(200):
        storage = MemoryStorage()
        disk = a_disk(storage)
        with disk.open("a") as file:
            file.write_at(0, b"x" * 2 * SECTOR_BYTES)
            file.sync()
            work(file)
        storage.crash(random.Random(seed))
        found.add(a_disk(storage).read("a"))
    return found


def test_of_an_unsynced_write_any_sectors_may_have_been_kept():
    old, new = b"x" * SECTOR_BYTES, b"y" * SECTOR_BYTES
    found = outcomes(lambda file: file.write_at(0, new + new))
    assert found == {old + old, old + new, new + old, new + new}


def test_of_a_file_that_was_growing_any_length_may_have_been_kept():
    found = outcomes(lambda file: file.append(b"y" * 2 * SECTOR_BYTES))
    assert {len(data) // SECTOR_BYTES for data in found} == {2, 3, 4}
    assert all(data.startswith(b"x" * 2 * SECTOR_BYTES) for data in found)


def test_what_was_synced_is_kept_whatever_came_after_it():
    def work(file) -> None:
        file.write_at(0, b"z" * SECTOR_BYTES)
        file.sync()
        file.write_at(SECTOR_BYTES, b"y")

    assert all(data.startswith(b"z" * SECTOR_BYTES) for data in outcomes(work))


def test_a_process_killed_at_its_next_sync_has_written_and_not_synced():
    storage = MemoryStorage()
    with a_disk(storage).open("a") as file:

        def work() -> None:
            file.write_at(0, b"1")
            file.sync()
            file.write_at(1, b"2")

        storage.run_unsynced(work)
        assert file.read_at(0, 9) == b"1"
        file.sync()


@pytest.mark.parametrize("power_cut", [False, True])
def test_a_clean_exit_loses_nothing(power_cut):
    storage = MemoryStorage()
    disk = a_disk(storage)
    disk.faults.power_cut = power_cut
    with disk.open("a") as file:
        file.write_at(0, b"data")
        assert file.read_at(0, 9) == b"data"
    assert a_disk(storage).read("a") == b"data"


# -- the operating system's files


@pytest.fixture(params=["memory", "files"])
def storage(request, tmp_path: Path):
    return MemoryStorage() if request.param == "memory" else OsStorage(tmp_path / "disk")


def test_both_storages_do_the_same(storage):
    disk = a_disk(storage)
    assert disk.list("f") == []
    assert not disk.exists("f/b")
    with pytest.raises(FileNotFoundError):
        disk.read("f/b")
    with pytest.raises(FileNotFoundError):
        disk.remove("f/b")
    with disk.open("f/b") as file:
        assert file.size == 0
        file.write_at(5, b"tail")
        file.append(b"!")
        assert (file.size, file.read_at(0, 99)) == (10, bytes(5) + b"tail!")
        file.truncate(3)
        file.truncate(6)
        assert (file.read_at(0, 99), file.read_at(4, 1), file.read_at(9, 1)) == (
            bytes(6),
            b"\0",
            b"",
        )
        file.sync()
    disk.replace("f/c", b"one")
    disk.replace("f/c", b"two")
    disk.rename("f/b", "f/d")
    assert disk.list("f") == ["c", "d"]
    assert (disk.read("f/c"), disk.read("f/d")) == (b"two", bytes(6))
    assert disk.list("") == []
    disk.remove("f/d")
    assert disk.list("f") == ["c"]
    assert disk.free_bytes() > 0


def test_files_outlive_the_process(tmp_path):
    a_disk(OsStorage(tmp_path / "disk")).replace("f/a", b"data")
    assert a_disk(OsStorage(tmp_path / "disk")).read("f/a") == b"data"


def test_what_the_kernel_takes_in_pieces_is_written_whole(tmp_path, monkeypatch):
    real_write, real_read = os.pwrite, os.pread
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real_write(fd, bytes(data)[:3], at))
    monkeypatch.setattr(os, "pread", lambda fd, count, at: real_read(fd, min(count, 4), at))
    with a_disk(OsStorage(tmp_path)).open("a") as file:
        file.write_at(2, b"0123456789")
        assert file.read_at(0, 99) == bytes(2) + b"0123456789"


class Syncs:
    """Which files and folders the kernel was asked to make durable."""

    def __init__(self, monkeypatch) -> None:
        self.paths: list[Path] = []
        for name in ("fsync", "fdatasync"):
            monkeypatch.setattr(os, name, self._noting(getattr(os, name)))

    def _noting(self, real):
        def sync(descriptor: int) -> None:
            self.paths.append(Path(f"/proc/self/fd/{descriptor}").resolve())
            real(descriptor)

        return sync


def test_a_replaced_file_is_synced_before_it_takes_its_place_and_its_folder_after(
    tmp_path, monkeypatch
):
    disk = a_disk(OsStorage(tmp_path))
    disk.replace("f/a", b"old")
    syncs = Syncs(monkeypatch)
    disk.replace("f/a", b"new")
    assert syncs.paths == [tmp_path / "f/a.new", tmp_path / "f"]


def test_a_folder_that_was_made_is_synced_into_the_one_above(tmp_path, monkeypatch):
    """Or a power cut may take the folder, with all files that were synced in it."""
    disk = a_disk(OsStorage(tmp_path / "disk"))
    syncs = Syncs(monkeypatch)
    disk.replace("f/a", b"data")
    assert tmp_path / "disk" in syncs.paths
