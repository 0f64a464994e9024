"""Splits, map and reduce tasks, the sequential runner: against answers got by another way."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mr_kit import BY_RECORD, INDEX, SORT, WORDCOUNT, counted, lines, parts, run, text

from mapreduce import fixed, map_task, mrjob_program, splits
from mapreduce.errors import BadJob, JobFailed, RecordTooLong
from mapreduce.job import Job
from mapreduce.keys import descending, from_descending, hash_partition
from mapreduce.ring_urls import leads_to
from mapreduce.splits import Split, chunks, plan


def job(tmp_path, data: bytes = b"", program=WORDCOUNT, **more) -> Job:
    source = tmp_path / "in.txt"
    source.write_bytes(data)
    more.setdefault("inputs", [str(source)])
    return Job(program=program, output=str(tmp_path / "out"), **more)


def program(tmp_path, body: str) -> str:
    path = tmp_path / "myjob.py"
    path.write_text(body)
    return str(path)


# -- splits


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.binary(max_size=9), max_size=12),
    st.booleans(),
    st.integers(1, 12),
    st.integers(1, 5),
)
def test_every_line_is_in_exactly_one_split(tmp_path_factory, made, ends, size, chunk):
    rows = [row.replace(b"\n", b"") for row in made]
    data = b"\n".join(rows) + (b"\n" if ends and rows else b"")
    path = tmp_path_factory.mktemp("splits") / "in"
    path.write_bytes(data)
    found = []
    before, splits.CHUNK_BYTES = splits.CHUNK_BYTES, chunk
    try:
        for split in plan(Job(WORDCOUNT, [str(path)], "/nowhere", split_bytes=size)):
            found += splits.lines(chunks(split))
    finally:
        splits.CHUNK_BYTES = before
    expected = data.split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    assert found == expected


def test_a_gzip_file_is_one_split_and_read_decompressed(tmp_path):
    path = tmp_path / "in.gz"
    path.write_bytes(gzip.compress(text(1)))
    assert len(plan(Job(WORDCOUNT, [str(path)], "/nowhere", split_bytes=10))) == 1
    run(job(tmp_path, inputs=[str(path)]))
    assert lines(tmp_path / "out") == counted(text(1))


def test_one_giant_line_is_one_record(tmp_path):
    data = b"x " * 3_000_000
    run(job(tmp_path, data, split_bytes=100_000))
    assert lines(tmp_path / "out") == [b"x\t3000000"]


def test_a_line_over_the_limit_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr(splits, "RECORD_BYTES_MAX", 100_000)
    with pytest.raises(JobFailed, match="a line of more than 100000 bytes"):
        run(job(tmp_path, b"y" * 3_000_000))
    with pytest.raises(RecordTooLong):
        list(chunks(Split(str(tmp_path / "in.txt"), 1_000, 10, [])))


@pytest.mark.parametrize(
    ("inputs", "says"),
    [(["gone.txt"], "does not exist"), (["*.gone"], "holds no files"), ([], "no input")],
)
def test_missing_input_is_a_clear_error(tmp_path, monkeypatch, inputs, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadJob, match=says):
        run(job(tmp_path, inputs=inputs))


def test_without_what_reads_it_a_page_of_the_web_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)  # an import of it fails
    monkeypatch.delitem(sys.modules, "fsspec.implementations.http", raising=False)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "http", raising=False)
    with pytest.raises(BadJob, match=r"cannot be reached.*pip install ringleader\[http\]"):
        run(job(tmp_path, inputs=["http://127.0.0.1:9/page"]))


NO_RAFT = """
[cluster]
name = "none"
id = "7d0f035623e4e20c"
[[node]]
name = "m1"
service = "mrmaster"
host = "127.0.0.1"
port = 9
"""


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("nosuch://x/out", "cannot be reached: Protocol not known: nosuch"),
        ("ring://x/out", "cannot be made: a chunk store keeps its metadata in raft nodes"),
        ("/proc/nowhere/out", "cannot be made: .*No such file"),
    ],
)
def test_an_output_that_cannot_be_is_a_clear_error(tmp_path, output, says):
    (tmp_path / "cluster.toml").write_text(NO_RAFT)
    with leads_to(tmp_path / "cluster.toml"), pytest.raises(BadJob, match=says):
        run(replace(job(tmp_path, b"a"), output=output))


def test_an_output_that_is_there_is_not_mixed_with(tmp_path):
    made = job(tmp_path, b"a")
    run(made)
    with pytest.raises(BadJob, match="exists; remove it"):
        run(made)


def test_empty_input_gives_empty_parts(tmp_path):
    outcome = run(job(tmp_path, b"", reduces=3))
    assert parts(tmp_path / "out") == [b"", b"", b""]
    assert (tmp_path / "out/_SUCCESS").exists()
    assert outcome.tasks == {"map": 0, "reduce": 3}


# -- whole jobs


@pytest.mark.parametrize("name", [WORDCOUNT, BY_RECORD])
@pytest.mark.parametrize("seed", range(3))
def test_word_count_whatever_splits_reduces_and_memory(tmp_path, name, seed):
    dice = random.Random(seed)
    data = text(seed)
    run(
        job(
            tmp_path,
            data,
            name,
            split_bytes=dice.randrange(50, 5000),
            reduces=dice.randrange(1, 5),
            memory_bytes=dice.choice([1 << 16, 1 << 20]),
            combine=dice.random() < 0.7,
        )
    )
    assert lines(tmp_path / "out") == counted(data)


@pytest.mark.parametrize("combine", [True, False])
def test_a_mapping_is_spilled_within_the_budget(tmp_path, monkeypatch, combine):
    """It may hold more than the budget; what is gathered of it, sorted and written, may not."""
    data = b"\n".join(b"word%d" % (i * 7919 % 5000) for i in range(10_000))
    largest = []

    def write(self, pairs, whole=map_task.Gathering.write):
        largest.append(sum(map_task.PAIR_BYTES + len(key) for key, _ in pairs))
        whole(self, pairs)

    monkeypatch.setattr(map_task.Gathering, "write", write)
    budget = 1 << 16
    outcome = run(job(tmp_path, data, memory_bytes=budget, combine=combine))
    assert lines(tmp_path / "out") == counted(data)
    assert len(largest) > 5
    assert max(largest) <= budget + 1000
    assert outcome.counters["mapreduce"]["map_output_records"] == 5000


def test_the_sort_of_lines_is_that_of_the_c_locale(tmp_path):
    data = text(5, 3000)
    run(
        job(
            tmp_path,
            data,
            SORT,
            partition="range",
            reduces=4,
            split_bytes=7000,
            memory_bytes=1 << 16,
        )
    )
    expected = b"\n".join(sorted(data.removesuffix(b"\n").split(b"\n"))) + b"\n"
    assert b"".join(parts(tmp_path / "out")) == expected
    assert min(map(len, parts(tmp_path / "out"))) > len(data) / 8  # the sample cut it evenly


def test_keys_of_every_byte_value_come_out_as_they_went_in(tmp_path):
    body = "def map(line):\n    yield bytes([int(line)]) + b'x', line\n"
    data = b"\n".join(b"%d" % i for i in range(256))
    name = program(tmp_path, body)
    run(job(tmp_path, data, name, reduces=1))
    expected = b"".join(bytes([i]) + b"x\t%d\n" % i for i in range(256))
    assert parts(tmp_path / "out") == [expected]


@pytest.mark.parametrize("reduces", [1, 3])
def test_descending_order_and_a_prefix_comes_behind_its_extension(tmp_path, reduces):
    body = "def map(line):\n    yield line, 1\nreduce = sum\n"
    data = b"b\na\nab\na\n\0\n\0\0\n"
    run(job(tmp_path, data, program(tmp_path, body), order="descending", reduces=reduces))
    for part in parts(tmp_path / "out"):
        keys = [line.split(b"\t")[0] for line in part.splitlines()]
        assert keys == sorted(keys, reverse=True)
    assert lines(tmp_path / "out") == sorted([b"b\t1", b"ab\t1", b"a\t2", b"\0\t1", b"\0\0\t1"])


@given(st.lists(st.binary(max_size=4), max_size=20))
def test_descending_keys(keys):
    assert [from_descending(k) for k in sorted(map(descending, keys))] == sorted(keys, reverse=True)


def test_sorted_values(tmp_path):
    body = (
        "def map(line):\n    yield b'k', int(line)\n"
        "def reduce(key, values):\n    yield key, list(values)\n"
    )
    run(job(tmp_path, b"3\n1\n2\n", program(tmp_path, body), sort_values=True, reduces=1))
    assert parts(tmp_path / "out") == [b"k\t[1, 2, 3]\n"]


def test_an_inverted_index(tmp_path):
    for name, words in (("a.txt", b"one two\ntwo"), ("b.txt", b"two")):
        (tmp_path / name).write_bytes(words)
    run(job(tmp_path, program=INDEX, inputs=[str(tmp_path / "?.txt")]))
    assert lines(tmp_path / "out") == [b"one\ta.txt:1", b"two\ta.txt:2 b.txt:1"]


def test_clicks_a_site_a_day(tmp_path):
    line = b'%b 192.0.2.7 - - [%b:11:20:01 +0000] "GET / HTTP/1.1" %d 512\n'
    data = b"".join(
        [
            line % (b"a.org", b"30/Nov/2026", 200),
            line % (b"a.org", b"30/Nov/2026", 304),
            line % (b"a.org", b"01/Dec/2026", 200),
            line % (b"b.org", b"30/Nov/2026", 404),
            b"no log at all\n",
        ]
    )
    outcome = run(job(tmp_path, data, "mapreduce.examples.loganalysis"))
    assert lines(tmp_path / "out") == [b"a.org 2026-11-30\t2", b"a.org 2026-12-01\t1"]
    assert outcome.counters["log"] == {
        "lines that make no sense": 1,
        "requests that are no clicks": 1,
    }


def test_grep_is_a_job_of_maps_alone(tmp_path):
    data = b"an error\nfine\nerror error\n"
    outcome = run(
        job(
            tmp_path,
            data,
            "mapreduce.examples.grep",
            reduces=0,
            args={"pattern": "err.r"},
            split_bytes=8,
        )
    )
    found = [line.split(b"\t")[1] for line in b"".join(parts(tmp_path / "out")).splitlines()]
    assert found == [b"an error", b"error error"]
    assert outcome.counters["grep"]["lines"] == 2


@pytest.mark.parametrize(
    ("args", "says"), [({}, "needs a pattern"), ({"pattern": "("}, "the pattern '\\('.*is none")]
)
def test_grep_for_no_pattern_fails_at_once_with_a_sentence(tmp_path, args, says):
    with pytest.raises(JobFailed, match=says) as caught:
        run(job(tmp_path, b"x\n", "mapreduce.examples.grep", args=args, reduces=0))
    assert len(caught.value.failures) == 1


def test_pagerank_of_a_ring_is_one_everywhere(tmp_path):
    data = b"a\tb\nb\tc\nc\ta\n"
    made = job(tmp_path, data, "mapreduce.examples.pagerank")
    for number in range(3):
        out = tmp_path / f"round{number}"
        run(
            Job(
                made.program,
                made.inputs if not number else [f"{tmp_path}/round{number - 1}/part-*"],
                str(out),
            )
        )
    assert [line.split(b"\t")[:2] for line in lines(tmp_path / "round2")] == [
        [b"a", b"1.0"],
        [b"b", b"1.0"],
        [b"c", b"1.0"],
    ]


# -- fixed-size records


@pytest.mark.parametrize("seed", range(6))
def test_fixed_records_sort_as_bytes_do_and_stay_stable(tmp_path, seed):
    dice = random.Random(seed)
    width, key = dice.choice([(16, 10), (12, 3), (20, 17), (9, 8)])
    alphabet = dice.choice([b"ab", bytes(range(256)), b"\0\xff"])
    records = [bytes(dice.choices(alphabet, k=key)) + os.urandom(width - key) for _ in range(3000)]
    run(
        job(
            tmp_path,
            b"".join(records),
            SORT,
            partition="range",
            record_bytes=width,
            key_bytes=key,
            split_bytes=9_000,
            memory_bytes=dice.choice([1 << 16, 1 << 22]),
            reduces=3,
        )
    )
    expected = b"".join(sorted(records, key=lambda record: record[:key]))
    assert b"".join(parts(tmp_path / "out")) == expected


@given(st.lists(st.binary(min_size=4, max_size=4), min_size=1, max_size=60))
def test_order_of_rows_is_a_stable_sort(rows):
    made = fixed.rows_of(b"".join(rows), 4)
    order = fixed.order_of(made, 3)
    assert list(order) == sorted(range(len(rows)), key=lambda i: rows[i][:3])
    assert order.dtype == np.intp


def test_a_record_that_is_cut_off_is_a_clear_error(tmp_path):
    with pytest.raises(BadJob, match="no whole records of 10"):
        run(job(tmp_path, b"x" * 25, SORT, partition="range", record_bytes=10, key_bytes=2))


# -- user code


def test_a_record_that_raises_fails_the_job_with_its_traceback(tmp_path):
    body = "def map(line):\n    yield line, 1 // int(line)\nreduce = sum\n"
    with pytest.raises(JobFailed, match="record 2: ZeroDivisionError") as caught:
        run(job(tmp_path, b"1\n0\n2\n", program(tmp_path, body)))
    assert "1 // int(line)" in caught.value.failures[0]["traceback"]


def test_or_is_skipped_counted_and_listed(tmp_path):
    body = "def map(line):\n    yield line, 1 // int(line)\nreduce = sum\n"
    outcome = run(job(tmp_path, b"1\n0\n2\n0\n", program(tmp_path, body), on_error="skip"))
    assert lines(tmp_path / "out") == [b"1\t1", b"2\t0"]
    assert [entry[1:] for entry in outcome.skipped] == [[0, 2, "0"], [0, 4, "0"]]
    assert '"skipped"' in (tmp_path / "out/_report.json").read_text()


def test_a_chunked_program_is_given_lines_one_by_one_to_find_the_bad_one(tmp_path):
    body = (
        "def map_chunks(chunks):\n    for chunk in chunks:\n        for line in chunk.split():\n"
        "            yield line, 1 // int(line)\nreduce = sum\n"
    )
    outcome = run(job(tmp_path, b"1\n0\n2\n", program(tmp_path, body), on_error="skip"))
    assert lines(tmp_path / "out") == [b"1\t1", b"2\t0"]
    assert outcome.skipped == [["map", 0, 2, "0"]]


def test_a_bad_group_of_a_reduce_is_skipped_too(tmp_path):
    body = (
        "def map(line):\n    yield line, 1\n"
        "def reduce(key, values):\n    yield key, 1 // int(key)\n"
    )
    outcome = run(job(tmp_path, b"1\n0\n2\n", program(tmp_path, body), on_error="skip", reduces=1))
    assert lines(tmp_path / "out") == [b"1\t1", b"2\t0"]
    assert outcome.skipped == [["reduce", 0, 1, "0"]]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("1/0", "cannot be imported: ZeroDivisionError"),
        ("x = 1", "neither `map` nor `map_chunks`"),
        ("def map(): pass", "takes 0 arguments"),
        ("map = 3", "is no function"),
    ],
)
def test_a_program_that_is_none_is_a_clear_error(tmp_path, body, says):
    with pytest.raises(BadJob, match=says):
        run(job(tmp_path, b"a", program(tmp_path, body)))


def test_a_key_that_has_no_bytes_is_a_clear_error(tmp_path):
    with pytest.raises(JobFailed, match="a key is bytes or str, not int"):
        run(job(tmp_path, b"1", program(tmp_path, "def map(line):\n    yield 1, 1\n")))


def test_counters_are_those_of_the_attempt_that_counts(tmp_path):
    body = (
        "def map(line, task):\n    task.count('my', 'lines')\n"
        "    if line == b'bad': raise ValueError\n    yield line, 1\n"
    )
    outcome = run(job(tmp_path, b"a\nbad\nb\n", program(tmp_path, body), on_error="skip"))
    assert outcome.counters["my"] == {"lines": 2}


def test_the_hash_is_the_same_in_every_process():
    code = "from mapreduce.keys import hash_partition; print(hash_partition([b'a', b'b', b'c'], 7))"
    found = set()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout.strip())
    assert found == {str(hash_partition([b"a", b"b", b"c"], 7))}


def test_an_mrjob_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(mrjob_program, "find_spec", lambda name: None)
    with pytest.raises(BadJob, match=r"pip install ringleader\[mrjob\]"):
        mrjob_program.describe(program(tmp_path, "import mrjob"), ())


def test_a_bad_job_says_what_would_be_right(tmp_path):
    for fields, says in (
        ({"reduces": -1}, "reduces must be between"),
        ({"partition": "x"}, "partition must be one of hash, range, program"),
        ({"record_bytes": 4}, "need key_bytes"),
        ({"order": "up"}, "order must be one of"),
    ):
        with pytest.raises(BadJob, match=says):
            job(tmp_path, **fields).checked()


def test_a_job_crosses_the_wire_whole(tmp_path):
    made = job(tmp_path, args={"n": 1}, environment={"A": "b"}).checked()
    assert Job.of(made.to_wire()) == made
    with pytest.raises(BadJob, match=r"Job\.program"):
        Job.of({"program": 3})
    assert repr(made) == "<Job wordcount reduces=2 inputs=1>"


LOST = """
from mapreduce.store.errors import ChunkLost
def map(line, task):
    raise ChunkLost("nobody can give chunk 7 now")
