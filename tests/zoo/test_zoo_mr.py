"""Planted bugs of MapReduce, each caught by the check that claims to catch its kind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mr_bugs
import pytest

KITS = Path(__file__).parent.parent / "unit" / "mapreduce"
sys.path.insert(0, str(KITS))

from mr_core_kit import Cores, campaign, two_copies_end_well  # noqa: E402
from mr_kit import WORDCOUNT, counted, lines, run, text  # noqa: E402

from mapreduce import merge  # noqa: E402
from mapreduce.job import Job  # noqa: E402
from mapreduce.worker_core import WorkerCore  # noqa: E402

# Storms until it must have shown.
SEEDS = 60


def caught_in_storms(says: str, **kinds) -> bool:
    """Whether the judge says so of one of them. A core that breaks down by itself is not caught."""
    return any(says in wrong for seed in range(SEEDS) for wrong in campaign(seed, **kinds))


@pytest.mark.parametrize("name", mr_bugs.MASTERS)
def test_a_master_with_a_bug_is_caught(name):
    bug, says = mr_bugs.MASTERS[name]
    assert caught_in_storms(says, master=bug)


@pytest.mark.parametrize("name", mr_bugs.WORKERS)
def test_a_worker_with_a_bug_is_caught(name):
    bug, says = mr_bugs.WORKERS[name]
    assert caught_in_storms(says, worker=bug)


def test_a_master_that_commits_twice_is_caught():
    assert len(two_copies_end_well(mr_bugs.CommitsTwice)) == 2


def test_a_master_that_acknowledges_early_is_caught():
    cores = Cores(1, master=mr_bugs.AcknowledgesEarly)
    cores.sleep(0.3)
    id = cores.submit(maps=2, reduces=1)
    cores.run(lambda: f"job/{id}" in cores.durable)
    cores._persisted = lambda *_: None
    cores.sleep(20.0)
    assert cores.output  # renamed, though the disk has hung since before


def test_a_master_that_never_skips_is_caught():
    cores = Cores(1, master=mr_bugs.NeverSkips)
    cores.sleep(0.3)
    cores.bad[("map", 3)] = 17
    id = cores.submit()
    assert not cores.run(cores.ended(id), 60)


def test_reduces_that_hold_a_child_while_they_fetch_are_caught():
    for worker, ends in ((mr_bugs.WaitsWithAChild, False), (WorkerCore, True)):
        cores = Cores(1, workers=2, worker=worker)
        cores.sleep(0.3)
        cores.slow["w1"] = 10.0
        id = cores.submit(maps=2, reduces=1)
        cores.run(lambda cores=cores, id=id: cores.master.jobs[id].maps[1].done)
        cores.crash_worker("w2")  # for good: its map must run on w1, where the reduce waits
        assert cores.run(cores.ended(id), 60) == ends


def test_a_merge_that_drops_equal_keys_is_caught(tmp_path, monkeypatch):
    monkeypatch.setattr(mr_bugs, "REAL_MERGE", merge.merge)
    monkeypatch.setattr(merge, "merge", mr_bugs.drops_equal_keys)
    data = text(1)
    (tmp_path / "in").write_bytes(data)
    run(Job(WORDCOUNT, [str(tmp_path / "in")], str(tmp_path / "out"), split_bytes=900))
    assert lines(tmp_path / "out") != counted(data)


def test_a_partition_by_the_salted_hash_is_caught(tmp_path):
    """Two processes, one map each, as on a cluster: their parts do not agree."""
    (tmp_path / "in").write_bytes(b"one two three four five six seven eight\n")
    code = f"""
import sys; sys.path[:0] = [{str(KITS)!r}, {str(Path(__file__).parent)!r}]
import mr_bugs, mr_kit
from mapreduce import programs
if sys.argv[1] == "bug": programs.hash_partition = mr_bugs.salted_hash
from mapreduce.job import Job
out = sys.argv[2]
mr_kit.run(Job(mr_kit.WORDCOUNT, [{str(tmp_path / "in")!r}], out))
print(mr_kit.parts(out))
"""

    def parts(seed: str, what: str) -> str:
        out = tmp_path / f"{what}{seed}"
        done = subprocess.run(
            [sys.executable, "-c", code, what, str(out)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    assert parts("1", "right") == parts("2", "right")
    assert parts("1", "bug") != parts("2", "bug")


def test_the_right_cores_are_not_caught():
    assert not any(campaign(seed) for seed in range(10))
