"""What the page is made of: the folder of a run, read whole, and nothing that could break out."""

from __future__ import annotations

import json
import re

import pytest
from report_kit import event, stale_history, write_run

from cluster.report.data import EVENTS_MAX, load


@pytest.fixture
def run(tmp_path):
    write_run(tmp_path / "run", stale_history())
    return tmp_path / "run"


def test_operations_are_columns_of_one_length_with_the_numbers_of_the_verdict(run):
    data = load(run)
    columns = data["operations"]
    assert {len(column) for column in columns.values()} == {34}
    (wrong,) = [f for f in data["verdict"]["findings"] if f["verdict"] == "invalid"]
    (index,) = wrong["operations"]
    assert data["words"][columns["f"][index]] == "read"
    assert data["keys"][columns["key"][index]] == "x"
    assert (columns["called"][index], columns["result"][index]) == (0.4, "1")
    # The longest order that explains a beginning, and what it led to.
    assert [columns["value"][i] for i in wrong["order"]] == ["1", "2"]
    assert wrong["state"] == "2"


def test_one_that_nobody_knows_of_ends_when_it_was_given_up(run):
    columns = load(run)["operations"]
    (index,) = [i for i, outcome in enumerate(columns["outcome"]) if outcome == 2]
    assert (columns["called"][index], columns["ended"][index]) == (0.5, 2.5)


def test_a_row_is_taken_over_by_whoever_comes_when_its_process_is_gone(tmp_path):
    events = [
        event(0.0, "invoke", 0, "write", 1),
        event(0.1, "invoke", 1, "write", 2),
        event(1.0, "info", 0, "write", 1),
        event(1.5, "invoke", 2, "write", 3),
        event(1.6, "ok", 2, "write", None),
        event(1.7, "ok", 1, "write", None),
    ]
    write_run(tmp_path / "run", events)
    data = load(tmp_path / "run")
    assert (data["lanes"], data["operations"]["lane"]) == (2, [0, 1, 0])


def test_reigns_end_with_another_role_or_with_the_process(run):
    reigns = load(run)["reigns"]
    assert [(r["node"], r["term"], r["begin"], r["end"]) for r in reigns] == [
        ("n1", 1, 0.0, 1.0),
        ("n3", 2, pytest.approx(1.4), 2.0),
    ]


def test_events_are_told_in_order_and_a_line_that_was_cut_off_is_left_out(run):
    rows = load(run)["events"]
    assert [(row[1], row[2]) for row in rows][:2] == [
        ("n1", "raft.role"),
        ("supervisor", "process.exit"),
    ]
    assert rows[0][3] == "role=leader  term=1"
    assert len(rows) == 5


def test_of_too_many_events_the_commonest_kinds_are_left_out(run):
    line = '{"v":1,"seq":1,"mono":1001.0,"wall":0.0,"node":"n1","kind":"log.commit","index":1}\n'
    (run / "events" / "n9.jsonl").write_text(line * EVENTS_MAX)
    assert {row[2] for row in load(run)["events"]} == {"raft.role", "process.exit"}


def test_no_value_ends_the_element_it_stands_in(tmp_path):
    evil = "</script><script>alert(1)</script>&"
    page = write_run(tmp_path / "run", stale_history(value=evil)).read_text()
    assert "alert(1)</script>" not in page
    (inside,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)
    assert evil in json.dumps(json.loads(inside), ensure_ascii=False)


def test_the_page_needs_nothing_from_anywhere(run):
    page = (run / "report.html").read_text()
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:,)""", page)
    assert not re.findall(r"@import|url\(|fetch\(|https?:", page)
