"""What a person sees and what a program reads: tables, the status of a cluster, JSON."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

from cluster import render
from cluster.services import SERVICES, Column, ServiceKind

NODE = {
    "name": "n1",
    "service": "raft",
    "address": "127.0.0.1:7401",
    "pid": 4711,
    "state": "running",
    "restarts": 2,
    "reason": "",
    "health": "ok",
    "says": {"role": "leader", "term": 3, "commit": 9, "applied": 8, "lag": {"n3": 1, "n2": 0}},
}
DOWN = {
    **NODE,
    "name": "n2",
    "pid": 0,
    "state": "fatal",
    "health": "down",
    "reason": "exited with status 2",
    "says": {},
    "output": [f"line {i}" for i in range(1, 9)],
}


def on_a_terminal(code: str, **environment: str) -> str:
    """What `code` writes when standard output is a terminal."""
    ours, theirs = pty.openpty()
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=theirs,
        stderr=subprocess.PIPE,
        env={**clean, "TERM": "xterm-256color", "COLUMNS": "100", **environment},
        timeout=20,
    )
    os.close(theirs)
    assert done.returncode == 0, done.stderr
    text = b""
    try:
        while chunk := os.read(ours, 65_536):
            text += chunk
    except OSError:  # how Linux says that nobody holds the other end any more
        pass
    finally:
        os.close(ours)
    return text.decode()


def cells(line: str) -> list[str]:
    return line.split()


# -- tables


def test_a_table_in_a_pipe_is_plain_text_without_colour(capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    render.table(("NODE", "STATE"), [("n1", "running"), ("n2", "fatal")])
    out, err = capsys.readouterr()
    assert "\x1b" not in out
    assert [cells(line) for line in out.splitlines() if line.strip(" ─")] == [
        ["NODE", "STATE"],
        ["n1", "running"],
        ["n2", "fatal"],
    ]
    assert err == ""


def test_a_table_on_a_terminal_is_coloured_unless_nobody_wants_it():
    code = "from cluster import render; render.table(('STATE',), [('running',)])"
    assert "\x1b[32m" in on_a_terminal(code)
    plain = on_a_terminal(code, NO_COLOR="1")
    assert "\x1b[3" not in plain
    assert "running" in plain


def test_numbers_stand_right_and_words_left(capsys):
    render.table(("NAME", "COUNT"), [("a", 7), ("bbbb", 1234)], right=("COUNT",))
    rows = capsys.readouterr().out.splitlines()
    seven, more = (next(row.rstrip() for row in rows if word in row) for word in (" 7", "1234"))
    assert len(seven) == len(more)
    assert seven.index("a") == more.index("bbbb")


def test_what_looks_like_markup_is_shown_as_it_is(capsys):
    render.table(("KEY",), [("[red]jobs[/red]",), ("[/]",), (":smile:",)])
    out = capsys.readouterr().out
    assert "[red]jobs[/red]" in out
    assert "[/]" in out
    assert ":smile:" in out


def test_a_long_cell_in_a_pipe_is_whole(capsys):
    lag = " ".join(f"n{i}:0" for i in range(2, 100))
    render.table(("NODE", "LAG"), [("n1", lag)])
    assert lag in capsys.readouterr().out


def test_a_table_without_rows_still_has_its_head(capsys):
    render.table(("NODE", "STATE"), [])
    assert "NODE" in capsys.readouterr().out


# -- JSON and talk


def test_json_is_data_on_stdout_and_talk_is_not(capsys):
    render.as_json({"key": b"\xffjobs", "where": os.path, "n": [1, None, 2.5]})
    render.say("✓ done")
    out, err = capsys.readouterr()
    data = json.loads(out)
    assert data["key"] == "�jobs"
    assert data["n"] == [1, None, 2.5]
    assert err == "✓ done\n"


# -- the status of a cluster


def test_a_row_has_a_cell_for_each_column():
    heads, rows = render.status_table("raft", [NODE, DOWN])
    assert [len(row) for row in rows] == [len(heads)] * 2
    assert dict(zip(heads, rows[0], strict=True)) == {
        "NODE": "n1",
        "ADDRESS": "127.0.0.1:7401",
        "PID": 4711,
        "STATE": "running",
        "HEALTH": "ok",
        "ROLE": "leader",
        "TERM": 3,
        "COMMIT": 9,
        "APPLIED": 8,
        "LAG": "n2:0 n3:1",
        "RESTARTS": 2,
    }


def test_who_says_nothing_has_dashes_and_zero_is_not_one_of_them():
    _, (silent, zero) = render.status_table("raft", [DOWN, {**NODE, "says": {"term": 0}}])
    assert silent[2] == "-"
    assert silent[5:10] == ["-"] * 5
    assert zero[6] == 0


def test_each_service_has_a_table_of_its_own(capsys, monkeypatch):
    kind = ServiceKind("x", "x", 1, (Column("KEYS", "keys", number=True),))
    monkeypatch.setitem(SERVICES, "other", kind)
    other = {**NODE, "name": "x1", "service": "other", "says": {"keys": 7}}
    render.show_status({"nodes": [other, NODE]})
    heads = [line.split() for line in capsys.readouterr().out.splitlines() if "NODE" in line]
    assert [head[5:-1] for head in heads] == [
        ["ROLE", "TERM", "COMMIT", "APPLIED", "LAG"],
        ["KEYS"],
    ]


def test_under_the_table_stands_why_a_node_is_not_well_and_its_last_words(capsys):
    render.show_status({"nodes": [NODE, DOWN]})
    out, err = capsys.readouterr()
    assert err.splitlines() == [
        "n2: exited with status 2",
        *(f"n2 | line {i}" for i in range(4, 9)),
    ]
    assert out.count("n1") == 1


def test_why_a_node_was_unwell_once_is_not_told_when_it_is_well(capsys):
    render.show_status({"nodes": [{**NODE, "reason": "kill -9"}]})
    assert capsys.readouterr().err == ""
