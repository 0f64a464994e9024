"""What lies under a disk: memory and files do the same, and only synced bytes survive a crash."""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path

import pytest
from disk_kit import KINDS, Place
from hypothesis import given, settings
from hypothesis import strategies as st

from netstack.runtime.memory_disk import SECTOR_BYTES, MemoryStorage
from netstack.runtime.os_disk import PIECE_BYTES, OsStorage

EXAMPLES = settings(deadline=None, database=None, max_examples=80)
names = st.sampled_from(["a", "b", "d/a", "d/b"])
some_bytes = st.binary(max_size=12)


@pytest.fixture(params=KINDS)
def storage(request, tmp_path):
    return MemoryStorage() if request.param == "memory" else OsStorage(tmp_path / "disk")


@pytest.fixture
def files(tmp_path):
    return OsStorage(tmp_path / "disk")


def make(storage, path, data=b"x", *, sync=True):
    handle = storage.open(path)
    storage.pwrite(handle, 0, data)
    if sync:
        storage.sync(handle)
    storage.close(handle)


class TestBothKinds:
    @EXAMPLES
    @given(
        st.lists(
            st.one_of(
                st.tuples(st.just("write"), names, st.integers(0, 20), some_bytes),
                st.tuples(st.just("truncate"), names, st.integers(0, 20)),
                st.tuples(st.just("read"), names, st.integers(0, 20), st.integers(0, 20)),
                st.tuples(st.just("rename"), names, names),
                st.tuples(st.just("remove"), names),
            ),
            max_size=20,
        )
    )
    def test_do_the_same_as_a_plain_map(self, steps):
        with tempfile.TemporaryDirectory() as folder:
            kinds, model = (MemoryStorage(), OsStorage(Path(folder))), {}
            for verb, name, *args in steps:
                for storage in kinds:
                    _carry_out(storage, model, verb, name, args)
                _carry_out_on_model(model, verb, name, args)
                for storage in kinds:
                    assert storage.list("") == sorted(n for n in model if "/" not in n)
                    assert storage.list("d") == sorted(n[2:] for n in model if n[:2] == "d/")

    def test_list_files_in_order_and_nothing_of_a_folder_that_is_not_there(self, storage):
        for name in ("d/2", "d/10", "d/1", "d/deeper/3", "1"):
            make(storage, name)
        assert storage.list("d") == ["1", "10", "2"]
        assert storage.list("") == ["1"]
        assert storage.list("elsewhere") == []

    def test_raise_file_not_found_for_a_file_that_is_not_there_to_be_removed(self, storage):
        with pytest.raises(FileNotFoundError):
            storage.remove("gone")

    def test_raise_file_not_found_for_a_file_that_is_not_there_to_be_renamed(self, storage):
        with pytest.raises(FileNotFoundError):
            storage.rename("gone", "new")

    def test_let_an_open_file_be_renamed_and_written_on(self, storage):
        handle = storage.open("old")
        storage.rename("old", "new")
        storage.pwrite(handle, 0, b"after")
        storage.close(handle)
        again = storage.open("new")
        assert storage.pread(again, 0, 10) == b"after"
        storage.close(again)
        assert storage.list("") == ["new"]

    def test_make_the_folder_that_a_file_is_renamed_into(self, storage):
        make(storage, "a/f")
        storage.rename("a/f", "b/c/f")
        assert (storage.list("a"), storage.list("b/c")) == ([], ["f"])

    def test_have_room(self, storage):
        make(storage, "f", bytes(1000))
        assert storage.free_bytes() > 1_000_000


def _carry_out(storage, model, verb, name, args):
    if verb in ("rename", "remove"):
        if _can(model, name, *args):
            getattr(storage, verb)(name, *args)
        return
    handle = storage.open(name)
    if verb == "write":
        storage.pwrite(handle, *args)
    elif verb == "truncate":
        storage.truncate(handle, *args)
    else:
        offset, count = args
        assert storage.pread(handle, offset, count) == model.get(name, b"")[offset:][:count]
    if verb == "read":
        assert storage.size(handle) == len(model.get(name, b""))
    storage.close(handle)


