"""The folder of a run: what is in it decides the verdict, and `ring verify` looks at all of it."""

from __future__ import annotations

import json

import pytest

from cluster.chaos.campaign import Result
from cluster.chaos.folder import (
    Described,
    Outcome,
    describe,
    judge_folder,
    read_outcome,
    record_outcome,
)
from cluster.chaos.injector import Record
from cluster.verify.finding import Finding

NODES = ("n1", "n2", "n3")


def history(answers: int = 600, every_s: float = 0.1) -> str:
    """A register that is written and read in turn, all of it right."""
    events = []
    for i in range(answers):
        event = {"process": 0, "f": "read" if i % 2 else "write", "key": f"r{i // 100}"}
        value, answer = (None, i - 1) if i % 2 else (i, None)
        time = i * every_s
        events.append(event | {"type": "invoke", "value": value, "time": time})
        events.append(event | {"type": "ok", "value": answer, "time": time + every_s / 2})
    return "".join(json.dumps(event) + "\n" for event in events)


def kill(took_effect: bool | None = True, unseated: bool = False) -> Record:
    evidence = "n1 is gone" if took_effect else "process 7 is still there"
    return Record("kill", "one", ["n1"], {}, 5.0, 6.0, took_effect, evidence, unseated)


def write_run(folder, *, slowness=1.0, broken=(), packages=("kill",), text=None, **changes):
    """A run of a minute with one kill."""
    folder.mkdir()
    described = Described(
        "register", "register", "raft", NODES, packages, 4, 60.0, ("ring", "chaos"), 0.0
    )
    describe(folder, described, [])
    (folder / "history.jsonl").write_text(history() if text is None else text)
    harmed = [(0.0, frozenset()), (5.0, frozenset({"n1"})), (6.0, frozenset())]
    fields = {"records": [kill()], "harmed": harmed, "terms": 2, "trouble_s": 60.0, "peace_s": 0.5}
    result = None if broken else Result(answered_at=[], **(fields | changes))
    record_outcome(folder, Outcome(result, slowness, broken))
    return folder


ABLE_NEVER = [(0.0, frozenset({"n1", "n2"}))]


@pytest.mark.parametrize(
    ("status", "what", "why"),
    [
        (0, {}, "VALID  600 operations"),
        (3, {"records": [kill(False)]}, "unknown  faults took effect: none of kill: process 7"),
        (3, {"records": [kill(None)]}, "unknown  faults took effect: none of kill"),
        (3, {"records": []}, "none of kill: the plan had nothing of it"),
        (3, {"packages": ("kill", "disk")}, "none of disk"),
        (0, {"packages": (), "records": []}, "none was asked for"),
        (3, {"harmed": ABLE_NEVER}, "unknown  it went on while a quorum was able: 0.0 s in all"),
        (3, {"records": [kill(unseated=True)], "terms": 1}, "unknown  leaders changed"),
        (1, {"complaints": ["n1 is fatal"], "peace_s": None}, "all was well again: n1 is fatal"),
        (1, {"text": history(300)}, "nobody was answered for 30.0 s from 29.95 on"),
        (0, {"text": history(560), "slowness": 1.0}, "VALID  560 operations"),
        (1, {"text": history(530)}, "nobody was answered for 7.0"),
        (0, {"text": history(530), "slowness": 2.0}, "VALID  530 operations"),
        (1, {"broken": [Finding("no node fails", "invalid", "KeyError: 7")]}, "KeyError: 7"),
        (3, {"text": "", "harmed": ABLE_NEVER}, "0 operations were answered"),
        (1, {"text": ""}, "nobody was answered for 60.0 s from 0.00 on"),
    ],
)
def test_all_that_the_campaign_knew_is_judged_again(ring, tmp_path, status, what, why):
    done = ring("verify", str(write_run(tmp_path / "run", **what)))
    assert done.status == status, done
    assert why in done.out
    told = json.loads(ring("verify", str(tmp_path / "run"), "--json").out)
    assert told["verdict"] == {0: "valid", 1: "invalid", 3: "unknown"}[status]


def test_what_is_wrong_is_shown_however_much_is_right(ring, tmp_path, monkeypatch):
    """Other checks are valid and come first; the stale read is the last of it."""
    monkeypatch.setattr("cluster.cli.verify.SHOWN_MAX", 1)
    wrong = [
        {"process": 9, "f": "read", "key": "r0", "type": kind, "value": value, "time": 70.0}
        for kind, value in (("invoke", None), ("ok", 3))
    ]
    text = history() + "".join(json.dumps(event) + "\n" for event in wrong)
    run = write_run(tmp_path / "run", text=text)
    done = ring("verify", str(run))
    assert done.status == 1
    assert "invalid  linearizable register" in done.out


def test_a_run_that_did_not_come_to_its_end_is_unknown(ring, tmp_path):
    run = write_run(tmp_path / "run")
    (run / "outcome.json").unlink()
    done = ring("verify", str(run))
    assert done.status == 3
    assert "unknown  the campaign came to its end: there is no outcome.json" in done.out


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("outcome.json", "{"),
        ("outcome.json", "{}"),
        ("faults.jsonl", '{"fault": "kill"}\n'),
        ("run.json", '{"model": "register"}'),
    ],
)
def test_a_folder_that_was_tampered_with_is_a_mistake_that_is_told(ring, tmp_path, name, text):
    run = write_run(tmp_path / "run")
    (run / name).write_text(text)
    ring("verify", str(run)).refused(2, str(run))


def test_a_folder_without_a_run_is_told(ring, tmp_path):
    ring("verify", str(tmp_path)).refused(2, "is not the folder of a run")


def test_what_is_written_is_what_is_read(tmp_path):
    run = write_run(tmp_path / "run", complaints=["a"], peace_s=None, began_s=0.25, slowness=1.5)
    outcome = read_outcome(run, [1.0, 2.0])
    result = outcome.result
    assert outcome.slowness == 1.5
    assert result.answered_at == [1.0, 2.0]
    assert (result.began_s, result.trouble_s, result.peace_s, result.terms) == (0.25, 60.0, None, 2)
    assert result.complaints == ["a"]
    assert result.harmed[1] == (5.0, frozenset({"n1"}))
    assert result.records[0].to_json() == kill().to_json()


def test_a_model_can_be_named_instead(tmp_path):
    run = write_run(tmp_path / "run")
    assert judge_folder(run, "register", limit_s=10).verdict == "valid"
