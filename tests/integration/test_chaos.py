"""Campaigns on real processes, as typed: the verdict, the evidence, and that nothing runs on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from ring_kit import Ring

from cluster.chaos.plan import Episode, read_plan, write_plan
from cluster.chaos.scenarios import SCENARIOS


@pytest.fixture
def ring(tmp_path):
    return Ring(tmp_path / "home")


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def processes_under(folder: Path) -> list[str]:
    """Command lines of all that runs with a file of this folder in its arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in words:
            found.append(words)
    return found


def test_a_short_campaign_on_a_healthy_build_is_valid_and_leaves_its_evidence(ring, tmp_path):
    done = ring(
        "chaos",
        "register",
        "--time",
        "25",
        "--seed",
        "3",
        "--faults",
        "kill,pause",
        "--json",
        lasts_s=25,
    )
    told = json.loads(done.stdout)
    assert told["verdict"] == "valid"
    assert told["counts"]["ok"] > 200
    run = Path(told["run"])
    assert run.resolve() == (ring.home / "runs" / "latest").resolve()
    faults = lines(run / "faults.jsonl")
    assert sum(fault["took_effect"] for fault in faults) >= 1
    assert {"run.json", "plan.jsonl", "history.jsonl", "outcome.json", "verdict.json"} <= {
        path.name for path in run.iterdir()
    }
    for name in ("n1", "n2", "n3"):
        assert any(
            event["kind"] == "node.start" for event in lines(run / "events" / f"{name}.jsonl")
        )
    assert not (run / "home").exists()
    assert processes_under(tmp_path) == []
    again = json.loads(ring("verify", str(run), "--json").stdout)
    assert again == {name: value for name, value in told.items() if name != "run"}


def test_the_same_seed_is_the_same_plan_and_a_plan_can_be_given(ring, tmp_path):
    plan = [Episode("kill", "n2", {}, 0.5, 1.5)]
    write_plan(tmp_path / "plan.jsonl", plan)
    done = ring(
        "chaos",
        "--time",
        "12",
        "--seed",
        "3",
        "--plan",
        str(tmp_path / "plan.jsonl"),
        "--json",
        lasts_s=12,
    )
    run = Path(json.loads(done.stdout)["run"])
    assert read_plan(run / "plan.jsonl") == plan
    (fault,) = lines(run / "faults.jsonl")
    assert (fault["nodes"], fault["took_effect"]) == (["n2"], True)
    assert "process" in fault["evidence"]


def test_of_two_faults_of_one_disk_only_that_counts_which_was_there(ring, tmp_path):
    """A process that gave up over the one has not shown the other, though both were set."""
    far = 10**6
    plan = [
        Episode("torn", "n2", {"torn": True}, 0.5, 3.0),
        Episode("eio", "n2", {"eio_at": far}, 0.6, 3.1),
        Episode("eio", "n3", {"eio_at": 1}, 4.0, 6.5),
    ]
    write_plan(tmp_path / "plan.jsonl", plan)
    words = ("--time", "12", "--seed", "3", "--plan", str(tmp_path / "plan.jsonl"), "--json")
    done = ring("chaos", *words, lasts_s=12, status=None)
    run = Path(json.loads(done.stdout)["run"])
    torn, eio_far, eio = lines(run / "faults.jsonl")
    assert (torn["took_effect"], torn["evidence"]) == (
        True,
        "n2 gave up over its disk: torn write",
    )
    assert (eio_far["took_effect"], eio_far["evidence"]) == (False, "nothing of it was to be seen")
    assert (eio["took_effect"], eio["evidence"]) == (
        True,
        "n3 gave up over its disk: Input/output error",
    )


def test_a_disk_that_lies_is_found_out(ring):
    """kill -9 of all while syncs are lies: what was acknowledged is gone, and the judge says so."""
    for seed in range(4):
        plan = ring.home.parent / f"{seed}.jsonl"
        write_plan(
            plan,
            [
                Episode("lie", "all", {"sync_lies": True}, 0.5, 5.0),
                Episode("kill", "all", {}, 3.0, 4.0),
            ],
        )
        done = ring(
            "chaos",
            "register",
            "--time",
            "6",
            "--seed",
            str(seed),
            "--plan",
            str(plan),
            status=None,
        )
        if done.returncode == 1:
            assert "invalid" in done.stdout
            assert "INVALID" in done.stdout
            return
    raise AssertionError("acknowledged writes were lost, and nobody noticed")


def test_a_cluster_that_runs_already_is_used_and_left_running(ring):
    ring.up()
    words = ("--here", "--time", "15", "--seed", "1", "--faults", "kill")
    done = ring("chaos", "register", *words, lasts_s=15)
    assert "VALID" in done.stdout
    ring.healthy()
    ring("down")


@pytest.mark.skipif(shutil.which("etcd") is None, reason="etcd is not installed")
def test_somebody_elses_store_is_judged_by_the_same_judge(ring, tmp_path):
    done = ring(
        "chaos",
        "register",
        "--system",
        "etcd",
        "--time",
        "20",
        "--seed",
        "5",
        "--faults",
        "kill",
        "--json",
        lasts_s=20,
    )
    told = json.loads(done.stdout)
    assert told["verdict"] == "valid"
    assert told["counts"]["ok"] > 100
    described = json.loads((Path(told["run"]) / "run.json").read_text())
    assert (described["system"], described["nodes"]) == ("etcd", ["m1", "m2", "m3"])
    assert processes_under(tmp_path) == []


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["mars"], "there is no scenario 'mars'"),
        (["--faults", "floods"], "there is no fault 'floods'"),
        (["--system", "oracle"], "there is no system 'oracle'"),
        (["--system", "etcd", "--here"], "--here means a cluster of ours"),
        (["--plan", "/nowhere"], "cannot be read"),
        (["--faults", "ring"], "ring: it takes 4 nodes, and there are 3"),
        (["--here"], "there is no cluster"),
    ],
)
def test_what_makes_no_sense_is_told_before_anything_is_started(ring, tmp_path, words, why):
    done = ring("chaos", *words, status=None)
    assert done.returncode in (2, 6)
    assert why in done.stderr
    assert list((ring.home / "runs").glob("*-seed*")) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name != "register"])
def test_two_minutes_of_everything_are_valid(ring, scenario):
    ring("chaos", scenario, "--time", "120", "--seed", "2026", lasts_s=120)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_minutes_of_everything_are_valid(ring):
    ring("chaos", "register", "--time", "600", "--seed", "2026", lasts_s=600)
