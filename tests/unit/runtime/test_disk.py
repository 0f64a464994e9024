"""The disk and each fault of it, on memory and on real files: what is lost, and what never is."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path

import pytest
from disk_kit import KINDS, Killed, Place
from hypothesis import given, settings
from hypothesis import strategies as st

from netstack.runtime.disk import DiskFaults

EXAMPLES = settings(deadline=None, database=None, max_examples=60)
SOME_BYTES = st.binary(min_size=1, max_size=12)


@pytest.fixture(params=KINDS)
def place(request, tmp_path):
    made = Place(request.param, tmp_path / "disk")
    yield made
    made.close()


@pytest.fixture
def cut(place):
    """The same in power-cut mode."""
    place.disk.faults.power_cut = True
    return place


def fails(number, call, *args):
    with pytest.raises(OSError, match=os.strerror(number) + "|torn"):
        call(*args)


class TestAFile:
    def test_is_made_empty_when_it_is_opened(self, place):
        file = place.open("wal/1")
        assert (file.size, file.read_at(0, 10)) == (0, b"")
        assert place.disk.exists("wal/1")

    def test_holds_what_is_written_where_it_is_written(self, place):
        file = place.open("f")
        file.append(b"hello")
        file.append(b" world")
        file.write_at(1, b"E")
        assert file.read_at(0, 100) == b"hEllo world"
        assert file.read_at(6, 3) == b"wor"
        assert file.size == 11

    def test_has_zeros_where_nothing_was_written(self, place):
        file = place.open("f")
        file.write_at(3, b"x")
        assert file.read_at(0, 10) == b"\0\0\0x"
        file.truncate(6)
        assert file.read_at(0, 10) == b"\0\0\0x\0\0"
        file.truncate(1)
        assert (file.size, file.read_at(0, 10)) == (1, b"\0")

    def test_is_read_past_its_end_as_nothing(self, place):
        file = place.open("f")
        file.append(b"abc")
        assert file.read_at(3, 5) == b""
        assert file.read_at(100, 5) == b""
        assert file.read_at(1, 0) == b""

    def test_is_not_changed_by_a_write_of_nothing(self, place):
        file = place.open("f")
        file.write_at(5, b"")
        assert (file.size, place.storage.size(file._handle)) == (0, 0)

    def test_is_found_again_under_its_name(self, place):
        with place.disk.open("a/b") as file:
            file.append(b"abc")
        assert place.disk.read("a/b") == b"abc"
        with place.disk.open("a/b") as file:
            assert file.size == 3

    def test_that_is_not_there_is_not_made_by_reading(self, place):
        with pytest.raises(FileNotFoundError):
            place.disk.read("a/b")
        assert not place.disk.exists("a/b")
        assert place.disk.list("a") == []


class TestAFileThatIsOpenTwice:
    def test_is_one_file_until_both_have_closed_it(self, place):
        with place.disk.open("f") as first:
            with place.disk.open("f") as second:
                second.append(b"abc")
                assert (first.size, first.read_at(0, 9)) == (3, b"abc")
            first.append(b"d")
        assert place.read("f") == b"abcd"

    def test_keeps_its_name_when_it_is_renamed(self, place):
        with place.disk.open("f") as first:
            place.disk.rename("f", "g")
            with place.disk.open("g") as second, place.disk.open("f") as other:
                second.append(b"abc")
                assert (first.size, other.size) == (3, 0)
        assert (place.read("f"), place.read("g")) == (b"", b"abc")

    @pytest.mark.parametrize("change", ["remove", "replace"])
    def test_is_another_than_the_one_that_was_put_in_its_place(self, place, change):
        with place.disk.open("f") as old:
            old.append(b"old")
            if change == "remove":
                place.disk.remove("f")
                place.disk.open("f").close()
            else:
                place.disk.replace("f", b"")
            old.append(b"er")
            assert old.read_at(0, 9) == b"older"
            assert place.disk.read("f") == b""
        assert place.read("f") == b""


class TestPowerCutMode:
    def test_shows_what_was_written_before_it_is_synced(self, cut):
        file = cut.open("f")
        file.append(b"hello world")
        file.write_at(0, b"J")
        file.truncate(5)
        file.append(b"!")
        assert file.read_at(0, 100) == b"Jello!"
        assert file.size == 6

    def test_loses_all_that_was_not_synced(self, cut):
        file = cut.open("f")
        file.append(b"kept")
        file.sync()
        file.append(b"lost")
        file.truncate(2)
        assert cut.kill().read("f") == b"kept"

    def test_writes_what_was_not_synced_when_the_file_is_closed_well(self, cut):
        with cut.disk.open("f") as file:
            file.append(b"clean")
        assert cut.read("f") == b"clean"

    @EXAMPLES
    @given(
        st.sampled_from(KINDS),
        st.lists(
            st.one_of(
                st.tuples(st.just("write"), st.integers(0, 20), SOME_BYTES),
                st.tuples(st.just("append"), st.binary(max_size=12)),
                st.tuples(st.just("truncate"), st.integers(0, 20)),
                st.tuples(st.just("sync")),
                st.tuples(st.just("kill")),
            ),
            max_size=25,
        ),
    )
    def test_loses_exactly_what_was_not_synced_whatever_was_done(self, kind, steps):
        with tempfile.TemporaryDirectory() as folder:
            place = Place(kind, Path(folder))
            place.disk.faults.power_cut = True
            file, now, durable = place.open("f"), b"", b""
            for verb, *args in steps:
                if verb == "write":
                    file.write_at(*args)
                    now = _written(now, *args)
                elif verb == "append":
                    file.append(*args)
                    now += args[0]
                elif verb == "truncate":
                    file.truncate(*args)
                    now = now[: args[0]].ljust(args[0], b"\0")
                elif verb == "sync":
                    file.sync()
                    durable = now
                else:
                    place.kill().faults.power_cut = True
                    file, now = place.open("f"), durable
                assert file.read_at(0, 1000) == now
                assert file.read_at(3, 5) == now[3:8]
                assert file.size == len(now)
            place.close()

    def test_shows_what_was_written_to_whoever_reads_the_file(self, cut):
        cut.open("f").append(b"unsynced")
        assert cut.disk.read("f") == b"unsynced"

    def test_keeps_in_the_process_what_somebody_else_has_read(self, cut):
        cut.open("f").append(b"unsynced")
        cut.disk.read("f")
        assert cut.kill().read("f") == b""

    def test_keeps_the_order_of_writes_when_it_ends(self, cut):
        file = cut.open("f")
        file.append(b"first")
        cut.disk.faults.power_cut = False
        file.write_at(0, b"later")
        assert file.read_at(0, 10) == b"later"
        file.sync()
        assert cut.kill().read("f") == b"later"


def _written(before: bytes, offset: int, data: bytes) -> bytes:
    return before.ljust(offset, b"\0")[:offset] + data + before[offset + len(data) :]


class TestTorn:
    def test_is_a_sync_that_writes_half_and_fails(self, cut):
        file = cut.open("f")
        file.append(b"before")
        file.sync()
        cut.disk.faults.torn = True
        file.append(b"12345678")
        fails(errno.EIO, file.sync)
        assert cut.kill().read("f") == b"before1234"

    def test_loses_what_was_written_after_it_too(self, cut):
        cut.disk.faults.torn = True
        file = cut.open("f")
        file.append(b"1234")
        file.append(b"5678")
        fails(errno.EIO, file.sync)
        assert cut.kill().read("f") == b"12"

    def test_happens_once(self, cut):
        cut.disk.faults.torn = True
        file = cut.open("f")
        file.append(b"1234")
        fails(errno.EIO, file.sync)
        assert not cut.disk.faults.torn
        file.write_at(0, b"abcd")
        file.sync()
        assert cut.kill().read("f") == b"abcd"

    def test_happens_without_power_cut_mode_too(self, place):
        place.disk.faults.torn = True
        file = place.open("f")
        file.append(b"before")
        file.append(b"1234")
        fails(errno.EIO, file.sync)
        assert place.kill().read("f").rstrip(b"\0") == b"before12"

    def test_takes_nothing_back_that_was_synced_before(self, place):
        file = place.open("f")
        file.append(b"12345678")
        file.sync()
        place.disk.faults.torn = True
        with contextlib.suppress(OSError):
            file.sync()
        assert place.kill().read("f") == b"12345678"

    def test_does_not_lengthen_a_file_that_was_cut(self, place):
        file = place.open("f")
        file.append(b"12345678")
        file.truncate(0)
        place.disk.faults.torn = True
        with contextlib.suppress(OSError):
            file.sync()
        assert (file.size, place.kill().read("f")) == (0, b"")

    def test_is_not_spent_on_a_sync_that_has_nothing_to_tear(self, cut):
        file = cut.open("f")
        cut.disk.faults.torn = True
        file.truncate(0)
        file.sync()
        assert cut.disk.faults.torn


class TestEioAt:
    @pytest.mark.parametrize("call", range(1, 7))
    def test_fails_that_call_and_no_other(self, place, call):
        file = place.open("f")
        place.put("g", b"g")
        place.disk.faults.eio_at = call
        calls = [
            lambda: file.append(b"1"),
            file.sync,
            lambda: file.truncate(0),
            lambda: file.write_at(0, b"2"),
            file.sync,
            lambda: place.disk.rename("g", "h"),
        ]
        failed = []
        for number, change in enumerate(calls, 1):
            try:
                change()
            except OSError as error:
                failed.append((number, error.errno))
        assert failed == [(call, errno.EIO)]
        assert place.disk.faults.describe() == {}

    def test_does_not_count_what_only_reads(self, place):
        file = place.open("f")
        place.disk.faults.eio_at = 1
        file.read_at(0, 1)
        place.disk.list()
        place.disk.exists("f")
        fails(errno.EIO, file.append, b"1")

    def test_leaves_undone_what_failed(self, place):
        file = place.open("f")
        file.append(b"old")
        for change in (lambda: file.append(b"new"), lambda: file.truncate(0)):
            place.disk.faults.eio_at = 1
            fails(errno.EIO, change)
        assert (file.size, file.read_at(0, 10)) == (3, b"old")

    def test_leaves_a_name_as_it_was(self, place):
        place.put("old", b"1")
        place.disk.faults.eio_at = 1
        fails(errno.EIO, place.disk.rename, "old", "new")
        assert place.disk.list() == ["old"]

    def test_counts_from_when_it_is_set(self, place):
        file = place.open("f")
        place.disk.faults.eio_at = 5
        file.append(b"1")
        file.append(b"2")
        place.disk.faults.heal()
        place.disk.faults.eio_at = 3
        file.append(b"3")
        file.append(b"4")
        fails(errno.EIO, file.append, b"5")


class TestSyncError:
    def test_fails_the_next_sync_and_no_other(self, place):
        file = place.open("f")
        file.append(b"1")
        place.disk.faults.sync_error = True
        fails(errno.EIO, file.sync)
        file.sync()

    def test_loses_what_it_should_have_written(self, cut):
        file = cut.open("f")
        file.append(b"kept")
        file.sync()
        file.append(b"lost")
        cut.disk.faults.sync_error = True
        fails(errno.EIO, file.sync)
        assert (file.size, file.read_at(0, 99)) == (4, b"kept")
        file.sync()  # the page is clean, says the kernel: it has nothing to write any more
        assert cut.kill().read("f") == b"kept"

    def test_loses_it_without_power_cut_mode_too(self, tmp_path):
        for seed in range(20):
            place = Place("memory", tmp_path)
            file = place.open("f")
            file.append(b"lost")
            place.disk.faults.sync_error = True
            fails(errno.EIO, file.sync)
            file.sync()
            if place.kill(seed).read("f") == b"":
                return
        pytest.fail("a failed sync has lost nothing in 20 power cuts")


class TestSyncLies:
    def test_report_success_and_lose_all(self, cut):
        file = cut.open("f")
        file.append(b"kept")
        file.sync()
        cut.disk.faults.sync_lies = True
        file.append(b"lost")
        file.sync()
        assert cut.kill().read("f") == b"kept"

    def test_lose_nothing_while_the_process_lives(self, place):
        place.disk.faults.sync_lies = True
        file = place.open("f")
        file.append(b"written")
        file.sync()
        assert file.read_at(0, 10) == b"written"

    def test_lose_nothing_while_the_process_lives_in_power_cut_mode(self, cut):
        cut.disk.faults.sync_lies = True
        file = cut.open("f")
        file.append(b"written")
        file.sync()
        assert file.size == 7
        assert file.read_at(0, 10) == b"written"

    def test_are_over_with_the_next_honest_one(self, place):
        place.disk.faults.sync_lies = True
        file = place.open("f")
        file.append(b"written")
        file.sync()
        place.disk.faults.heal()
        file.sync()
        assert place.kill().read("f") == b"written"


class TestAFullDisk:
    def test_takes_no_change(self, place):
        place.put("f", b"old")
        file = place.open("f")
        place.disk.faults.full = True
        fails(errno.ENOSPC, file.append, b"new")
        fails(errno.ENOSPC, file.truncate, 100)
        fails(errno.ENOSPC, place.disk.replace, "f", b"new")
        fails(errno.ENOSPC, place.disk.rename, "f", "g")
        assert file.read_at(0, 10) == place.disk.read("f") == b"old"

    def test_still_syncs_what_it_has_and_says_that_it_is_full(self, place):
        file = place.open("f")
        file.append(b"kept")
        place.disk.faults.full = True
        file.sync()
        assert place.disk.free_bytes() == 0
        assert place.kill().read("f") == b"kept"

    def test_has_room_again(self, place):
        file = place.open("f")
        place.disk.faults.full = True
        fails(errno.ENOSPC, file.append, b"x")
        place.disk.faults.heal()
        file.append(b"x")
        assert place.disk.free_bytes() > 0

    def test_syncs_while_another_error_is_due_too(self, place):
        file = place.open("f")
        file.append(b"kept")
        place.disk.faults.full, place.disk.faults.eio_at = True, 2
        file.sync()


class TestASlowDisk:
    def test_takes_its_time_for_each_sync_and_nothing_else(self, place):
        place.disk.faults.slow_s = 0.5
        file = place.open("f")
        file.append(b"1")
        file.read_at(0, 1)
        assert place.pauses == []
        file.sync()
        file.sync()
        assert place.pauses == [0.5, 0.5]

    def test_takes_it_before_an_error_too(self, place):
        place.disk.faults.slow_s, place.disk.faults.sync_error = 0.5, True
        fails(errno.EIO, place.open("f").sync)
        assert place.pauses == [0.5]


class TestReplace:
    def test_puts_the_new_in_the_place_of_the_old_and_leaves_nothing_else(self, place):
        place.disk.replace("a/f", b"a long old one")
        place.disk.replace("a/f", b"new")
        assert place.disk.read("a/f") == b"new"
        assert place.disk.list("a") == ["f"]

    def test_syncs_the_data_before_the_name_and_the_name_before_it_returns(self, place):
        disk, watched = place.watch()
        disk.replace("a/f", b"data")
        assert watched.calls == [
            ("truncate", "a/f.new", 0),
            ("pwrite", "a/f.new", 0, b"data"),
            ("sync", "a/f.new"),
            ("rename", "a/f.new", "a/f"),
            ("sync_folder", "a"),
        ]

    def test_does_so_in_power_cut_mode(self, place):
        disk, watched = place.watch()
        disk.faults.power_cut = True
        disk.replace("a/f", b"data")
        verbs = [call[0] for call in watched.calls]
        assert verbs == ["truncate", "pwrite", "sync", "rename", "sync_folder"]

    @pytest.mark.parametrize("power_cut", [False, True])
    def test_is_all_or_nothing_wherever_the_process_is_killed(self, tmp_path, power_cut):
        """Each call, on both storages; in memory the power goes too, with many seeds."""
        survived = {kind: set() for kind in KINDS}
        old, new = b"old" * 400, b"the new" * 400
        for kind in KINDS:
            for die_at in range(1, 7):
                for seed in range(40 if kind == "memory" else 1):
                    place = Place(kind, tmp_path / f"{die_at}")
                    place.put("f", old)
                    disk, _ = place.watch(die_at)
                    disk.faults.power_cut = power_cut
                    returned = True
                    try:
                        disk.replace("f", new)
                    except Killed:
                        returned = False
                    found = place.kill(seed).read("f")
                    assert found in ((new,) if returned else (old, new))
                    survived[kind].add((found == new, returned))
        every_end = {(False, False), (True, False), (True, True)}
        assert survived == dict.fromkeys(KINDS, every_end)

    def test_keeps_the_old_when_any_call_fails(self, place):
        for call in range(1, 5):
            place.put("f", b"old")
            place.disk.faults.eio_at = call
            fails(errno.EIO, place.disk.replace, "f", b"new")
            assert place.disk.read("f") == b"old"
        place.disk.replace("f", b"new")
        assert place.disk.read("f") == b"new"

    def test_is_not_mixed_with_what_an_earlier_try_left_behind(self, place):
        place.put("f.new", b"a long leftover of a process that was killed")
        place.disk.replace("f", b"new")
        assert place.disk.read("f") == b"new"

    def test_does_not_happen_when_the_block_fails(self, place):
        place.put("f", b"old")

        def write_half():
            with place.disk.replacing("f") as file:
                file.append(b"half")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            write_half()
        assert place.disk.read("f") == b"old"

    def test_of_a_lying_disk_is_whole_or_old_while_the_process_lives(self, place):
        place.put("f", b"old")
        place.disk.faults.sync_lies = True
        place.disk.replace("f", b"new")
        assert place.disk.read("f") == b"new"


class TestFaultsOfADisk:
    def test_are_healed_but_for_the_mode(self):
        faults = DiskFaults(
            power_cut=True,
            torn=True,
            eio_at=3,
            sync_error=True,
            sync_lies=True,
            full=True,
            slow_s=1.0,
        )
        faults.heal()
        assert faults == DiskFaults(power_cut=True)

    def test_are_described_by_what_is_wrong(self):
        assert DiskFaults().describe() == {}
        assert DiskFaults(full=True, slow_s=0.5).describe() == {"full": True, "slow_s": 0.5}

    def test_take_a_whole_number_for_seconds_but_no_truth_for_a_number(self):
        faults = DiskFaults()
        faults.apply({"slow_s": 2})
        assert faults.slow_s == 2
        for wrong in ({"eio_at": True}, {"slow_s": True}, {"full": 1}, {"eio_at": 1.0}):
            with pytest.raises(ValueError, match=f"disk.{next(iter(wrong))} is a "):
                faults.apply(wrong)

    def test_are_all_checked_before_any_is_set(self):
        faults = DiskFaults()
        with pytest.raises(ValueError, match=r"disk\.eio_at must be 0 or more, not -1"):
            faults.apply({"full": True, "eio_at": -1})
        assert faults == DiskFaults()
