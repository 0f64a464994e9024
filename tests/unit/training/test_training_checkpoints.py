"""Checkpoints: whole or refused, whatever a disk or a power cut leaves of them."""

from __future__ import annotations

import random

import numpy as np
import pytest

from ddp.training.checkpoint import FOLDER, KEPT, Checkpoints, Snapshot
from ddp.training.errors import BadCheckpoint
from netstack.runtime.disk import Disk
from netstack.runtime.memory_disk import MemoryStorage


def snapshot(step, job="job"):
    arrays = {"parameter/w": np.full((3, 2), float(step)), "optimizer/t": np.array([step])}
    return Snapshot(job, step, arrays)


def same(one, other):
    assert one is not None, "there is none"
    return (
        (one.job, one.step) == (other.job, other.step)
        and one.arrays.keys() == other.arrays.keys()
        and all(np.array_equal(a, other.arrays[n]) for n, a in one.arrays.items())
    )


def disk(storage=None):
    return Disk(storage or MemoryStorage(), lambda seconds: None)


def test_there_and_back():
    assert same(Snapshot.decode(snapshot(7).encode()), snapshot(7))


def test_every_flipped_bit_and_every_cut_is_refused():
    data = snapshot(7).encode()
    for bit in range(8 * len(data)):
        spoilt = bytearray(data)
        spoilt[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadCheckpoint):
            Snapshot.decode(bytes(spoilt))
    for end in range(len(data)):
        with pytest.raises(BadCheckpoint):
            Snapshot.decode(data[:end])


def test_arrays_of_objects_are_refused_even_with_a_right_checksum():
    strange = Snapshot("job", 1, {"w": np.array([1], dtype=np.complex128)}).encode()
    with pytest.raises(BadCheckpoint, match="complex128"):
        Snapshot.decode(strange)


def test_the_newest_is_found_and_old_ones_go():
    kept = Checkpoints(disk())
    for step in (10, 20, 30):
        kept.save(snapshot(step))
    assert repr(kept) == "<Checkpoints ['0000000020.ckpt', '0000000030.ckpt']>"
    assert KEPT == 2
    assert same(kept.newest("job"), snapshot(30))
    assert kept.newest("another") is None
    assert kept.refused == [
        "0000000030.ckpt: it is of another job",
        "0000000020.ckpt: it is of another job",
    ]


def test_a_damaged_newest_costs_some_steps():
    on = disk()
    kept = Checkpoints(on)
    kept.save(snapshot(10))
    kept.save(snapshot(20))
    with on.open(f"{FOLDER}/0000000020.ckpt") as file:
        file.write_at(40, b"\xff\xff")
    assert kept.newest("job").step == 10
    assert kept.refused == ["0000000020.ckpt: its checksum is not that of its contents"]


def test_a_checkpoint_under_another_name_is_refused():
    on = disk()
    kept = Checkpoints(on)
    kept.save(snapshot(10))
    on.rename(f"{FOLDER}/0000000010.ckpt", f"{FOLDER}/0000000099.ckpt")
    assert kept.newest("job") is None
    assert kept.refused == ["0000000099.ckpt: it is of step 10"]


@pytest.mark.parametrize("seed", range(20))
def test_a_power_cut_while_saving_leaves_the_one_before(seed):
    storage, dice = MemoryStorage(), random.Random(seed)
    Checkpoints(disk(storage)).save(snapshot(10))
    storage.run_unsynced(lambda: Checkpoints(disk(storage)).save(snapshot(20)))
    storage.crash(dice)
    assert same(Checkpoints(disk(storage)).newest("job"), snapshot(10))


@pytest.mark.parametrize("fault", ["full", "torn", "sync_error"])
def test_a_disk_that_fails_keeps_the_one_before(fault):
    on = disk()
    kept = Checkpoints(on)
    kept.save(snapshot(10))
    setattr(on.faults, fault, True)
    with pytest.raises(OSError):  # noqa: PT011
        kept.save(snapshot(20))
    on.faults.heal()
    assert kept.newest("job").step == 10
