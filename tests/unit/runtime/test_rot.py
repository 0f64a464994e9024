"""Damage to the files of a node that is down: it is done, and is as large as it says."""

from __future__ import annotations

import random

import pytest

from netstack.runtime import rot
from netstack.runtime.memory_disk import MemoryStorage
from netstack.runtime.os_disk import OsStorage

FILES = {"wal/1.seg": b"record" * 100 + bytes(4096), "snap/1.snap": b"state" * 50, "empty": b""}


@pytest.fixture(params=["memory", "os"])
def storage(request, tmp_path):
    storage = MemoryStorage() if request.param == "memory" else OsStorage(tmp_path)
    rot.put_back(storage, FILES)
    return storage


def test_what_is_kept_is_all_there_is(storage):
    assert rot.keep(storage) == FILES


@pytest.mark.parametrize("seed", range(20))
def test_a_flip_changes_one_bit_of_something_written(storage, seed):
    rot.flip(storage, random.Random(seed))
    after = rot.keep(storage)
    differing = [
        (FILES[path][i], byte)
        for path, data in after.items()
        for i, byte in enumerate(data)
        if FILES[path][i] != byte
    ]
    ((before, now),) = differing
    assert before != 0
    assert (before ^ now).bit_count() == 1


@pytest.mark.parametrize("seed", range(20))
def test_a_truncation_takes_some_of_what_was_written_from_one_file(storage, seed):
    rot.truncate(storage, random.Random(seed))
    after = rot.keep(storage)
    (path,) = [path for path in FILES if after[path] != FILES[path]]
    assert FILES[path].startswith(after[path])
    assert len(after[path]) < len(FILES[path].rstrip(b"\0"))


def test_a_wipe_leaves_nothing(storage):
    assert rot.wipe(storage, random.Random(1)) == "3 files are gone"
    assert rot.keep(storage) == {}


def test_an_earlier_time_comes_back_whole(storage):
    earlier = rot.keep(storage)
    rot.flip(storage, random.Random(1))
    rot.put_back(storage, {"later": b"x"} | rot.keep(storage))
    rot.put_back(storage, earlier)
    assert rot.keep(storage) == FILES


@pytest.mark.parametrize("damage", [rot.flip, rot.truncate])
def test_an_empty_disk_has_nothing_to_damage(damage):
    with pytest.raises(ValueError, match="nothing on this disk"):
        damage(MemoryStorage(), random.Random(1))
