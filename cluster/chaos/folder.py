"""The folder that a run leaves: all that its verdict rests on.

    .ring/runs/2026-11-23T19-06-40-register-seed42/
        run.json        what was run, and the command that runs it again
        plan.jsonl      the fault plan               faults.jsonl   what came of it
        history.jsonl   what clients asked and were told
        events/n1.jsonl the nodes' own logs          home/   the cluster, if it was a fresh one
        verdict.json    report.html                  the same for machines and for people

`latest` beside it points to the newest.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cluster.chaos.campaign import Result
from cluster.chaos.plan import Plan, write_plan
from cluster.report.page import write_report
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


def conclude(folder: Path, result: Result | None, verdict: Verdict) -> Path:
    """What came of it: faults.jsonl, verdict.json and the page, whose path is returned."""
    records = result.records if result is not None else []
    lines = [json.dumps(record.to_json()) + "\n" for record in records]
    (folder / "faults.jsonl").write_text("".join(lines))
    (folder / "verdict.json").write_text(json.dumps(verdict.to_json(), indent=2))
    return write_report(folder)
