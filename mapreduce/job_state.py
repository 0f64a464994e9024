"""What the master knows of one job: its tasks, their attempts, and where map outputs lie.

PENDING ──offer──▶ RUNNING ──first result──▶ DONE ──(output renamed)──▶ COMMITTED
   ▲                  │ │                      │
   └──failed, lost────┘ └─(second copy)        └──(a map's worker is gone)──▶ PENDING
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mapreduce import late
from mapreduce.local import Outcome, add_counters, failure_as_json
from mapreduce.messages import MAP, REDUCE, Failure, JobSpec, Progress, Result, Source
from mapreduce.policy import Verdict
from netstack.rpc.schema import decode

PENDING, RUNNING, DONE, COMMITTED = "pending", "running", "done", "committed"
# Of a job.
ACTIVE, FINISHING, FINISHED, FAILED, CANCELLED = (
    "running", "finishing", "finished", "failed", "cancelled",
)  # fmt: skip
ENDED: Final = frozenset((FINISHED, FAILED, CANCELLED))

# Failures that a report lists.
FAILURES_MAX: Final = 100


@dataclass(slots=True)
class Attempt:
    """One attempt, while the master counts on it."""

    id: str
    job_id: str
    task: TaskState
    worker: str
    offered_at: float
    phase: str = "queued"
    fraction: float = 0.0
    record: int = 0
    status: str = ""
    ran_at: float | None = None
    sources: int = 0

    def heard(self, progress: Progress, now: float) -> None:
        """Its worker says how far it is."""
        if progress.phase == "running" and self.ran_at is None:
            self.ran_at = now
        self.phase, self.fraction = progress.phase, progress.fraction
        self.record, self.status = progress.record, progress.status
        self.sources = progress.sources


@dataclass(slots=True)
class TaskState:
    """One task. `result`: the winner's; no other attempt counts from then on."""

    kind: str
    index: int
    state: str = PENDING
    attempts: dict[str, Attempt] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    failed_on: set[str] = field(default_factory=set)
    verdict: Verdict = field(default_factory=Verdict)
    result: Result | None = None
    lost: Result | None = None  # of a winner whose output is gone; its counters still hold
    worker: str = ""  # the winner's, and which life of it
    incarnation: str = ""
    complaints: dict[str, set[str]] = field(default_factory=dict)  # of the winner, by reduce

    def __repr__(self) -> str:
        return f"<TaskState {self.kind} {self.index} {self.state} attempts={len(self.attempts)}>"

    @property
    def done(self) -> bool:
        """Whether there is a winner."""
        return self.state in (DONE, COMMITTED)

    def restore(self, record: Mapping[str, Any]) -> None:
        """What is durable of it, read back."""
        if "lost" in record:
            self.lost = decode(Result, record["lost"])
            return
        self.result = decode(Result, record["result"])
        self.worker, self.incarnation = record["worker"], record["incarnation"]
        self.state = DONE


def number_of(attempt: str) -> tuple[int, int]:
    """(epoch, number) of an attempt; the later one is larger."""
    *_, epoch, number = attempt.split(".")
    return int(epoch), int(number)


