"""`ring ddp train | bubble | stale | roofline`: what they print, and how they refuse."""

from __future__ import annotations

import importlib.util
import json
import sys

import pytest
from cli_kit import Typed

from cluster.cli import ddp_children, ddp_roofline, ddp_train
from cluster.errors import Unhealthy

TOPICS = ["transformer", "--width", "16", "--depth", "1", "--batch", "4", "--steps", "2"]


@pytest.fixture
def ring(monkeypatch, capsys):
    return Typed(monkeypatch, capsys)


def test_a_run_as_json(ring):
    done = ring("ddp", "train", *TOPICS, "--parallel", "dp=2", "--json")
    assert done.status == 0, done
    found = json.loads(done.out)
    assert [step for step, _ in found["losses"]] == [0, 1]
    assert found["end"]["steps"] == 2
    assert found["machine"]["cores"]


def test_a_run_for_a_person(ring):
    done = ring("ddp", "train", *TOPICS)
    assert done.status == 0, done
    assert "ACCURACY" in done.out
    assert "6 x parameters x batch" in done.err
    assert "next   ring ddp train" in done.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--parallel", "tp=3"], "tp=3 does not divide 4 heads"),
        (["--parallel", "xp=3"], "write dp=2,pp=2,tp=2"),
        (["--data", "digits"], "a transformer learns topics"),
        (["--optimizer", "lamb"], "there is no optimizer 'lamb'"),
        (["--parallel", "dp=8", "--batch", "2"], "2 samples make no 8 x 1 parts"),
    ],
)
def test_what_makes_no_sense(ring, words, says):
    ring("ddp", "train", *TOPICS, *words).refused(2, says)


def test_an_elastic_run_wants_a_cluster_and_replicas_only(ring, monkeypatch, tmp_path):
    monkeypatch.setenv("RING_HOME", str(tmp_path / "none"))
    ring("ddp", "train", "--elastic", "--parallel", "dp=2").refused(6, "ring up")
    ring("ddp", "train", "--elastic", "--parallel", "pp=2").refused(2, "dp=1 to dp=8")
    ring("ddp", "train", "--parallel", "ps=2").refused(6, "ring up")
    ring("ddp", "train", "--parallel", "ps=0").refused(2, "ps=1 to ps=8 with a server")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--staleness", "2"], "--parallel ps=3"),
        (["--slow", "w1=1"], "--parallel ps=3"),
        (["--parallel", "ps=2", "--staleness", "-1"], "0, 1, 2, … or inf, not '-1'"),
        (["--parallel", "ps=2", "--slow", "ps=1"], "w3=0.1, a worker and seconds, not 'ps=1'"),
        (
            ["--parallel", "ps=2", "--slow", "w3=1"],
            "there is no w3 to be slow: there are w1, w2, ps",
        ),
    ],
)
def test_a_staleness_that_makes_no_sense(ring, words, says):
    ring("ddp", "train", *TOPICS, *words).refused(2, says)


def said_by_a_server_that_was_killed():
    for step in (0, 1, 1):
        yield {
            "kind": "step",
            "step": step,
            "loss": 2.5,
            "rank": "ps",
            "clocks": {"w1": 3, "w2": 1},
        }
    yield {"kind": "healed", "step": 2, "source": "ps", "rank": "w1"}
    yield {"kind": "finished", "step": 2, "accuracy": 0.75, "rank": "ps", "stalest": 4,
           "pushes": {"w1": 3, "w2": 1}, "waits": [["w1", "w2", 1.25]]}  # fmt: skip
    yield {"kind": "finished", "step": 2, "accuracy": 0.75, "rank": "w1"}


def test_who_waited_for_whom_and_the_synchronous_run_beside_it(ring, monkeypatch):
    asked = []

    def elastic(job, flags, run):
        asked.append(flags)
        return said_by_a_server_that_was_killed()

    monkeypatch.setattr(ddp_train, "_elastic", elastic)
    words = ["--parallel", "ps=2", "--staleness", "3", "--slow", "w2=0.5"]
    done = ring("ddp", "train", *TOPICS, *words)
    assert done.status == 0, done
    assert asked == [{
        "w1": ["--staleness", "3"],
        "w2": ["--staleness", "3", "--slow", "0.5"],
        "ps": ["--role", "server", "--staleness", "3"],
    }]  # fmt: skip
    cells = [line.split() for line in done.out.splitlines()]
    assert ["w1", "3", "1.25", "0.00", "1.25"] in cells
    assert ["w2", "1", "0.00", "0.00", "0.00"] in cells
    assert any({"ps=2,", "staleness", "75.0%"} <= set(row) for row in cells)
    assert any("synchronous," in row for row in cells)
    assert "stalest gradient was 4 updates old" in done.err
    assert "ps has nothing newer than step 1: step 1 is done again" in done.err
    assert "healed" not in done.err
    found = json.loads(ring("ddp", "train", *TOPICS, *words, "--json").out)
    assert found["end"]["waits"] == [["w1", "w2", 1.25]]
    assert set(found["synchronous"]) == {"loss", "accuracy", "seconds"}


