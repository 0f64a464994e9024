"""Snapshots on disk: whole or not there, whatever the disk does meanwhile or afterwards."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from storage_kit import Machine, failure, meta, state_at

from netstack.runtime.disk import Disk
from netstack.runtime.memory_disk import MemoryStorage
from netstack.runtime.os_disk import OsStorage
from raftd.membership import Membership
from raftd.snapshot_store import KEPT, PIECE_BYTES, load_newest, remove_older, save


def a_disk() -> Disk:
    return Disk(MemoryStorage(), lambda _: None)


def with_snapshots(*indexes: int) -> Disk:
    disk = a_disk()
    for index in indexes:
        save(disk, meta(index), [state_at(index)])
    return disk


def name(index: int) -> str:
    return f"snap/{index:020d}.snap"


PARTS = st.lists(st.one_of(st.binary(max_size=40), st.just(b"x" * PIECE_BYTES)), max_size=4)


@settings(deadline=None, database=None, max_examples=50)
@given(parts=PARTS, index=st.integers(1, 2**60), term=st.integers(1, 2**60))
def test_a_snapshot_is_read_as_it_was_saved(parts, index, term):
    disk = a_disk()
    assert save(disk, meta(index, term), iter(parts)) == b"".join(parts)
    assert load_newest(disk) == ((meta(index, term), b"".join(parts)), 0)
    assert disk.list("snap") == [name(index).removeprefix("snap/")]


def test_the_files_of_the_operating_system_hold_it_as_well(tmp_path):
    disk = Disk(OsStorage(tmp_path), lambda _: None)
    save(disk, meta(7, 2), [b"a" * PIECE_BYTES, b"b"])
    again = Disk(OsStorage(tmp_path), lambda _: None)
    assert load_newest(again) == ((meta(7, 2), b"a" * PIECE_BYTES + b"b"), 0)


def test_all_of_a_membership_goes_with_it():
    members = Membership.of({"n1": ("127.0.0.1", 1), "n2": ("::1", 2)})
    joint = members.adding({"n3": ("127.0.0.1", 3)}).promoted(["n3"])
    disk = a_disk()
    of = meta(5)
    save(disk, type(of)(5, 1, joint), [b"x"])
    found, _ = load_newest(disk)
    assert found is not None
    assert found[0].membership == joint


def test_without_snapshots_there_is_none():
    assert load_newest(a_disk()) == (None, 0)


def test_the_newest_counts_in_whatever_order_they_came():
    found, damaged = load_newest(with_snapshots(9, 100, 20))
    assert found == (meta(100), state_at(100))
    assert damaged == 0


@pytest.mark.parametrize("power_cut", [False, True])
def test_a_save_that_fails_at_any_call_leaves_what_was_there(power_cut):
    for call in range(1, 20):
        machine = Machine()
        save(machine.disk, meta(5), [state_at(5)])
        machine.disk.faults.power_cut = power_cut
        machine.disk.faults.eio_at = call
        parts = [b"x" * PIECE_BYTES, b"y"]
        error = failure(lambda disk=machine.disk, parts=parts: save(disk, meta(9), parts))
        machine.cut_off(call)
        if error is None:
            assert call > 6, "truncate, head, two pieces, checksum, sync, rename"
            assert load_newest(machine.disk) == ((meta(9), b"".join(parts)), 0)
            return
        assert error == errno.EIO
        assert load_newest(machine.disk) == ((meta(5), state_at(5)), 0)
    pytest.fail("saving never came to an end")


def test_what_an_unfinished_snapshot_left_is_gone_after_a_restart():
    """Each has a name of its own and the size of the state: they would fill the disk."""
    machine = Machine()
    for index in (5, 9):
        machine.disk.faults.eio_at = 4
        with pytest.raises(OSError, match="error"):
            save(machine.disk, meta(index), [state_at(index)])
        machine.disk.faults.heal()
        machine.cut_off(1)
    save(machine.disk, meta(11), [state_at(11)])
    machine.wal.forget_before(11)
    assert machine.disk.list("snap") == [name(11).removeprefix("snap/")]


# -- damage


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_anywhere_makes_the_one_before_count(bit):
    whole = with_snapshots(5, 9).read(name(9))
    for offset in range(len(whole)):
        disk = with_snapshots(5, 9)
        damaged = bytearray(whole)
        damaged[offset] ^= 1 << bit
        disk.replace(name(9), bytes(damaged))
        assert load_newest(disk) == ((meta(5), state_at(5)), 9)


def test_a_snapshot_that_was_cut_short_anywhere_makes_the_one_before_count():
    whole = with_snapshots(5, 9).read(name(9))
    for length in range(1, len(whole)):
        disk = with_snapshots(5, 9)
        disk.replace(name(9), whole[:length])
        assert load_newest(disk) == ((meta(5), state_at(5)), 9)


@pytest.mark.parametrize("content", [b"", bytes(4)], ids=["empty", "four zeros"])
def test_an_empty_snapshot_is_a_damaged_one(content):
    disk = with_snapshots(5, 9)
    disk.replace(name(9), content)
    assert load_newest(disk) == ((meta(5), state_at(5)), 9)


def test_if_all_are_damaged_the_newest_of_them_is_named():
    disk = with_snapshots(5, 9, 12)
    for index in (5, 9, 12):
        disk.replace(name(index), b"rubbish")
    assert load_newest(disk) == (None, 12)


# -- how many are kept


def test_the_newest_and_one_to_fall_back_to_are_kept():
    disk = with_snapshots(1, 2, 3, 4, 5)
    remove_older(disk, 5)
    assert [int(n.removesuffix(".snap")) for n in disk.list("snap")] == [4, 5][-KEPT:]


def test_none_that_is_newer_than_asked_for_is_removed():
    """The leader's may have come while this node's own was being written."""
    disk = with_snapshots(1, 2, 3, 40, 50)
    remove_older(disk, 3)
    assert [int(n.removesuffix(".snap")) for n in disk.list("snap")] == [3, 40, 50]


def test_a_single_one_is_never_removed():
    disk = with_snapshots(4)
    remove_older(disk, 100)
    assert load_newest(disk) == ((meta(4), state_at(4)), 0)
