"""`ring bench mapreduce` on inputs so small that it takes seconds: every case gives its row."""

from __future__ import annotations

import pytest

from cluster.bench import mapreduce as bench
from cluster.bench.harness import Report
from cluster.bench.mapreduce_inputs import real_text, write_records
from cluster.bench.mapreduce_outputs import checksum
from cluster.bench.mapreduce_peers import CHUNK_BYTES, count
from mapreduce.client import Job, run_sync


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A bench over a little text, without a cluster."""
    monkeypatch.setattr(bench, "ROUNDS", 2)
    (tmp_path / "small").write_bytes(real_text(50_000))
    return bench.Bench(tmp_path, peers=True)


def alone(folder, program="wordcount", inputs="small", case="wordcount", **more):
    """The checksum of the sequential runner's output."""
    out = folder / f"alone-{program}-{inputs}"
    job = Job(f"mapreduce.examples.{program}", [str(folder / inputs)], str(out), **more)
    run_sync(job, local=True)
    return checksum(case, out)


def rows_of(small, name, mine):
    turns = small.turns("wordcount", "small", lambda look: (1.0, mine if look else ""), [name])
    rows = small.rates("word count", (turns, "small"), (turns, "small"), {name: 0.001})
    return turns, rows


def test_a_peer_that_finds_the_same_has_a_rate_and_every_round_is_one_of_both(small, tmp_path):
    turns, [row] = rows_of(small, "by hand", alone(tmp_path))
    assert len(turns.ours) == len(turns.theirs["by hand"]) == 2
    assert row.theirs == pytest.approx(0.05 / sorted(turns.theirs["by hand"])[0], rel=5)
    assert row.holds is True
    assert "its start" in row.note


def test_a_peer_that_crashes_is_a_row_that_does_not_hold(small, tmp_path):
    _, [row] = rows_of(small, "nobody", alone(tmp_path))
    assert row.theirs is None
    assert row.note == "nobody failed: KeyError: 'nobody'"
    assert row.to_json()["holds"] is False
    assert not Report("mapreduce", [row]).holds


def test_a_peer_that_finds_something_else_is_a_row_that_does_not_hold(small, tmp_path):
    (tmp_path / "other").write_bytes(b"other words")
    _, [row] = rows_of(small, "by hand", alone(tmp_path, inputs="other"))
    assert row.note == "by hand found something else than we did"
    assert row.holds is False


def test_a_peer_that_is_not_there_is_a_row_that_says_so(small, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "missing", lambda name: True)
    _, [row] = rows_of(small, "mrjob", alone(tmp_path))
    assert (row.theirs, row.holds, row.note) == (None, None, "mrjob is not installed")


def test_checksums_see_a_word_more_and_the_order_of_a_sort(tmp_path):
    (tmp_path / "a").write_bytes(b"x\t1\ny\t2\n")
    (tmp_path / "b").write_bytes(b"y\t2\nx\t1\n")
    (tmp_path / "c").write_bytes(b"x\t1\ny\t3\n")
    (tmp_path / "j").write_bytes(b'"y"\t2\n"x"\t1\n')
    counted = {name: checksum("wordcount", tmp_path / name) for name in "abc"}
    assert counted["a"] == counted["b"] != counted["c"]
    assert checksum("wordcount", tmp_path / "j", as_json=True) == counted["a"]
    assert checksum("sort", tmp_path / "a") != checksum("sort", tmp_path / "b")


def test_the_index_by_record_is_the_index(small, tmp_path):
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "f0").write_bytes(b"one two\ntwo three\n")
    (tmp_path / "two" / "f1").write_bytes(b"two\n")
    by_chunk, by_record = (
        alone(tmp_path, program, "two", "index")
        for program in ("inverted_index", "inverted_index_by_record")
    )
    assert by_chunk == by_record


def test_no_word_is_counted_twice_where_pieces_meet(tmp_path, monkeypatch):
    from cluster.bench import mapreduce_peers as peers

    text = real_text(60_000)
    (tmp_path / "text").write_bytes(text)
    whole = count((str(tmp_path / "text"), 0))
    for piece in (997, 1000, CHUNK_BYTES):
        monkeypatch.setattr(peers, "PIECE_BYTES", piece)
        monkeypatch.setattr(peers, "CHUNK_BYTES", 300)
        found = [count(each) for each in peers.pieces(str(tmp_path / "text"))]
        assert sum(found, start=type(whole)()) == whole


def test_records_are_lines(tmp_path):
    write_records(tmp_path / "r", 7, 100)
    assert {len(line) for line in (tmp_path / "r").read_bytes().splitlines()} == {99}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_case_gives_a_row(monkeypatch):
    for name, value in (
        ("TEXT_MB", 2),
        ("INDEX_MB", 2),
        ("SMALL_MB", 1),
        ("LONG_MB", 2),
        ("RECORDS", 20_000),
        ("GRAPH_TASKS", 200),
        ("ROUNDS", 1),
    ):
        monkeypatch.setattr(bench, name, value)
    report = bench.run(peers=True)
    cases = {row.case for row in report.rows}
    assert {
        "word count",
        "word count by record",
        "inverted index",
        "inverted index by record",
        "sort",
        "1 KB job",
        "direct shuffle",
        "straggler",
        "graph task",
    } <= cases
    assert all(row.ours > 0 for row in report.rows)
    failed = [row for row in report.rows if isinstance(row, bench.Failed)]
    assert not failed, [row.note for row in failed]
    by_hand = next(row for row in report.rows if row.peer == "by hand")
    assert by_hand.theirs
    assert by_hand.theirs > 0