def test_bubble(ring):
    done = ring("ddp", "bubble", "--stages", "2", "--micros", "2", "--milliseconds", "1", "--json")
    rows = json.loads(done.out)["rows"]
    assert [(row["schedule"], row["expected"], row["held"]) for row in rows] == [
        ("gpipe", 0.5, 2),
        ("1f1b", 0.5, 2),
    ]
    assert all(row["measured"] >= 0.49 for row in rows)


@pytest.mark.skipif(
    not importlib.util.find_spec("sklearn"), reason="pip install 'ringleader[data]'"
)
def test_stale(ring):
    done = ring("ddp", "stale", "--pushes", "12", "--seeds", "1")
    assert done.status == 0, done
    assert "none" in done.out
    assert "for worker 3" in done.out
    assert "nobody" in done.out


# -- children


def child(tmp_path, monkeypatch, code):
    """A module of this name that does this."""
    (tmp_path / "talks.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def test_a_child_that_dies_is_told_of_with_its_last_words(tmp_path, monkeypatch):
    child(tmp_path, monkeypatch, "import sys; print('{}'); sys.exit('out of luck')")
    with pytest.raises(Unhealthy, match="out of luck"):
        assert [*ddp_children.lines_of("talks")]


def test_no_child_outlives_who_does_not_listen_to_the_end(tmp_path, monkeypatch):
    child(tmp_path, monkeypatch, "import os, time; print(os.getpid(), flush=True); time.sleep(99)")
    lines = ddp_children.lines_of("talks")
    pid = next(lines)
    lines.close()
    from pathlib import Path

    assert not Path(f"/proc/{pid}").exists()


def test_who_is_killed_is_started_again_and_who_fails_is_not(tmp_path):
    killed = tmp_path / "was killed"
    code = (
        "import json, os, pathlib, signal, sys; done = pathlib.Path(sys.argv[1]);"
        "first = not done.exists(); done.touch(); print(json.dumps({'kind': 'x'}), flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL) if first else sys.exit('no more')"
    )
    said = []
    with (
        ddp_children.Children({"w1": [sys.executable, "-c", code, str(killed)]}) as children,
        pytest.raises(Unhealthy, match="w1 ended with status 1: no more"),
    ):
        said.extend(event for _, event in children.events(5))
    assert [event["kind"] for event in said] == ["x", "killed", "x"]


# -- the roofline's report

FOUND = {
    "blas": "openblas 1",
    "rounds": 5,
    "peaks": {"float32": 100.0, "float64": 50.0},
    "bandwidths": [["copy", "L1", 16384, 40.0], ["copy", "memory", 1 << 27, 10.0]],
    "points": [
        {"name": "relu", "dtype": "float64", "intensity": 0.1, "gflop_s": 0.9, "roof": 1.0,
         "bound": "memory"},
    ],
    "above": [],
    "bus_gb_s": 1.5,
    "fabric": "shared memory",
    "divisions": [{"name": "dp=4", "intensity": 8.0, "attainable": 48.0, "bound": "network"}],
    "lanes": [{"case": "two sides", "issued": 100, "useful": 50, "waste": 0.5}],
    "coherence": [{"cores": 8, "case": "one counter", "snoop": 100, "directory": 50}],
}  # fmt: skip


def test_a_roofline_for_a_person_and_for_a_program(ring, monkeypatch):
    monkeypatch.setattr(ddp_roofline, "lines_of", lambda module: iter([FOUND]))
    done = ring("ddp", "roofline")
    assert done.status == 0, done
    assert "two ranks over shared memory: 1.50 GB/s" in done.err
    for words in ("relu", "90%", "48", "50.0%", "2.0"):
        assert words in done.out, words
    report = json.loads(ring("ddp", "roofline", "--json").out)
    assert set(report) == {"bench", "machine", "rows", "found"}
    assert report["rows"][0]["ratio"] == 0.9
    assert report["rows"][-1]["holds"]


def test_a_point_above_its_roof_is_a_failure(ring, monkeypatch):
    point = FOUND["points"][0] | {"gflop_s": 1.2}
    broken = FOUND | {"points": [point], "above": ["relu"]}
    monkeypatch.setattr(ddp_roofline, "lines_of", lambda module: iter([broken]))
    done = ring("ddp", "roofline")
    assert done.status == 1
    assert "above its roof: relu" in done.err


@pytest.mark.skipif(
    not importlib.util.find_spec("matplotlib"), reason="pip install 'ringleader[figures]'"
)
def test_figures(ring, monkeypatch, tmp_path):
    monkeypatch.setattr(ddp_roofline, "lines_of", lambda module: iter([FOUND]))
    assert ring("ddp", "roofline", "--figure", str(tmp_path / "roof.svg")).status == 0
    assert ring("ddp", "train", *TOPICS, "--figure", str(tmp_path / "loss.png")).status == 0
    race = {"kind": "race", "bound": None, "seed": 0, "accuracy": 0.9, "rate": 2.0, "stalest": 3,
            "pushes": [1], "waits": [[0, 1, 2.0]]}  # fmt: skip
    monkeypatch.setattr(ddp_train, "lines_of", lambda *_: iter([race | {"bound": 0}, race]))
    assert ring("ddp", "stale", "--figure", str(tmp_path / "stale.svg")).status == 0
    assert {p.name for p in tmp_path.iterdir()} == {"roof.svg", "loss.png", "stale.svg"}
    ring("ddp", "stale", "--figure", "stale.gif").refused(2, ".svg or .png")
