"""`ring verify` as it is typed."""

from __future__ import annotations

import json
import shutil

import pytest

from cluster.chaos.folder import new_folder


def history(tmp_path, *reads, writes=10):
    """So many writes of 0, 1, 2 … and then reads with these answers."""
    calls = [("write", i, None) for i in range(writes)] + [("read", None, r) for r in reads]
    path = tmp_path / "history.jsonl"
    with path.open("w") as file:
        for time, (f, value, result) in enumerate(calls):
            event = {"process": 0, "f": f, "key": "x"}
            for at, (type_, of) in enumerate((("invoke", value), ("ok", result))):
                line = event | {"type": type_, "value": of, "time": time + at / 2}
                file.write(json.dumps(line) + "\n")
    return str(path)


def test_a_right_history_is_valid(ring, tmp_path):
    done = ring("verify", history(tmp_path, 9))
    assert done.status == 0
    assert done.out.splitlines()[-1] == "VALID  11 operations · 11 ok · 0 failed · 0 unknown"


def test_a_wrong_one_is_invalid_and_says_why(ring, tmp_path):
    done = ring("verify", history(tmp_path, 9, 3))
    assert done.status == 1
    wrong, last = done.out.splitlines()[-2:]
    assert wrong.startswith("invalid  linearizable register: after 11 of 12 operations of 'x'")
    assert "<11 p0 read x -> 3>" in wrong
    assert last.startswith("INVALID")


def test_too_little_to_mean_anything_is_unknown(ring, tmp_path):
    assert ring("verify", history(tmp_path, writes=9)).status == 3


def test_no_time_at_all_is_unknown_if_it_takes_any(ring, tmp_path):
    # A look at the clock comes every so many configurations.
    assert ring("verify", history(tmp_path, writes=3000), "--limit", "0").status == 3


def test_programs_get_json(ring, tmp_path):
    report = json.loads(ring("verify", history(tmp_path, 9, 3), "--json").out)
    assert report["verdict"] == "invalid"
    assert report["counts"] == {"operations": 12, "ok": 12, "fail": 0, "info": 0}
    assert report["findings"][1]["operations"] == [11]


def test_transactions_are_known_by_their_name(ring, tmp_path):
    path = tmp_path / "txn.jsonl"
    rows = [([["append", "x", i]], i) for i in range(10)] + [([["r", "x", [0]]], 50)]
    with path.open("w") as file:
        for steps, time in rows:
            event = {"process": 0, "f": "txn", "value": steps}
            file.write(json.dumps(event | {"type": "invoke", "time": time}) + "\n")
            file.write(json.dumps(event | {"type": "ok", "time": time + 0.5}) + "\n")
    assert ring("verify", str(path)).status == 0
    # The first was seen, and the second, which was answered long before, was not.
    with path.open("a") as file:
        event = {"process": 0, "f": "txn", "value": [["r", "x", [0, 1]]]}
        file.write(json.dumps(event | {"type": "invoke", "time": 60}) + "\n")
        file.write(json.dumps(event | {"type": "ok", "time": 61}) + "\n")
    done = ring("verify", str(path))
    assert done.status == 1
    assert "G-single-realtime, so not strict serializable: " in done.out
    assert "T10 did not observe T1's append of 1 to 'x'" in done.out


def test_a_model_can_be_named(ring, tmp_path):
    assert ring("verify", history(tmp_path, 9), "--model", "register").status == 0
    ring("verify", history(tmp_path, 9), "--model", "tree").refused(2, "register, strings, kv, set")


def counted(tmp_path):
    """Ten additions and a read, as a counter answers."""
    path = tmp_path / "counter.jsonl"
    with path.open("w") as file:
        for time in range(11):
            f, value, answer = ("add", 1, None) if time < 10 else ("read", None, 10)
            event = {"process": 0, "f": f}
            for at, (type_, of) in enumerate((("invoke", value), ("ok", answer))):
                line = event | {"type": type_, "value": of, "time": time + at / 2}
                file.write(json.dumps(line) + "\n")
    return str(path)


def test_a_counter_is_known_by_its_answers(ring, tmp_path):
    done = ring("verify", counted(tmp_path))
    assert done.status == 0
    assert "counter: 1 reads of 10 additions" in done.out


def test_a_history_of_another_model_is_a_mistake_and_no_verdict(ring, tmp_path):
    ring("verify", counted(tmp_path), "--model", "set").refused(
        2, "<10 p0 read -> 10>: read of set is answered with a list"
    )
    ring("verify", counted(tmp_path), "--model", "kv").refused(2, "kv knows cas, delete, get, put")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", ("line 1", "not JSON")),
        ('{"type": "invoke", "process": 1, "f": "fly", "time": 1}', ("no model knows fly",)),
        ('{"type": "invoke", "process": 1, "time": 1}', ("event 1", "needs type")),
    ],
)
def test_what_is_no_history_is_a_mistake_that_is_told(ring, tmp_path, text, words):
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    done = ring("verify", str(path))
    done.refused(2, str(path), *words)
    assert done.err.count(str(path)) == 1


def test_a_file_that_is_not_there_is_told(ring, tmp_path):
    ring("verify", str(tmp_path / "none")).refused(2, "none cannot be read")


def test_without_a_name_it_is_the_newest_run_of_this_home(ring, tmp_path, monkeypatch):
    monkeypatch.setenv("RING_HOME", str(tmp_path))
    ring("verify").refused(2, "there is no run in", "ring chaos")
    folder = new_folder(tmp_path / "runs", "register", 1)
    ring("verify").refused(2, str(folder), "is not the folder of a run")
    run = {"nodes": ["n1"], "faults": [], "model": "register"}
    (folder / "run.json").write_text(json.dumps(run))
    shutil.move(history(tmp_path, 9), folder)
    (folder / "events").mkdir()
    done = ring("verify")
    assert done.err.splitlines()[0] == f"the newest run: {folder}"
    assert (done.status, done.out.splitlines()[-1].split()[0]) == (3, "UNKNOWN")
