"""The folder that a run leaves: all that its verdict rests on.

    .ring/runs/2026-11-23T19-06-40-register-seed42/
        run.json        what was run, and the command that runs it again
        plan.jsonl      the fault plan               faults.jsonl   what came of it
        outcome.json    who was harmed when, how often leaders changed, what was not well at the end
        history.jsonl   what clients asked and were told
        events/n1.jsonl the nodes' own logs          home/   the cluster, if it was a fresh one
        verdict.json    report.html                  the same for machines and for people

`latest` beside it points to the newest. A verdict is always made from what lies here
(judge_folder), so that whoever has the folder can make it again.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cluster.chaos.campaign import Result
from cluster.chaos.injector import Record
from cluster.chaos.judge import judge_effects, judge_result, judge_run
from cluster.chaos.plan import Plan, write_plan
from cluster.report.page import write_report
from cluster.verify.finding import Finding
from cluster.verify.history import OK, operations, read_events
from cluster.verify.invariants import read_node_events
from cluster.verify.linear import INVALID, UNSURE
from cluster.verify.verdict import Verdict

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Described:
    """What was run. `began_mono` is the moment on the nodes' steady clocks that is 0 here."""

    scenario: str
    model: str
    system: str
    nodes: Sequence[str]
    faults: Sequence[str]
    seed: int
    seconds: float
    command: Sequence[str]
    began_mono: float


def new_folder(runs: Path, scenario: str, seed: int) -> Path:
    """A folder for a run that begins now; `latest` points to it."""
    stamp = time.strftime("%Y-%m-%dT%H-%M-%S")
    folder = runs / f"{stamp}-{scenario}-seed{seed}"
    number = 2
    while folder.exists():
        folder = runs / f"{stamp}-{scenario}-seed{seed}-{number}"
        number += 1
    folder.mkdir(parents=True)
    latest = runs / "latest"
    with suppress(OSError):
        latest.unlink(missing_ok=True)
        latest.symlink_to(folder.name)
    return folder


def describe(folder: Path, what: Described, plan: Plan) -> None:
    """What is about to run: run.json and plan.jsonl."""
    described = {
        "version": VERSION,
        "scenario": what.scenario,
        "model": what.model,
        "faults": list(what.faults),
        "system": what.system,
        "nodes": list(what.nodes),
        "seed": what.seed,
        "seconds": what.seconds,
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "began_mono": what.began_mono,
        "command": shlex.join(what.command),
    }
    (folder / "run.json").write_text(json.dumps(described, indent=2))
    write_plan(folder / "plan.jsonl", plan)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the campaign itself knows.

    result: None if a daemon's own invariants ended the run.
    slowness: by which all limits have grown.
    broken: what the daemons themselves found to be wrong.
    """

    result: Result | None
    slowness: float = 1.0
    broken: Sequence[Finding] = ()


def record_outcome(folder: Path, outcome: Outcome) -> None:
    """What came of it: faults.jsonl and outcome.json."""
    result = outcome.result
    lines = [json.dumps(record.to_json()) + "\n" for record in result.records] if result else []
    (folder / "faults.jsonl").write_text("".join(lines))
    told: dict[str, Any] = {
        "version": VERSION,
        "slowness": outcome.slowness,
        "broken": [[finding.check, finding.sentence] for finding in outcome.broken],
        "result": None,
    }
    if result is not None:
        told["result"] = {name: getattr(result, name) for name in _TOLD}
        told["result"]["harmed"] = [[time, sorted(names)] for time, names in result.harmed]
    (folder / "outcome.json").write_text(json.dumps(told, indent=2))


# Of a Result; its records are faults.jsonl, and its answers are in the history.
_TOLD: Final = ("began_s", "trouble_s", "peace_s", "terms", "complaints")


def read_outcome(folder: Path, answered_at: Sequence[float]) -> Outcome:
    """What record_outcome wrote; raises OSError, or ValueError if it is none.

    Args:
        answered_at: when something succeeded, as the history has it.
    """
    path = folder / "outcome.json"
    try:
        told = json.loads(path.read_text())
        records = [
            Record.from_json(json.loads(line))
            for line in (folder / "faults.jsonl").read_text().splitlines()
        ]
        broken = [Finding(check, INVALID, sentence) for check, sentence in told["broken"]]
        fields = told["result"]
        if fields is None:
            return Outcome(None, told["slowness"], broken)
        harmed = [(time, frozenset(names)) for time, names in fields["harmed"]]
        known = {name: fields[name] for name in _TOLD}
        result = Result(records=records, harmed=harmed, answered_at=list(answered_at), **known)
        return Outcome(result, told["slowness"], broken)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not tell what came of the run: {error!r}") from None


def judge_folder(folder: Path, model: str = "", *, limit_s: float) -> Verdict:
    """The verdict on all that lies there; raises OSError, or ValueError if it is no run's folder.

    Args:
        model: by which the history is judged; else what run.json names.
        limit_s: what the search for an order may take.
    """
    try:
        run = json.loads((folder / "run.json").read_text())
        nodes, packages, model = run["nodes"], run["faults"], model or run["model"]
    except (KeyError, TypeError, FileNotFoundError) as error:
        raise ValueError(f"{folder} is not the folder of a run: {error!r} of run.json") from None
    events = list(read_events(folder / "history.jsonl"))
    answered_at = [float(event["time"]) for event in events if event["type"] == OK]
    history = operations(iter(events))
    beside = _beside(folder, answered_at, nodes, packages)
    logs = read_node_events(folder / "events")
    return judge_run(history, model, logs, beside, limit_s=limit_s)


def _beside(
    folder: Path, answered_at: Sequence[float], nodes: Sequence[str], packages: Sequence[str]
) -> list[Finding]:
    """What is to be said of the campaign, whatever clients were told."""
    if not (folder / "outcome.json").exists():
        why = "there is no outcome.json: nobody knows what came of its faults"
        return [Finding("the campaign came to its end", UNSURE, why)]
    outcome = read_outcome(folder, answered_at)
    if outcome.result is None:
        return list(outcome.broken)
    return [
        *outcome.broken,
        *judge_result(outcome.result, nodes, outcome.slowness),
        *judge_effects(outcome.result.records, packages),
    ]


def conclude(folder: Path, verdict: Verdict) -> Path:
    """What is to be said of it: verdict.json and the page, whose path is returned."""
    (folder / "verdict.json").write_text(json.dumps(verdict.to_json(), indent=2))
    return write_report(folder)
