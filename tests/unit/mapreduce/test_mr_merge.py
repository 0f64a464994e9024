"""Blocks and the k-way merge: sorted, stable, nothing lost, damage seen."""

from __future__ import annotations

import random
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mr_kit import grouped

from mapreduce import blocks, merge
from mapreduce.blocks import Run, RunWriter, pack, read_blocks
from mapreduce.errors import BadJob, DamagedRun
from mapreduce.reduce_task import grouped as group_pairs


def written(path, pairs, source=0) -> Run:
    with path.open("ab") as file:
        writer = RunWriter(file, str(path))
        writer.position = file.tell()
        return writer.write_pairs(pairs, source)


def read(run: Run):
    with open(run.path, "rb") as file:
        return [
            pair
            for keys, values in read_blocks(file, run)
            for pair in zip(keys, values, strict=True)
        ]


keys = st.binary(max_size=3)
values = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.binary(max_size=4), st.text(max_size=3), st.none()
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(keys, values), max_size=30), max_size=8), st.integers(1, 4))
def test_the_merge_is_a_stable_sort_of_all_runs(runs, block):
    sorted_runs = [sorted(run, key=lambda pair: pair[0]) for run in runs]

    def pieces(run):
        for start in range(0, len(run), block):
            part = run[start : start + block]
            yield [k for k, _ in part], [v for _, v in part]

    merged = list(chain.from_iterable(merge.merge([pieces(run) for run in sorted_runs])))
    assert merged == sorted(chain.from_iterable(sorted_runs), key=lambda pair: pair[0])


def test_one_key_may_fill_many_blocks_of_many_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_RECORDS", 4)
    runs = [
        written(tmp_path / f"r{i}", [(b"a", i), *((b"k", (i, n)) for n in range(20)), (b"z", i)])
        for i in range(3)
    ]
    merged = list(chain.from_iterable(merge.merge_files(runs, tmp_path)))
    assert [v for k, v in merged if k == b"k"] == [[i, n] for i in range(3) for n in range(20)]
    assert [k for k, _ in merged] == sorted(k for k, _ in merged)


def test_more_runs_than_fan_in_are_merged_in_levels_and_stay_stable(tmp_path):
    dice = random.Random(1)
    everything, runs = [], []
    for i in range(23):
        pairs = sorted(((b"%d" % dice.randrange(9), [i, n]) for n in range(7)), key=lambda p: p[0])
        everything += pairs
        runs.append(written(tmp_path / "all", pairs, i))
    merged = list(chain.from_iterable(merge.merge_files(runs, tmp_path, fan_in=3)))
    assert merged == sorted(everything, key=lambda pair: pair[0])


def test_groups_are_those_of_a_dict(tmp_path):
    pairs = sorted([(b"%d" % (n % 7), n) for n in range(100)], key=lambda p: p[0])
    assert [(k, list(v)) for k, v in group_pairs(pairs, False, False)] == grouped(pairs)


def test_a_run_is_read_as_it_was_written(tmp_path):
    pairs = [(bytes([i]), {"n": i, "b": b"\0\xff"}) for i in range(256)]
    assert read(written(tmp_path / "run", pairs)) == pairs


def test_large_values_make_small_blocks():
    made = list(pack([b"k"] * 64, [b"x" * 100_000] * 64))
    assert len(made) > 10
    assert max(map(len, made)) < blocks.BLOCK_BYTES_MAX + 100_100


@pytest.mark.parametrize("position", [0, 5, 9, 13, 40, -1])
def test_a_flipped_bit_is_seen_wherever_it_is(tmp_path, position):
    run = written(tmp_path / "run", [(b"key%d" % i, i) for i in range(50)], source=7)
    data = bytearray((tmp_path / "run").read_bytes())
    data[position] ^= 4
    (tmp_path / "run").write_bytes(data)
    with pytest.raises(DamagedRun) as caught:
        read(run)
    assert caught.value.source == 7


def test_a_run_that_ends_early_is_seen(tmp_path):
    run = written(tmp_path / "run", [(b"key%d" % i, i) for i in range(50)])
    (tmp_path / "run").write_bytes((tmp_path / "run").read_bytes()[:-3])
    with pytest.raises(DamagedRun, match="ends early"):
        read(run)


def test_a_missing_block_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_RECORDS", 10)
    run = written(tmp_path / "run", [(b"key%02d" % i, i) for i in range(20)])
    half = Run(run.path, 0, run.length // 2, run.count)
    with pytest.raises(DamagedRun, match="10 records instead of 20"):
        read(half)


@pytest.mark.parametrize("value", [2**70, object(), {1, 2}])
def test_a_value_that_cannot_be_stored_is_a_clear_error(value):
    with pytest.raises(BadJob, match="a value cannot be stored"):
        list(pack([b"k"], [value]))