class JobState:
    """One job."""

    def __init__(self, id: str, spec: JobSpec, now: float, epoch: int) -> None:
        self.id = id
        self.spec = spec
        self.state = ACTIVE
        self.began = now
        self.ended_at: float | None = None
        self.error = ""
        self.maps = [TaskState(MAP, i) for i in range(len(spec.splits))]
        self.reduces = [TaskState(REDUCE, i) for i in range(spec.job.reduces)]
        self.sources: list[Source] = []
        self.failures: list[dict[str, Any]] = []
        self.durations: dict[str, dict[str, list[float]]] = {MAP: {}, REDUCE: {}}
        self.runs = {MAP: 0, REDUCE: 0}  # attempts that were begun
        self.counts = {"backups": 0, "backups_won": 0, "lost": 0}
        self.next_attempt = 0
        self._epoch = epoch
        # Which attempts are in `runs`: of each life of the master those up to a number, and some.
        self._tallied: dict[int, int] = {}
        self._met: set[str] = set()
        # Workers remember versions across lives of the master: those of a later life are larger.
        self._version = epoch << 32

    def __repr__(self) -> str:
        return (
            f"<JobState {self.id} {self.state} maps={len(self.maps)} reduces={len(self.reduces)}>"
        )

    def task(self, kind: str, index: int) -> TaskState | None:
        """The task; None if the job has no such."""
        tasks = self.maps if kind == MAP else self.reduces
        return tasks[index] if 0 <= index < len(tasks) else None

    def tasks(self) -> Iterator[TaskState]:
        """All of them."""
        yield from self.maps
        yield from self.reduces

    @property
    def parts(self) -> list[TaskState]:
        """The tasks whose output is the job's."""
        return self.reduces if self.spec.job.reduces else self.maps

    @property
    def maps_needed(self) -> bool:
        """Whether some reduce still has to read what maps have made."""
        return bool(self.spec.job.reduces) and not all(task.done for task in self.reduces)

    def add_source(self, task: TaskState) -> None:
        """A finished map's output may be fetched."""
        assert task.result is not None
        self._version += 1
        result = task.result
        # Of what is said of one map, only the last is true.
        self.sources = [s for s in self.sources if s.index != task.index]
        self.sources.append(
            Source(self._version, task.index, result.attempt, task.worker, result.path, result.runs)
        )

    def failed(self, failure: Failure) -> None:
        """Remember it for the report."""
        if len(self.failures) < FAILURES_MAX:
            self.failures.append(failure_as_json(failure))

    def running(self, tasks: list[TaskState], now: float) -> list[late.Running]:
        """The attempts that run, as late.choose wants to know of them."""
        return [
            late.Running(a.id, a.worker, a.fraction, now - a.ran_at, len(task.attempts) > 1)
            for task in tasks
            if task.state == RUNNING
            for a in task.attempts.values()
            if a.ran_at is not None
        ]

    def locality(self) -> dict[str, int]:
        """Maps that were done where their split lies, and elsewhere; of what lies somewhere."""
        found = {"local": 0, "remote": 0}
        for task, split in zip(self.maps, self.spec.splits, strict=True):
            if task.done and split.hosts:
                found["local" if task.worker in split.hosts else "remote"] += 1
        return found

    def record_keys(self) -> list[str]:
        """Of everything that is durable of it."""
        done = [f"job/{self.id}/{t.kind}/{t.index}" for t in self.tasks() if t.result or t.lost]
        own = [f"job/{self.id}", f"job/{self.id}/end", f"job/{self.id}/tally"]
        return [*done, *own, f"token/{self.id}"]

    def tally(self) -> dict[str, Any]:
        """The record of what was counted so far; written with that of each task that ends."""
        tally = {
            "runs": dict(self.runs),
            "counts": dict(self.counts),
            "last": {**self._tallied, self._epoch: self.next_attempt},
            "met": sorted(self._met),
        }
        return {f"job/{self.id}/tally": tally}

    def meet(self, kind: str, attempt: str) -> bool:
        """Whether an attempt that is heard of was begun by an earlier life, too late for its last
        tally: it is counted now. What nobody hears of again stays uncounted."""
        epoch, number = number_of(attempt)
        if epoch == self._epoch or number <= self._tallied.get(epoch, 0) or attempt in self._met:
            return False
        self._met.add(attempt)
        self.runs[kind] += 1
        return True

    def restore(self, records: Mapping[str, Any], now: float) -> None:
        """What earlier lives made durable; by what stands in the key behind `job/ID/`."""
        for key, record in sorted(records.items()):
            kind, _, index = key.partition("/")
            if kind == "end":
                self.restore_end(record, now)
            elif kind == "tally":
                self._restore_counts(record)
                self._tallied, self._met = dict(record["last"]), set(record["met"])
            elif (task := self.task(kind, int(index))) is not None:
                task.restore(record)
                # It goes on where it was; how long nobody was there, nobody knows.
                self.began = min(self.began, now - record.get("after", 0.0))

    def _restore_counts(self, record: Mapping[str, Any]) -> None:
        self.counts.update(record["counts"])
        self.runs.update(record["runs"])

    def end_record(self, now: float) -> dict[str, Any]:
        """What is durable of a job that is over, beside its tasks."""
        return {
            "state": self.state,
            "error": self.error,
            "failures": self.failures,
            "seconds": now - self.began,
            "counts": dict(self.counts),
            "runs": dict(self.runs),
        }

    def restore_end(self, record: dict[str, Any], now: float) -> None:
        """The same, read back."""
        self.state, self.error = record["state"], record["error"]
        self.failures, self.ended_at = record["failures"], now
        self.began = now - record["seconds"]
        self._restore_counts(record)

    def outcome(self, now: float) -> Outcome:
        """What has come of it: counters and skipped records of the winners alone."""
        outcome = Outcome(self.id, self.spec.job.output, failures=self.failures)
        for task in self.tasks():
            # Of a map that was lost when its output was not needed any more, the first result:
            # a second one would say the same.
            if (result := task.result or task.lost) is not None:
                add_counters(outcome.counters, result.counters)
                outcome.skipped += [[task.kind, task.index, *e] for e in result.skipped]
        outcome.seconds = now - self.began
        outcome.tasks = {
            MAP: len(self.maps),
            REDUCE: len(self.reduces),
            "map_attempts": self.runs[MAP],
            "reduce_attempts": self.runs[REDUCE],
            **self.counts,
            **self.locality(),
        }
        return outcome

    def check(self) -> None:
        """Raises AssertionError when something is not as it must be."""
        sources = {source.index: source for source in self.sources}
        for task in self.tasks():
            where = f"{self.id} {task!r}"
            assert task.done == (task.result is not None), f"{where}: result"
            assert task.state != RUNNING or task.attempts, f"{where}: runs without attempts"
            assert not (task.done and task.attempts), f"{where}: done, and still counted on"
            if task.kind == MAP and self.spec.job.reduces and self.state == ACTIVE:
                assert task.done == (task.index in sources), f"{where}: source"
                if task.result is not None:
                    assert sources[task.index].attempt == task.result.attempt, where
        versions = [source.version for source in self.sources]
        assert versions == sorted(set(versions)), f"{self.id}: versions {versions}"
        if self.state == FINISHED:
            assert all(task.done for task in self.parts), f"{self.id}: finished too early"

    def progress(self, now: float) -> dict[str, Any]:
        """How it goes, for whoever watches."""

        def part(tasks: list[TaskState]) -> dict[str, Any]:
            running = [a for task in tasks for a in task.attempts.values() if not task.done]
            done = sum(task.done for task in tasks)
            best = {a.task.index: 0.0 for a in running}
            for a in running:
                best[a.task.index] = max(best[a.task.index], a.fraction)
            share = (done + sum(best.values())) / len(tasks) if tasks else 1.0
            return {"all": len(tasks), "done": done, "running": len(best), "share": share}

        shuffling = [
            a.sources for task in self.reduces for a in task.attempts.values() if not task.done
        ]
        size = sum(split.length for split in self.spec.splits if split.length > 0)
        seconds = (self.ended_at or now) - self.began
        maps = part(self.maps)
        return {
            "id": self.id,
            "name": self.spec.job.title,
            "state": self.state,
            "output": self.spec.job.output,
            "seconds": round(seconds, 3),
            "maps": maps,
            "reduces": part(self.reduces),
            "shuffling": len(shuffling),
            "bytes": size,
            "mb_s": round(size * maps["share"] / 1e6 / seconds, 2) if seconds > 0 else 0.0,
            "failures": len(self.failures),
            "error": self.error,
            **self.counts,
            **self.locality(),
        }
