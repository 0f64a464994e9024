"""`ring sim` as it is typed: what it says, keeps and exits with, over runs made up for it."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.chaos import simulate as simulation
from cluster.chaos.campaign import Result
from cluster.chaos.injector import Record
from cluster.chaos.plan import Episode, read_plan, write_plan
from cluster.chaos.simulate import SimulatedRun
from cluster.verify.finding import Finding
from cluster.verify.verdict import Verdict

KILL = Episode("kill", "n1", {}, 1.0, 2.0)
PAUSE = Episode("pause", "n2", {}, 1.0, 2.0)
LOSS = Episode("loss", "all", {"loss": 0.1}, 3.0, 4.0)
DRAWN = [KILL, PAUSE, LOSS]

# By seed; and whether a fault of some package took effect.
VERDICTS: dict[int, str] = {}
HARMLESS: set[str] = set()


def history() -> str:
    events = []
    for i in range(20):
        event = {"process": 0, "f": "write" if i % 2 == 0 else "read", "key": "x"}
        value, answer = (i, None) if i % 2 == 0 else (None, i - 1)
        events.append(event | {"type": "invoke", "value": value, "time": float(i)})
        events.append(event | {"type": "ok", "value": answer, "time": i + 0.5})
    return "".join(json.dumps(event) + "\n" for event in events)


def made_up(scenario, seed, *, seconds=20.0, packages=None, plan=None):
    """A run of twenty answers in which what VERDICTS says was found."""
    plan = DRAWN if plan is None else plan
    records = [
        Record(e.fault, e.target, ["n1"], {}, e.at, e.until, e.fault not in HARMLESS, "seen")
        for e in plan
    ]
    result = Result(records, [(0.0, frozenset())], [i + 0.5 for i in range(20)], 2, 20.0, 0.1)
    verdict = VERDICTS.get(seed, "valid")
    broken = [Finding("invariants", "invalid", "two leaders")] if verdict == "invalid" else []
    if verdict == "invalid" and KILL not in plan:
        # Without its kill another thing is wrong with it.
        broken = [replace(broken[0], check="no node fails")]
    judged = Verdict(
        [*broken, Finding("history", verdict, "so it is")], {"operations": 20, "ok": 20}
    )
    if verdict == "invalid":
        judged.findings.pop()
    nodes = ("n1", "n2", "n3")
    return SimulatedRun(seed, nodes, plan, judged, result, 0.0, 20.0, history(), "", broken)


@pytest.fixture(autouse=True)
def runs(monkeypatch):
    VERDICTS.clear()
    HARMLESS.clear()
    monkeypatch.setattr(simulation, "simulate", made_up)


FAULTS = ("--faults", "kill,pause,packets")


def test_all_valid_is_valid(ring):
    done = ring("sim", "register", "--seeds", "3", *FAULTS)
    assert done.status == 0
    assert [line[:16] for line in done.err.splitlines()[:3]] == [
        f"VALID    seed {i} " for i in range(3)
    ]
    assert "3 valid, 0 unknown" in done.err


def test_one_unknown_seed_of_many_shows_in_the_status(ring):
    VERDICTS[1] = "unknown"
    done = ring("sim", "register", "--seeds", "3", *FAULTS)
    assert done.status == 3
    assert "2 valid, 1 unknown" in done.err


def test_the_first_invalid_seed_ends_it(ring):
    VERDICTS.update({0: "unknown", 1: "invalid"})
    done = ring("sim", "register", "--seeds", "40", *FAULTS)
    assert done.status == 1
    assert "seed 1 " in done.err
    assert "seed 2 " not in done.err


def test_a_fault_that_took_effect_in_no_seed_is_unknown_and_json_says_why(ring):
    HARMLESS.add("pause")
    done = ring("sim", "register", "--seeds", "2", *FAULTS, "--json")
    assert done.status == 3
    told = json.loads(done.out)
    assert told["verdict"] == "unknown"
    assert [run["verdict"] for run in told["runs"]] == ["valid", "valid"]
    unknown = [f["sentence"] for f in told["findings"] if f["verdict"] == "unknown"]
    assert unknown == ["none of pause: seen"]


def test_a_package_that_no_plan_had_is_unknown(ring):
    done = ring("sim", "register", "--seeds", "2", "--faults", "kill,disk")
    assert done.status == 3
    assert "none of disk: the plan had nothing of it" in done.err


def test_no_fault_may_be_asked_for(ring, monkeypatch):
    monkeypatch.setattr("test_sim_command.DRAWN", [])
    assert ring("sim", "register", "--seeds", "2", "--faults", "none").status == 0
    assert ring("sim", "register", "--seeds", "2", "--faults", "kill").status == 3


def test_json_of_an_invalid_run_is_invalid(ring):
    VERDICTS[0] = "invalid"
    told = json.loads(ring("sim", "register", "--seed", "0", *FAULTS, "--json").out)
    assert told["verdict"] == "invalid"


def test_what_failed_is_made_smaller_as_long_as_the_same_check_fails_and_is_kept(ring, tmp_path):
    """The kill alone brings it about; what another plan breaks is another story."""
    VERDICTS[7] = "invalid"
    done = ring("sim", "register", "--seed", "7", "--time", "9", *FAULTS)
    assert done.status == 1
    run = (tmp_path / "home" / "runs" / "latest").resolve()
    assert read_plan(run / "plan.jsonl") == [KILL]
    replays = [
        line.split(None, 1)[1] for line in done.err.splitlines() if line.startswith("replay")
    ]
    first = "ring sim register --seed 7 --time 9"
    assert replays == [
        f"{first} --faults kill,pause,packets",
        f"{first} --plan {run / 'plan.jsonl'}",
    ]
    assert json.loads((run / "run.json").read_text())["command"] == replays[1]
    assert json.loads((run / "verdict.json").read_text())["verdict"] == "invalid"
    assert (run / "report.html").exists()
    done = ring("verify", str(run))
    assert done.status == 1
    assert "invalid  invariants: two leaders" in done.out


def test_the_command_that_replays_it_names_the_plan_that_was_given(ring, tmp_path):
    VERDICTS[7] = "invalid"
    path = tmp_path / "my plan.jsonl"
    write_plan(path, [KILL])
    done = ring("sim", "register", "--seed", "7", "--plan", str(path))
    assert f"--time 20 --plan {shlex.quote(str(path))}\n" in done.err
    assert "…" not in done.err


def test_a_plan_that_was_given_is_the_one_that_is_run_even_an_empty_one(ring, tmp_path):
    path = tmp_path / "plan.jsonl"
    write_plan(path, [])
    done = ring("sim", "register", "--seeds", "2", "--plan", str(path))
    assert done.status == 3
    assert "none of kill: the plan had nothing of it" in done.err
    assert (
        ring("sim", "register", "--seeds", "2", "--plan", str(path), "--faults", "none").status == 0
    )
    write_plan(path, [KILL])
    done = ring("sim", "register", "--seeds", "2", "--plan", str(path))
    assert (done.status, "1 of 1" in done.err or "2 of 2" in done.err) == (0, True)


def test_one_seeds_history_is_written_where_it_is_wanted(ring, tmp_path):
    path: Path = tmp_path / "history.jsonl"
    assert ring("sim", "--seed", "3", "--history", str(path), *FAULTS).status == 0
    assert path.read_text() == history()
    assert ring("verify", str(path)).status == 0
