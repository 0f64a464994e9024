"""`ring bench mapreduce` on inputs so small that it takes seconds: every case gives its row."""

from __future__ import annotations

import pytest

from cluster.bench import mapreduce as bench


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_case_gives_a_row(monkeypatch):
    for name, value in (
        ("TEXT_MB", 2),
        ("INDEX_MB", 2),
        ("SMALL_MB", 1),
        ("LONG_MB", 2),
        ("RECORDS", 20_000),
        ("ROUNDS", 1),
    ):
        monkeypatch.setattr(bench, name, value)
    report = bench.run(peers=True)
    cases = {row.case for row in report.rows}
    assert {
        "word count",
        "inverted index",
        "sort",
        "1 KB job",
        "direct shuffle",
        "straggler",
    } <= cases
    assert all(row.ours > 0 for row in report.rows)
    by_hand = next(row for row in report.rows if row.peer == "by hand")
    assert by_hand.theirs
    assert by_hand.theirs > 0
