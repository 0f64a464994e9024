"""Who gets which task: whoever has room, and of the tasks one whose data lies there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mapreduce.job_state import PENDING, Attempt, JobState, TaskState
from mapreduce.messages import MAP, REDUCE

# Nobody gives maps to a worker whose output could not be fetched, or whose disk is full: it would
# fail one after the other in no time.
AVOID_S: Final = 10.0


@dataclass(slots=True)
class WorkerState:
    """One worker, as its last beat shows it. slots: child processes that run tasks."""

    name: str
    incarnation: str
    slots: int
    heard_at: float
    alive: bool = True
    avoided_until: float = 0.0
    knows_jobs: set[str] = field(default_factory=set)
    attempts: dict[str, Attempt] = field(default_factory=dict)
    orders: dict[str, Any] = field(default_factory=dict)  # what the next Orders will say

    def __repr__(self) -> str:
        state = "alive" if self.alive else "lost"
        return f"<WorkerState {self.name} {state} attempts={len(self.attempts)}/{self.slots}>"

    def load(self, kind: str) -> int:
        """Of maps: attempts that hold a child process. Of reduces: all, also those that fetch.

        So reduces that wait for a map can never keep that map from running.
        """
        if kind == REDUCE:
            return sum(a.task.kind == REDUCE for a in self.attempts.values())
        return sum(a.task.kind == MAP or a.phase == "running" for a in self.attempts.values())

    def room_for(self, kind: str) -> bool:
        """Whether one more attempt may be given to it."""
        return self.alive and self.load(kind) < self.slots


def by_room(workers: Iterable[WorkerState]) -> list[WorkerState]:
    """Those that are alive, the idlest first."""
    return sorted((w for w in workers if w.alive), key=lambda w: (w.load(MAP), w.name))


def next_map(
    job: JobState, worker: WorkerState, workers: Mapping[str, WorkerState], now: float
) -> TaskState | None:
    """A pending map for `worker`: one whose split lies there, else the first that is left.

    Not one that failed there while it has not failed everywhere, nor any while this worker is
    avoided (its output could not be fetched, or its disk is full) and others are not.
    """
    able = [w for w in workers.values() if w.alive and w.slots]
    if now < worker.avoided_until and any(now >= w.avoided_until for w in able):
        return None
    found: TaskState | None = None
    for task in job.maps:
        if task.state != PENDING:
            continue
        if worker.name in task.failed_on and any(w.name not in task.failed_on for w in able):
            continue
        if worker.name in job.spec.splits[task.index].hosts:
            return task
        found = found or task
    return found


def worker_for_reduce(task: TaskState, workers: Mapping[str, WorkerState]) -> WorkerState | None:
    """The idlest worker with room; not one where it failed while it has not failed everywhere."""
    able = [w for w in workers.values() if w.alive and w.slots]
    fresh = [w for w in able if w.name not in task.failed_on] or able
    free = [w for w in fresh if w.room_for(REDUCE)]
    return min(free, key=lambda w: (w.load(REDUCE), w.name), default=None)