def _carry_out_on_model(model, verb, name, args):
    if verb in ("rename", "remove"):
        if _can(model, name, *args):
            data = model.pop(name)
            model.update(dict.fromkeys(args, data))
    else:
        before = model.setdefault(name, b"")
        if verb == "truncate":
            model[name] = before[: args[0]].ljust(args[0], b"\0")
        elif verb == "write" and args[1]:
            offset, data = args
            after = before[offset + len(data) :]
            model[name] = before.ljust(offset, b"\0")[:offset] + data + after


def _can(model, name, new=""):
    """Whether both are there: the file, and the folder that it is to move to."""
    return name in model and (not new or any(Path(n).parent == Path(new).parent for n in model))


class TestACrashOfMemory:
    @EXAMPLES
    @given(
        st.lists(st.tuples(st.integers(0, 30), some_bytes), max_size=6),
        st.lists(st.tuples(st.integers(0, 40), some_bytes), max_size=6),
        st.integers(0, 999),
    )
    def test_leaves_each_byte_as_it_was_synced_or_as_a_later_write_made_it(
        self, before, after, seed
    ):
        storage = MemoryStorage()
        handle = storage.open("f")
        for offset, data in before:
            storage.pwrite(handle, offset, data)
        storage.sync(handle)
        synced = storage.pread(handle, 0, 1000)
        for offset, data in after:
            storage.pwrite(handle, offset, data)
        written = storage.size(handle)
        storage.crash(random.Random(seed))
        found = storage.pread(storage.open("f"), 0, 1000)
        assert len(synced) <= len(found) <= written
        for at, byte in enumerate(found):
            allowed = {synced[at] if at < len(synced) else 0}
            allowed |= {data[at - o] for o, data in after if o <= at < o + len(data)}
            assert byte in allowed

    def test_writes_a_sector_whole_or_not_at_all(self):
        sectors = 4
        seen = set()
        for seed in range(200):
            storage = MemoryStorage()
            make(storage, "f", b"\0" * SECTOR_BYTES * sectors)
            make(storage, "f", b"\1" * SECTOR_BYTES * sectors, sync=False)
            storage.crash(random.Random(seed))
            found = storage.pread(storage.open("f"), 0, SECTOR_BYTES * sectors)
            cut = [found[at : at + SECTOR_BYTES] for at in range(0, len(found), SECTOR_BYTES)]
            assert all(len(set(sector)) == 1 for sector in cut)
            seen.add(tuple(sector[0] for sector in cut))
        assert len(seen) == 2**sectors  # every mixture of old and new has come about

    def test_is_the_same_for_the_same_dice(self):
        ends = []
        for _ in range(2):
            storage = MemoryStorage()
            for name in ("b", "a", "c"):
                make(storage, name, random.Random(name).randbytes(5000), sync=False)
            storage.crash(random.Random(7))
            ends.append([storage.pread(storage.open(name), 0, 5000) for name in "abc"])
        assert ends[0] == ends[1]

    def test_leaves_alone_what_was_synced_after_it(self):
        storage = MemoryStorage()
        make(storage, "f", b"first", sync=False)
        storage.crash(random.Random(1))
        make(storage, "f", b"second")
        storage.crash(random.Random(1))
        assert storage.pread(storage.open("f"), 0, 10) == b"second"

    def test_takes_the_files_from_who_has_them_open(self):
        storage = MemoryStorage()
        handle = storage.open("f")
        storage.crash(random.Random(1))
        storage.pwrite(handle, 0, b"last words")
        storage.sync(handle)
        assert storage.pread(storage.open("f"), 0, 10) == b""


class TestWhatIsForgotten:
    def test_is_what_was_not_synced(self):
        storage = MemoryStorage()
        handle = storage.open("f")
        storage.pwrite(handle, 0, b"0123456789")
        storage.sync(handle)
        storage.pwrite(handle, 8, b"abc")
        storage.truncate(handle, 5)
        storage.truncate(handle, 7)
        storage.pwrite(handle, 20, b"far")
        storage.forget(handle)
        assert storage.pread(handle, 0, 99) == b"0123456789"

    def test_is_nothing_of_real_files(self, files):
        handle = files.open("f")
        files.pwrite(handle, 0, b"kept")
        files.forget(handle)
        assert files.pread(handle, 0, 9) == b"kept"
        files.close(handle)


