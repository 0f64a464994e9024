"""The sequential runner: one process, one task after the other. `--local`, and the tests' oracle.

For a debugger it is the right place: the user's code runs in this process. So it cannot survive
code that kills its process; code that raises it treats by the job's policy, as the cluster does.
The same task functions run as on a cluster, over the same splits, so the output is the same, byte
for byte; what differs is everything that could go wrong there.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mapreduce.attempt import part_name, run_attempt
from mapreduce.errors import JobFailed
from mapreduce.folder import furnished
from mapreduce.job import Job
from mapreduce.messages import MAP, REDUCE, Failure, JobSpec, Mission, Result, Start
from mapreduce.output import Output
from mapreduce.policy import judge
from mapreduce.programs import Program, load


@dataclass(slots=True)
class Outcome:
    """What a job has come to. skipped: [kind, task, record, excerpt] each."""

    job_id: str
    output: str
    counters: dict[str, dict[str, int]] = field(default_factory=dict)
    skipped: list[list[Any]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    tasks: dict[str, int] = field(default_factory=dict)

    def report(self) -> dict[str, Any]:
        """What stands in `_report.json` beside the output."""
        return {
            "job": self.job_id,
            "counters": self.counters,
            "skipped": [
                {"task": f"{kind} {index}", "record": record, "excerpt": text}
                for kind, index, record, text in self.skipped
            ],
            "failures": self.failures,
            "tasks": self.tasks,
            "seconds": round(self.seconds, 3),
        }


def add_counters(total: dict[str, dict[str, int]], more: dict[str, dict[str, int]]) -> None:
    """Add the counters of one task to those of its job."""
    for group, counters in more.items():
        into = total.setdefault(group, {})
        for name, amount in counters.items():
            into[name] = into.get(name, 0) + amount


def run_local(
    spec: JobSpec, progress: Callable[[str, int], None] = lambda kind, n: None
) -> Outcome:
    """Run a planned job here; raises BadJob, JobFailed."""
    job = spec.job
    output = Output(job.output)
    outcome = Outcome("local", job.output)
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="ring-mr-") as name:
            folder = Path(name)
            program = loaded(job, folder)
            maps: list[Result] = []
            for index in range(len(spec.splits)):
                maps.append(_finish(spec, program, folder, MAP, index, (), outcome))
                progress(MAP, index + 1)
                if not job.reduces:
                    output.commit(maps[-1].path, part_name(index))
            for index in range(job.reduces):
                runs = runs_of(maps, index)
                result = _finish(spec, program, folder, REDUCE, index, runs, outcome)
                output.commit(result.path, part_name(index))
                progress(REDUCE, index + 1)
    except BaseException:
        output.abandon()
        raise
    outcome.seconds = time.monotonic() - began
    outcome.tasks = {MAP: len(spec.splits), REDUCE: job.reduces}
    output.finish(outcome.report())
    return outcome


def loaded(job: Job, folder: Path) -> Program:
    """The program of a job, loaded where its files are; raises BadJob."""
    start = Start("load", "local", MAP, 0)
    with furnished(Mission(start, job, [], str(folder / "load"), "")):
        return load(job)


def runs_of(maps: Sequence[Result], part: int) -> list[list[Any]]:
    """The runs of one part, in the order of the maps."""
    return [[m.path, *run, m.index] for m in maps for run in m.runs[part]]


def _finish(
    spec: JobSpec,
    program: Program,
    folder: Path,
    kind: str,
    index: int,
    runs: Sequence[list[Any]],
    outcome: Outcome,
) -> Result:
    """One task; what it has come to is added to the outcome."""

    def mission(start: Start) -> Mission:
        is_part = kind == REDUCE or not spec.job.reduces
        attempt = start.attempt
        out = Output(spec.job.output).temporary(attempt) if is_part else str(folder / attempt)
        home = str(folder / f"{attempt}-folder")
        return Mission(start, spec.job, spec.cuts, home, out, list(runs))

    split = spec.splits[index] if kind == MAP else None
    first = Start("local", "local", kind, index, split)
    result, failures = run_task(first, mission, program)
    add_counters(outcome.counters, result.counters)
    outcome.skipped += [[kind, index, *entry] for entry in result.skipped]
    outcome.failures += failures
    return result


def run_task(
    first: Start, mission: Callable[[Start], Mission], program: Program
) -> tuple[Result, list[dict[str, Any]]]:
    """Try in this process until the policy says that it is no use; the result, and what failed.

    first: what the first attempt is told; the later ones bear a number behind its name, and what to
    skip. Raises JobFailed.
    """
    failures: list[Failure] = []
    while True:
        skip: list[int] = []
        careful = False
        if failures:
            verdict = judge(program.job, failures)
            if verdict.fail:
                described = [failure_as_json(failure) for failure in failures]
                raise JobFailed(f"{first.kind} {first.index} failed: {verdict.fail}", described)
            skip, careful = sorted(verdict.skip), verdict.careful
        attempt = f"{first.attempt}-{first.kind}-{first.index}-{len(failures)}"
        told = mission(replace(first, attempt=attempt, skip=skip, careful=careful))
        with furnished(told):
            result = run_attempt(told, program)
        if result.failure is None:
            return result, [failure_as_json(failure) for failure in failures]
        failures.append(result.failure)


def failure_as_json(failure: Failure) -> dict[str, Any]:
    """For a report."""
    return {
        "attempt": failure.attempt,
        "worker": failure.worker,
        "kind": failure.kind,
        "message": failure.message,
        "record": failure.record,
        "excerpt": failure.excerpt,
        "traceback": failure.traceback,
        "last_lines": failure.last_lines,
    }
