"""A worker, without I/O: what it runs, what it fetches, and what it has not yet been thanked for.

    map      QUEUED ─────────────────────────▶ RUNNING ──▶ result, told until acknowledged
    reduce   SHUFFLE ──(has all maps)──▶ QUEUED ──▶ RUNNING ──▶ the same

A reduce that still fetches holds no child process, so maps that must run again always find one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from mapreduce.attempt import TEMPORARY
from mapreduce.messages import (
    MAP,
    REDUCE,
    Beat,
    Complaint,
    JobSpec,
    Mission,
    Orders,
    Progress,
    Result,
    Source,
    Start,
)

SHUFFLE, QUEUED, RUNNING = "shuffle", "queued", "running"

# Segments that are fetched at a time: enough to keep the line busy while one waits for a disk.
FETCHES_MAX: Final = 4

# Pauses before a segment is asked for again: each try twice as late.
REFETCH_S_MIN, REFETCH_S_MAX = 0.1, 2.0


@dataclass(frozen=True, slots=True)
class Launch:
    """Run this in a child process; then call ended."""

    mission: Mission


@dataclass(frozen=True, slots=True)
class Kill:
    """End the child process that runs an attempt; `why` is the kind of its Failure."""

    attempt: str
    why: str


@dataclass(frozen=True, slots=True)
class Fetch:
    """Copy the runs of one part of a map's output into `path`; then call fetched or not_fetched."""

    attempt: str
    source: Source
    part: int
    path: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Delete all that belongs to a job."""

    job_id: str


Output = Launch | Kill | Fetch | Forget


@dataclass(slots=True)
class Held:
    """One attempt on this worker."""

    start: Start
    phase: str
    progress: tuple[int, ...] = (0, 0, 0)
    status: str = ""
    moved_at: float = 0.0
    # Of a reduce:
    version: int = 0
    sources: dict[int, Source] = field(default_factory=dict)
    have: dict[int, list[list[Any]]] = field(default_factory=dict)
    fetching: set[int] = field(default_factory=set)
    tries: dict[int, int] = field(default_factory=dict)
    again_at: dict[int, float] = field(default_factory=dict)
    local_bytes: int = 0
    remote_bytes: int = 0


class WorkerCore:
    """What one worker has to do.

    Args:
        scratch: folder for intermediate data; a folder a job in it.
        memory: the same for jobs with a direct shuffle, on a file system without a disk.
    """

    def __init__(
        self, name: str, incarnation: str, slots: int, scratch: str, memory: str = ""
    ) -> None:
        self.name = name
        self.incarnation = incarnation
        self.slots = slots
        self.scratch = scratch
        self.memory = memory or scratch
        self.jobs: dict[str, JobSpec] = {}
        self.held: dict[str, Held] = {}
        self.results: dict[str, Result] = {}
        self.done = 0
        self._outputs: list[Output] = []
        self._dying: set[str] = set()  # cancelled, but their process is not gone yet

    def __repr__(self) -> str:
        return f"<WorkerCore {self.name} held={len(self.held)} results={len(self.results)}>"

    # -- what comes in

    def receive(self, orders: Orders, now: float) -> None:
        """The master wants something."""
        self.jobs.update(orders.jobs)
        for attempt in orders.acknowledge:
            self.results.pop(attempt, None)
        for attempt in orders.cancel:
            self._cancel(attempt)
        for id in orders.forget:
            self._forget(id)
        for start in orders.start:
            if start.job_id in self.jobs and not self._knows(start.attempt):
                phase = QUEUED if start.kind == MAP else SHUFFLE
                self.held[start.attempt] = Held(start, phase, moved_at=now)
        for id, sources in orders.sources.items():
            for held in self.held.values():
                if held.start.job_id == id and held.phase == SHUFFLE:
                    self._learn(held, sources)
        self._go_on(now)

    def fetched(self, attempt: str, source: Source, runs: list[list[Any]], now: float) -> None:
        """A segment is here."""
        held = self.held.get(attempt)
        if held is None or held.phase != SHUFFLE:
            return
        held.fetching.discard(source.index)
        held.have[source.index] = runs
        held.tries.pop(source.index, None)
        held.remote_bytes += sum(run[2] for run in runs)
        held.moved_at = now
        self._go_on(now)

    def not_fetched(self, attempt: str, source: Source, now: float) -> None:
        """A segment could not be had: complain, and try again."""
        held = self.held.get(attempt)
        if held is None or held.phase != SHUFFLE:
            return
        held.fetching.discard(source.index)
        tries = held.tries[source.index] = held.tries.get(source.index, 0) + 1
        held.again_at[source.index] = now + min(REFETCH_S_MIN * 2**tries, REFETCH_S_MAX)
        self._go_on(now)

    def moved(self, attempt: str, progress: tuple[int, ...], status: str, now: float) -> None:
        """How far a child is; no change for the job's time, and it is taken to hang."""
        held = self.held.get(attempt)
        if held is None or held.phase != RUNNING:
            return
        if (progress, status) != (held.progress, held.status):
            held.progress, held.status, held.moved_at = progress, status, now
        elif now - held.moved_at > self.jobs[held.start.job_id].job.timeout_s:
            held.moved_at = now
            self._outputs.append(Kill(attempt, "hung"))

    def ended(self, result: Result, now: float) -> None:
        """A child process is done, one way or the other."""
        self._dying.discard(result.attempt)
        held = self.held.pop(result.attempt, None)
        if held is not None:
            self.results[result.attempt] = result
            self.done += 1
        self._go_on(now)

    def on_deadline(self, now: float) -> None:
        """Segments may be asked for again."""
        self._go_on(now)

    # -- what goes out

    def take_outputs(self) -> list[Output]:
        """What to do, in this order."""
        outputs, self._outputs = self._outputs, []
        return outputs

    def next_deadline(self) -> float | None:
        """When on_deadline wants to be called."""
        if self._room() <= 0:
            return None  # what is due waits for the end of a fetch
        times = [
            at
            for held in self.held.values()
            if held.phase == SHUFFLE
            for index, at in held.again_at.items()
            if index not in held.fetching and index not in held.have
        ]
        return min(times, default=None)

    def beat(self) -> Beat:
        """All that the master should know."""
        running = [self._progress(held) for held in self.held.values()]
        complaints = [
            Complaint(
                held.start.job_id,
                held.start.attempt,
                index,
                held.sources[index].attempt,
                held.sources[index].worker,
                tries,
            )
            for held in self.held.values()
            for index, tries in held.tries.items()
        ]
        return Beat(
            self.name,
            self.incarnation,
            self.slots,
            jobs=sorted(self.jobs),
            running=running,
            results=list(self.results.values()),
            complaints=complaints,
        )

    # -- inside

    def _knows(self, attempt: str) -> bool:
        return attempt in self.held or attempt in self.results or attempt in self._dying

    def _learn(self, held: Held, sources: list[Source]) -> None:
        for source in sources:
            held.version = max(held.version, source.version)
            known = held.sources.get(source.index)
            if source.index in held.have or (known and known.version >= source.version):
                continue
            held.sources[source.index] = source
            if known is not None:  # the map has been run again: what failed before is forgiven
                held.tries.pop(source.index, None)
                held.again_at.pop(source.index, None)
                held.fetching.discard(source.index)
            runs = source.runs[held.start.index]
            if not runs or source.worker == self.name:
                held.have[source.index] = [[source.path, *run, source.index] for run in runs]
                held.local_bytes += sum(run[1] for run in runs)

    def _go_on(self, now: float) -> None:
        """Fetch what may be fetched, and run what may be run; maps first."""
        room = self._room()
        for held in self.held.values():
            if held.phase != SHUFFLE:
                continue
            for index, source in held.sources.items():
                wanted = index not in held.have and index not in held.fetching
                if room > 0 and wanted and held.again_at.get(index, now) <= now:
                    room -= 1
                    held.fetching.add(index)
                    path = f"{self._folder(held.start)}.src{index}.{source.version}"
                    self._outputs.append(Fetch(held.start.attempt, source, held.start.index, path))
            if len(held.have) == held.start.maps:
                held.phase = QUEUED
        free = self.slots - sum(held.phase == RUNNING for held in self.held.values())
        free -= len(self._dying)
        queued = [held for held in self.held.values() if held.phase == QUEUED]
        for held in sorted(queued, key=lambda held: held.start.kind == REDUCE):
            if free > 0:
                free -= 1
                held.phase, held.moved_at = RUNNING, now
                self._outputs.append(Launch(self._mission(held)))

    def _room(self) -> int:
        """How many more fetches there may be."""
        return FETCHES_MAX - sum(len(held.fetching) for held in self.held.values())

    def _folder(self, start: Start) -> str:
        direct = self.jobs[start.job_id].job.shuffle == "direct"
        return f"{self.memory if direct else self.scratch}/{start.job_id}/{start.attempt}"

    def _mission(self, held: Held) -> Mission:
        start, spec = held.start, self.jobs[held.start.job_id]
        is_part = start.kind == REDUCE or not spec.job.reduces
        if is_part:
            out = f"{spec.job.output.rstrip('/')}/{TEMPORARY}/{start.attempt}"
        else:
            out = f"{self._folder(start)}.out"
        # In the order of the maps, whoever came first: the output must not depend on it.
        runs = [run for index in sorted(held.have) for run in held.have[index]]
        return Mission(start, spec.job, spec.cuts, self._folder(start), out, runs)

    def _progress(self, held: Held) -> Progress:
        record, done, of = held.progress
        fraction = min(1.0, done / of) if of else 0.0
        if held.start.kind == REDUCE:
            # Thirds, as Hadoop counts them: fetched; merged and reduced.
            share = len(held.have) / held.start.maps if held.start.maps else 1.0
            fraction = share / 3 + fraction * 2 / 3
        return Progress(
            held.start.attempt,
            held.start.job_id,
            held.start.kind,
            held.start.index,
            held.phase,
            fraction,
            record,
            held.status,
            held.version,
        )

    def _cancel(self, attempt: str) -> None:
        held = self.held.pop(attempt, None)
        if held is not None and held.phase == RUNNING:
            self._dying.add(attempt)
            self._outputs.append(Kill(attempt, "cancelled"))

    def _forget(self, job_id: str) -> None:
        for attempt, held in list(self.held.items()):
            if held.start.job_id == job_id:
                self._cancel(attempt)
        for attempt, result in list(self.results.items()):
            if result.job_id == job_id:
                del self.results[attempt]
        if self.jobs.pop(job_id, None) is not None:
            self._outputs.append(Forget(job_id))

    def check(self) -> None:
        """Raises AssertionError when something is not as it must be."""
        running = sum(held.phase == RUNNING for held in self.held.values())
        assert running <= self.slots, f"{running} run in {self.slots} slots"
        assert not self.held.keys() & self.results.keys(), "both running and done"
        for held in self.held.values():
            if held.phase != SHUFFLE and held.start.kind == REDUCE:
                assert len(held.have) == held.start.maps, f"{held.start.attempt}: maps are missing"