class TestWorkThatIsKilledAtItsNextSync:
    def test_has_written_what_came_before_and_nothing_after(self):
        storage = MemoryStorage()
        handle = storage.open("f")

        def work():
            storage.pwrite(handle, 0, b"before")
            storage.sync(handle)
            storage.pwrite(handle, 6, b"after")

        storage.run_unsynced(work)
        assert storage.pread(handle, 0, 20) == b"before"

    def test_has_made_nothing_durable(self):
        ends = set()
        for seed in range(40):
            storage = MemoryStorage()
            handle = storage.open("f")

            def work(storage=storage, handle=handle):
                storage.pwrite(handle, 0, b"x")
                storage.sync(handle)

            storage.run_unsynced(work)
            storage.crash(random.Random(seed))
            ends.add(storage.pread(storage.open("f"), 0, 9))
        assert ends == {b"", b"x"}

    def test_leaves_the_disk_able_to_sync(self):
        storage = MemoryStorage()
        storage.run_unsynced(lambda: storage.sync(storage.open("f")))
        storage.run_unsynced(lambda: 1 // 0)
        make(storage, "f", b"kept")
        storage.crash(random.Random(1))
        assert storage.pread(storage.open("f"), 0, 9) == b"kept"


class TestFiles:
    def test_are_written_whole_however_little_the_kernel_takes_at_once(self, files, monkeypatch):
        write, read = os.pwrite, os.pread
        monkeypatch.setattr(os, "pwrite", lambda fd, data, at: write(fd, data[:3], at))
        monkeypatch.setattr(os, "pread", lambda fd, count, at: read(fd, min(count, 2), at))
        handle = files.open("f")
        files.pwrite(handle, 2, b"hello world")
        assert files.pread(handle, 0, 100) == b"\0\0hello world"
        assert files.pread(handle, 2, 7) == b"hello w"
        files.close(handle)

    def test_are_written_in_pieces_that_no_large_folio_holds(self, files, monkeypatch):
        write, sizes = os.pwrite, []

        def watched(fd, data, at):
            sizes.append(len(data))
            return write(fd, data, at)

        monkeypatch.setattr(os, "pwrite", watched)
        make(files, "segment", bytes(5 * PIECE_BYTES // 2))
        assert sizes == [PIECE_BYTES, PIECE_BYTES, PIECE_BYTES // 2]

    def test_are_made_in_folders_that_are_made_too(self, files):
        make(files, "a/b/c", b"deep")
        assert (files.root / "a" / "b" / "c").read_bytes() == b"deep"

    def test_leave_no_descriptor_behind(self, tmp_path):
        place, before = Place("os", tmp_path / "disk"), os.listdir("/proc/self/fd")
        for _ in range(3):
            place.disk.replace("a/f", b"data")
            place.disk.read("a/f")
        assert os.listdir("/proc/self/fd") == before


class TestNamesOfFiles:
    @pytest.fixture
    def synced(self, monkeypatch):
        """Paths that were synced, in order: d for data, n for the names in a folder."""
        calls: list[tuple[str, str]] = []
        for kind, name in (("d", "fdatasync"), ("n", "fsync")):
            real = getattr(os, name)

            def sync(fd, kind=kind, real=real):
                calls.append((kind, os.readlink(f"/proc/self/fd/{fd}")))
                real(fd)

            monkeypatch.setattr(os, name, sync)
        return calls

    def test_are_durable_after_a_replacement(self, synced, tmp_path):
        root = tmp_path / "disk"
        place = Place("os", root)
        (root / "a").mkdir()
        synced.clear()
        place.disk.replace("a/f", b"data")
        assert synced == [("d", f"{root}/a/f.new"), ("n", f"{root}/a")]

    def test_are_durable_in_the_folder_that_a_file_moves_to(self, synced, tmp_path):
        root = tmp_path / "disk"
        place = Place("os", root)
        place.put("new/g", b"")
        place.put("f", b"")
        synced.clear()
        place.disk.rename("f", "new/f")
        assert ("n", f"{root}/new") in synced

    @pytest.mark.parametrize("depth", [1, 2])
    def test_of_new_folders_are_durable_too(self, synced, tmp_path, depth):
        """Or a power cut takes the folder, with all that was synced in it."""
        root = tmp_path / "disk"
        place = Place("os", root)
        place.disk.replace("/".join([*"abc"[:depth], "f"]), b"data")
        holders = [tmp_path, *(root.joinpath(*"abc"[:level]) for level in range(depth))]
        assert {("n", str(folder)) for folder in holders} <= set(synced)