"""


def test_what_the_store_cannot_do_is_no_records_fault(tmp_path):
    """Else a good record would be skipped because a server was away twice."""
    mine = job(tmp_path, b"a\nb\n", program(tmp_path, LOST), on_error="skip")
    with pytest.raises(JobFailed, match="5 attempts failed: ChunkLost") as caught:
        run(mine)
    said = {(f["kind"], f["record"], f["traceback"]) for f in caught.value.failures}
    assert said == {("store", 0, "")}


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def full(self, mode="r", *rest):
        if "w" in mode and "local-map" in str(self):
            raise OSError(28, "No space left on device", str(self))
        return real(self, mode, *rest)

    real = Path.open
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(JobFailed, match="No space left on device") as caught:
        run(job(tmp_path, b"a"))
    assert {failure["kind"] for failure in caught.value.failures} == {"disk"}


def test_word_count_of_this_text_twice_is_the_same_bytes(tmp_path):
    data = text(9)
    first = run(job(tmp_path, data, memory_bytes=1 << 16))
    before = parts(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "before")
    second = run(job(tmp_path, data, memory_bytes=1 << 16))
    assert parts(tmp_path / "out") == before
    assert first.counters == second.counters
    assert Counter(data.split()).total() == sum(
        int(n.split(b"\t")[1]) for n in lines(tmp_path / "out")
    )
