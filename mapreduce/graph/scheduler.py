"""The scheduler of a graph: events in, instructions out, no I/O (as Dask's worker is written).

    scheduler.add({name: inputs, …}, wanted)      scheduler.finished(task, worker, size)
    scheduler.joined(worker, slots)               scheduler.left(worker)
    for instruction in scheduler.take(): …        Run, Release, Ready, Failed (states.py)

What is needed decides everything: a value is needed if it is wanted, or if a task that is needed
and not done has it as input. Only what is needed runs, and only what is needed stays in memory.
When a worker is lost, the values that it alone had are nowhere. Those that are needed are computed
again; for that their own inputs are needed again; where one of these is still in some memory, the
walk back ends. So exactly the tasks between what was lost and its first living ancestors run again
(lineage recovery; CIEL §4.3, RDDs §5.4), whatever is lost meanwhile.

`story(task)` tells how a task came to where it is; every illegal step tells it too.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from mapreduce.graph.errors import InvalidTransition, UnknownTask
from mapreduce.graph.graphs import in_order
from mapreduce.graph.states import (
    ALLOWED,
    ERRED,
    MEMORY,
    READY,
    RELEASED,
    RUNNING,
    STATES,
    WAITING,
    Failed,
    Instruction,
    Ready,
    Release,
    Run,
    TaskState,
    WorkerState,
)

# Steps that are remembered for `story`.
STORY_MAX: Final = 200_000

# A task whose process has died so often is not tried again: it is the task.
DEATHS_MAX: Final = 3

# An input of this size is worth a place in another's queue to be near.
NEAR_BYTES: Final = 64 * 1024


class Scheduler:
    """All tasks of one session, and who computes them.

    validate: check everything after each event; for tests.
    """

    def __init__(self, *, validate: bool = False) -> None:
        self.tasks: dict[str, TaskState] = {}
        self.workers: dict[str, WorkerState] = {}
        self.recomputed: list[str] = []  # finished once, and run again; in the order of finishing
        self._validate = validate
        self._ready: list[tuple[int, str]] = []
        self._instructions: list[Instruction] = []
        self._steps: deque[tuple[int, str, str, str, str]] = deque(maxlen=STORY_MAX)
        self._event = 0

    def __repr__(self) -> str:
        counts = ", ".join(f"{n} {state}" for state, n in self.counts().items() if n)
        return f"<Scheduler workers={len(self.workers)} tasks: {counts or 'none'}>"

    def counts(self) -> dict[str, int]:
        """How many tasks are in each state."""
        found = dict.fromkeys(STATES, 0)
        for task in self.tasks.values():
            found[task.state] += 1
        return found

    def story(self, name: str) -> list[str]:
        """Each step of a task: "event 7: waiting → ready (last input)"."""
        return [
            f"event {event}: {before} → {after} ({cause})"
            for event, task, before, after, cause in self._steps
            if task == name
        ]

    def take(self) -> list[Instruction]:
        """What is to be done since the last call, in this order."""
        taken, self._instructions = self._instructions, []
        return taken

    # -- events

    def add(self, graph: Mapping[str, Sequence[str]], wanted: Iterable[str]) -> None:
        """More tasks, and which values are wanted; tasks that are known already are not new.

        Raises UnknownTask.
        """
        self._begin()
        first = len(self.tasks)
        for i, name in enumerate(in_order(graph)):
            if name not in self.tasks:
                self.tasks[name] = TaskState(name, tuple(graph[name]), first + i)
                for needed in graph[name]:
                    self.tasks[needed].needed_by.append(name)
        for name in wanted:
            if name not in self.tasks:
                raise UnknownTask(f"there is no task {name!r}")
            task = self.tasks[name]
            task.wanted = True
            if task.state == MEMORY:
                self._instructions.append(Ready(name, tuple(sorted(task.holders))))
            elif task.state == ERRED:
                self._tell_failed(task)
            else:
                self._need(name, "wanted")
        self._end()

    def unwant(self, name: str) -> None:
        """The caller has the value, or does not want it any more."""
        self._begin()
        task = self.tasks[name]
        task.wanted = False
        self._drop_if_unneeded(task, "no longer wanted")
        self._end()

    def joined(self, worker: str, slots: int) -> None:
        """A worker without values; one of the same name is gone."""
        if worker in self.workers:
            self.left(worker)
        self._begin()
        self.workers[worker] = WorkerState(worker, slots)
        self._end()

    def resize(self, worker: str, slots: int) -> None:
        """It is given more tasks at a time, or fewer."""
        if worker in self.workers and self.workers[worker].slots != slots:
            self._begin()
            self.workers[worker].slots = slots
            self._end()

    def left(self, worker: str) -> None:
        """A worker is gone, with all it had."""
        gone = self.workers.pop(worker, None)
        if gone is None:
            return
        self._begin()
        cause = f"{worker} is gone"
        held = [self.tasks[name] for name in sorted(gone.holds)]
        for task in held:
            task.holders.discard(worker)
        for name in sorted(gone.running):
            self.tasks[name].runs_on = None
            self._wait(self.tasks[name], cause)
        for task in held:
            if task.state == MEMORY and not task.holders:
                self._lost(task, cause)
        self._end()

    def finished(self, name: str, worker: str, size: int) -> None:
        """A worker has the value of a task now."""
        task = self.tasks.get(name)
        if task is None or worker not in self.workers:
            return  # of a life that is over
        self._begin()
        self.workers[worker].running.discard(name)
        if task.state == RUNNING and task.runs_on == worker:
            task.runs += 1
            if task.runs > 1:
                self.recomputed.append(name)
            self._to_memory(task, worker, size)
        elif task.state == MEMORY:
            self._hold(task, worker)
        else:
            self._instructions.append(Release(worker, name))
        self._end()

    def copied(self, name: str, worker: str) -> None:
        """A worker has fetched a value that it needed, and keeps it."""
        task = self.tasks.get(name)
        if task is None or worker not in self.workers:
            return
        self._begin()
        if task.state == MEMORY:
            self._hold(task, worker)
        else:
            self._instructions.append(Release(worker, name))
        self._end()

    def failed(self, name: str, worker: str, error: str, *, killed: bool = False) -> None:
        """The function raised. Killed: its process died; that may have been somebody else."""
        task = self.tasks.get(name)
        if task is None or task.runs_on != worker:
            return
        self._begin()
        self.workers[worker].running.discard(name)
        task.runs_on = None
        if killed:
            task.deaths += 1
            if task.deaths < DEATHS_MAX:
                self._wait(task, f"its process died: {error}")
                self._end()
                return
        self._fail(task, name, error, killed)
        self._end()

    def missing(self, name: str, worker: str, needed: str, holders: Iterable[str]) -> None:
        """A worker cannot run a task: nobody of those it asked has an input."""
        task = self.tasks.get(name)
        if task is None or task.runs_on != worker:
            return
        self._begin()
        value = self.tasks[needed]
        self._not_there(value, holders)
        self.workers[worker].running.discard(name)
        task.runs_on = None
        self._wait(task, f"{worker} could not get {needed}")
        if value.state == MEMORY and not value.holders:
            self._lost(value, f"{', '.join(sorted(holders))} did not have it")
        self._end()

    def unreachable(self, name: str, holders: Iterable[str]) -> None:
        """The caller could not get a value that it wants from those who should have it."""
        self._begin()
        task = self.tasks[name]
        self._not_there(task, holders)
        if task.state == MEMORY and not task.holders:
            self._lost(task, "nobody who should have it gave it")
        elif task.state == MEMORY and task.wanted:
            self._instructions.append(Ready(name, tuple(sorted(task.holders))))
        self._end()

    def _not_there(self, task: TaskState, holders: Iterable[str]) -> None:
        for holder in holders:
            if holder in task.holders:
                task.holders.discard(holder)
                self.workers[holder].holds.discard(task.name)
                self._instructions.append(Release(holder, task.name))

    # -- what follows from them

    def _need(self, name: str, cause: str) -> None:
        """A value is needed: so are those of its inputs that are nowhere, and so on back."""
        stack = [(name, cause)]
        while stack:
            current, why = stack.pop()
            task = self.tasks[current]
            if task.state != RELEASED:
                continue
            self._move(task, WAITING, why)
            for needed in task.inputs:
                self.tasks[needed].pending.add(current)
            failed = [n for n in task.inputs if self.tasks[n].state == ERRED]
            if failed:
                self._fail(task, failed[0], self.tasks[failed[0]].error, killed=False)
                continue
            task.waiting_for = {n for n in task.inputs if self.tasks[n].state != MEMORY}
            stack += [(needed, f"{current} needs it") for needed in sorted(task.waiting_for)]
            if not task.waiting_for:
                self._make_ready(task)

    def _make_ready(self, task: TaskState) -> None:
        self._move(task, READY, "all inputs are there")
        heapq.heappush(self._ready, (task.priority, task.name))

    def _wait(self, task: TaskState, cause: str) -> None:
        """A task that was running is to be begun anew, if anybody still needs it."""
        failed = [n for n in task.inputs if self.tasks[n].state == ERRED]
        if failed:
            self._fail(task, failed[0], self.tasks[failed[0]].error, killed=False)
            return
        if not task.wanted and not task.pending:
            self._move(task, RELEASED, cause)
            self._done_with_inputs(task)
            return
        self._move(task, WAITING, cause)
        task.waiting_for = {n for n in task.inputs if self.tasks[n].state != MEMORY}
        if not task.waiting_for:
            self._make_ready(task)
        for needed in sorted(task.waiting_for):
            self._need(needed, f"{task.name} needs it")

    def _to_memory(self, task: TaskState, worker: str, size: int) -> None:
        task.runs_on = None
        task.size = size
        self._move(task, MEMORY, f"{worker} finished it")
        self._hold(task, worker)
        for dependent in sorted(task.pending):
            other = self.tasks[dependent]
            other.waiting_for.discard(task.name)
            if other.state == WAITING and not other.waiting_for:
                self._make_ready(other)
        self._done_with_inputs(task)
        if task.wanted:
            self._instructions.append(Ready(task.name, tuple(sorted(task.holders))))
        self._drop_if_unneeded(task, "nobody needs it any more")

    def _hold(self, task: TaskState, worker: str) -> None:
        task.holders.add(worker)
        self.workers[worker].holds.add(task.name)

    def _done_with_inputs(self, task: TaskState) -> None:
        for needed in task.inputs:
            source = self.tasks[needed]
            source.pending.discard(task.name)
            self._drop_if_unneeded(source, f"{task.name} has used it")

    def _drop_if_unneeded(self, task: TaskState, cause: str) -> None:
        """Forget what nobody needs, and what was only needed for it."""
        stack = [(task, cause)]
        while stack:
            current, why = stack.pop()
            if current.wanted or current.pending or current.state in (RELEASED, ERRED):
                continue
            if current.state == MEMORY:
                for holder in sorted(current.holders):
                    self._instructions.append(Release(holder, current.name))
                    self.workers[holder].holds.discard(current.name)
                current.holders.clear()
                self._move(current, RELEASED, why)
                continue
            # Not begun, or begun for nobody: what it would have needed may not be needed either.
            if current.runs_on is not None:
                continue  # let it finish; its value is dropped then
            current.waiting_for.clear()
            self._move(current, RELEASED, why)
            for needed in current.inputs:
                source = self.tasks[needed]
                source.pending.discard(current.name)
                stack.append((source, f"{current.name} does not need it any more"))

    def _lost(self, task: TaskState, cause: str) -> None:
        """A value is nowhere. Those who were about to use it wait again."""
        self._move(task, RELEASED, cause)
        for dependent in sorted(task.pending):
            other = self.tasks[dependent]
            if other.state == READY:
                self._move(other, WAITING, f"{task.name} was lost")
            if other.state == WAITING:
                other.waiting_for.add(task.name)
        needed = any(self.tasks[name].state == WAITING for name in task.pending)
        if task.wanted or needed:
            self._need(task.name, "it was lost, and is needed")

    def _fail(self, task: TaskState, because: str, error: str, killed: bool) -> None:
        """It and all that needs it will never be."""
        stack = [task]
        while stack:
            current = stack.pop()
            if current.state == ERRED:
                continue
            if current.runs_on is not None:
                continue  # cannot be: an input that failed was never in memory
            current.waiting_for.clear()
            current.error = error
            self._move(current, ERRED, f"{because} failed")
            if current.wanted:
                self._instructions.append(Failed(current.name, because, error, killed))
            stack += [self.tasks[name] for name in sorted(current.pending)]
            self._done_with_inputs(current)

    def _tell_failed(self, task: TaskState) -> None:
        self._instructions.append(Failed(task.name, task.name, task.error, killed=False))

    def _move(self, task: TaskState, state: str, cause: str) -> None:
        self._steps.append((self._event, task.name, task.state, state, cause))
        if (task.state, state) not in ALLOWED:
            told = "\n  ".join(self.story(task.name))
            raise InvalidTransition(f"{task.name}: {task.state} → {state}\n  {told}")
        task.state = state

    # -- who runs what

    def _begin(self) -> None:
        self._event += 1

    def _end(self) -> None:
        self._assign()
        if self._validate:
            self.check()

    def _assign(self) -> None:
        """Give ready tasks away while there is room, the first in depth-first order first."""
        room = sum(worker.slots - len(worker.running) for worker in self.workers.values())
        while self._ready and room > 0:
            _, name = heapq.heappop(self._ready)
            task = self.tasks[name]
            if task.state != READY:
                continue  # it was ready once; it is in the heap again when it is again
            worker = self._nearest(task)
            if worker is None:
                heapq.heappush(self._ready, (task.priority, name))
                return
            self._move(task, RUNNING, f"given to {worker.name}")
            task.runs_on = worker.name
            worker.running.add(name)
            room -= 1
            holders = tuple(
                (needed, tuple(sorted(self.tasks[needed].holders))) for needed in task.inputs
            )
            self._instructions.append(Run(worker.name, name, holders))

    def _nearest(self, task: TaskState) -> WorkerState | None:
        """The worker with room that has most of the inputs, or has least to do."""
        able = [worker for worker in self.workers.values() if worker.has_room]
        if not able:
            return None
        if not task.inputs or len(able) == 1:
            return min(able, key=lambda worker: (len(worker.running), worker.name))
        near: dict[str, int] = {}
        for needed in task.inputs:
            source = self.tasks[needed]
            for holder in source.holders:
                near[holder] = near.get(holder, 0) + source.size + NEAR_BYTES
        return max(
            able,
            key=lambda w: (near.get(w.name, 0) - NEAR_BYTES * len(w.running), w.name),
        )

    # -- the table in states.py, and more

    def check(self) -> None:
        """Everything fits together; raises AssertionError with the story of what does not."""
        for task in self.tasks.values():
            try:
                self._check_task(task)
            except AssertionError as error:
                told = "\n  ".join(self.story(task.name))
                raise AssertionError(f"{task!r}: {error}\n  {told}") from None
        for worker in self.workers.values():
            for name in worker.running:
                assert self.tasks[name].runs_on == worker.name, f"{worker.name} runs {name}"
            for name in worker.holds:
                assert worker.name in self.tasks[name].holders, f"{worker.name} holds {name}"

    def _check_task(self, task: TaskState) -> None:
        state = task.state
        assert bool(task.holders) == (state == MEMORY), f"held by {task.holders}"
        assert (task.runs_on is not None) == (state == RUNNING), f"runs on {task.runs_on}"
        assert bool(task.waiting_for) == (state == WAITING), f"waits for {task.waiting_for}"
        for holder in task.holders:
            assert task.name in self.workers[holder].holds, f"{holder} does not know"
        for needed in task.waiting_for:
            assert self.tasks[needed].state != MEMORY, f"waits for {needed}, which is there"
            assert self.tasks[needed].state not in (RELEASED, ERRED), f"nobody computes {needed}"
        if state == READY:
            assert all(self.tasks[n].state == MEMORY for n in task.inputs), "an input is not there"
            assert (task.priority, task.name) in self._ready, "nobody will begin it"
        live = {WAITING, READY, RUNNING}
        expected = {name for name in task.needed_by if self.tasks[name].state in live}
        assert task.pending == expected, f"pending {task.pending}, not {expected}"
        if state in (WAITING, READY, MEMORY):
            assert task.wanted or task.pending, "nobody needs it"
