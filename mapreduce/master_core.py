"""The master, without I/O: gives tasks to workers, and sees to it that each counts exactly once.

    submit, receive(beat), committed, persisted, on_deadline  ──▶  take_outputs

What it guarantees, whoever is killed:

- A task has one winner: the first attempt whose result arrives. Only the winner's output is
  renamed into place, and only its counters count.
- That a task is done is durable before anything is done upon it: before its worker may forget the
  result, before its output is renamed, before the job is said to be finished. `Persist` is the
  output that makes it so; what depends on it is held back until `persisted`.
- Map output on a worker that is gone is lost, and its map runs again while a reduce needs it.
- After a restart nothing that was done is done again: `restore` takes the durable records, and
  what runs is learnt from the workers' beats.

Beats and Orders may be lost: each beat says all that a worker has, and is answered with all that
it lacks. Nothing is asked twice of anybody who has it already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Final

from mapreduce import late
from mapreduce.attempt import part_name
from mapreduce.errors import BadJob
from mapreduce.job_state import (
    ACTIVE,
    CANCELLED,
    COMMITTED,
    DONE,
    ENDED,
    FAILED,
    FINISHED,
    FINISHING,
    PENDING,
    RUNNING,
    Attempt,
    JobState,
    TaskState,
    number_of,
)
from mapreduce.messages import (
    MAP,
    REDUCE,
    Beat,
    Complaint,
    JobSpec,
    Orders,
    Progress,
    Result,
    Start,
)
from mapreduce.outputs import Abandon, Commit, Ended, Event, Finish, Output, Persist, Send
from mapreduce.placement import AVOID_S, WorkerState, by_room, next_map, worker_for_reduce
from mapreduce.policy import judge
from netstack.rpc.schema import decode, encode

# A worker that has not been heard of for so long is gone. Beats come every 0.2 s; a machine whose
# cores are all busy has been seen to delay one by a second.
DEATH_S: Final = 3.0

# An order that is not heard of is given again with the next beat after this time.
AGAIN_S: Final = 0.4

# How often late tasks are looked for.
LATE_CHECK_S: Final = 0.25

# Reduces that complain of a map's output, or times that one does, until it is believed.
COMPLAINTS_MAX: Final = 3

JOBS_MAX: Final = 64
ENDED_JOBS_KEPT: Final = 50
SPEC_BYTES_MAX: Final = 4 * 1024 * 1024


class MasterCore:
    """All jobs, all workers.

    Args:
        epoch: number of this life of the master; larger than that of every earlier one.
    """

    def __init__(self, epoch: int, *, death_s: float = DEATH_S) -> None:
        self.epoch = epoch
        self.jobs: dict[str, JobState] = {}
        self.workers: dict[str, WorkerState] = {}
        self._death_s = death_s
        self._outputs: list[Output] = []
        self._held: list[tuple[int, Output]] = []
        self._sequence = 0
        self._durable = 0
        self._unacknowledged: dict[str, int] = {}  # attempt -> sequence that must be durable
        self.end_sequence: dict[str, int] = {}  # of each job that ended: durable from there on
        self._next_job = 0
        self._next_check = 0.0

    def __repr__(self) -> str:
        return f"<MasterCore epoch={self.epoch} jobs={len(self.jobs)} workers={len(self.workers)}>"

    # -- what comes in

    def submit(self, spec: JobSpec, now: float) -> str:
        """A new job; its id. It exists once `persisted`. Raises BadJob when there are too many."""
        if sum(job.state not in ENDED for job in self.jobs.values()) >= JOBS_MAX:
            raise BadJob(f"{JOBS_MAX} jobs are running; wait for one, or cancel one")
        self._next_job += 1
        job = JobState(f"j{self.epoch}-{self._next_job}", spec, now, self.epoch)
        self.jobs[job.id] = job
        self._forget_old_jobs()
        self._persist({f"job/{job.id}": encode(spec)})
        self._emit("mr.job", job=job.id, name=spec.job.title, maps=len(job.maps))
        self._look_at(job, now)
        self._schedule(now)
        return job.id

    def restore(self, records: Mapping[str, Any], now: float) -> None:
        """Go on where an earlier life ended; `records` are those that it had made durable."""
        of_jobs: dict[str, dict[str, Any]] = {}
        for key, value in sorted(records.items()):
            _, id, *rest = key.split("/", 2)
            if rest:
                of_jobs.setdefault(id, {})[rest[0]] = value
            else:
                self.jobs[id] = JobState(id, decode(JobSpec, value), now, self.epoch)
        for id, job in self.jobs.items():
            job.restore(of_jobs.get(id, {}), now)
            for task in job.tasks():
                if task.done:
                    self._expect(task.worker, task.incarnation, now)
        for job in list(self.jobs.values()):
            if job.state == ACTIVE:
                for task in job.maps:
                    if task.done and job.spec.job.reduces:
                        job.add_source(task)
                for task in job.parts:
                    if task.done:
                        self._commit(job, task)
                self._look_at(job, now)
        self._emit("mr.restored", jobs=len(self.jobs), epoch=self.epoch)

    def receive(self, beat: Beat, now: float) -> None:
        """A worker says how it goes."""
        worker = self._known(beat, now)
        listed = set()
        for result in beat.results:
            listed.add(result.attempt)
            self._result(worker, result, now)
        for progress in beat.running:
            listed.add(progress.attempt)
            self._progress(worker, progress, now)
        self._say_again(worker, listed, now)
        for complaint in beat.complaints:
            self._complaint(complaint, now)
        for id in beat.jobs:
            job = self.jobs.get(id)
            if job is None or job.state in ENDED:
                worker.orders.setdefault("forget", []).append(id)
        self._schedule(now)
        self._flush()

    def persisted(self, sequence: int, now: float) -> None:
        """All records up to `sequence` will outlive this process."""
        self._durable = max(self._durable, sequence)
        released = [output for at, output in self._held if at <= self._durable]
        self._held = [(at, output) for at, output in self._held if at > self._durable]
        self._outputs += released
        for attempt, at in list(self._unacknowledged.items()):
            if at <= self._durable:
                del self._unacknowledged[attempt]

    def committed(self, job_id: str, kind: str, index: int, ok: bool, now: float) -> None:
        """The output of a task's winner was renamed, or was not there."""
        job = self.jobs.get(job_id)
        if job is None or job.state != ACTIVE:
            return
        task = job.task(kind, index)
        if task is None or task.state != DONE:
            return
        if ok:
            task.state = COMMITTED
            self._look_at(job, now)
        else:
            self._emit("mr.output_lost", job=job.id, task=f"{kind} {index}")
            self._undo(job, task)
            self._schedule(now)
        self._flush()

    def written(self, job_id: str, error: str, now: float) -> None:
        """Report and mark are there, or could not be written."""
        job = self.jobs.get(job_id)
        if job is not None and job.state == FINISHING:
            job.error = error
            self._end(job, FAILED if error else FINISHED, now)
            self._flush()

    def cancel(self, job_id: str, now: float) -> bool:
        """End a job; False if there is none that runs by that id."""
        job = self.jobs.get(job_id)
        if job is None or job.state in ENDED:
            return False
        job.error = "cancelled"
        self._end(job, CANCELLED, now)
        self._flush()
        return True

    def on_deadline(self, now: float) -> None:
        """Workers that are silent for too long are gone; late tasks get copies."""
        for worker in self.workers.values():
            # As next_deadline counts, to the last bit: or it would be called for that in vain.
            if worker.alive and now >= worker.heard_at + self._death_s:
                worker.alive = False
                self._emit("mr.worker_lost", worker=worker.name, cause="no heartbeat")
                self._lose(worker)
        if now >= self._next_check:
            self._next_check = now + LATE_CHECK_S
            for job in self._active():
                self._copy_the_late(job, now)
        self._schedule(now)
        self._flush()

    def next_deadline(self) -> float | None:
        """When on_deadline wants to be called."""
        times = [w.heard_at + self._death_s for w in self.workers.values() if w.alive]
        if any(True for _ in self._active()):
            times.append(self._next_check)
        return min(times, default=None)

    def take_outputs(self) -> list[Output]:
        """What to do, in this order."""
        self._flush()
        outputs, self._outputs = self._outputs, []
        return outputs

    # -- workers

    def _known(self, beat: Beat, now: float) -> WorkerState:
        worker = self.workers.get(beat.worker)
        if worker is None or worker.incarnation != beat.incarnation:
            if worker is not None:
                self._emit("mr.worker_lost", worker=worker.name, cause="it was restarted")
                self._lose(worker, beat.incarnation)
            worker = WorkerState(beat.worker, beat.incarnation, beat.slots, now)
            self.workers[beat.worker] = worker
            self._emit("mr.worker", worker=beat.worker, slots=beat.slots)
        worker.heard_at, worker.alive, worker.slots = now, True, beat.slots
        worker.knows_jobs = set(beat.jobs)
        return worker

    def _expect(self, name: str, incarnation: str, now: float) -> None:
        """A worker of which an earlier life knew: it has its time to be heard of."""
        if name not in self.workers:
            self.workers[name] = WorkerState(name, incarnation, 0, now)

    def _lose(self, worker: WorkerState, keep: str = "") -> None:
        """What runs on a worker is not counted on any more, and its map outputs are gone.

        keep: the life of it whose outputs are there.
        """
        for attempt in list(worker.attempts.values()):
            job = self.jobs.get(attempt.job_id)
            if job is not None:
                job.counts["lost"] += 1
                if job.state == ACTIVE:
                    self._persist(job.tally())
            self._drop(attempt)
        for job in self._active():
            for task in job.maps if job.maps_needed else ():
                if task.done and task.worker == worker.name and task.incarnation != keep:
                    self._undo(job, task)

    def _undo(self, job: JobState, task: TaskState) -> None:
        """A task that was done must be done again."""
        task.lost, task.result = task.result, None
        task.state, task.worker, task.incarnation = PENDING, "", ""
        task.complaints.clear()
        job.sources = [s for s in job.sources if task.kind != MAP or s.index != task.index]
        lost = {f"job/{job.id}/{task.kind}/{task.index}": {"lost": encode(task.lost)}}
        self._persist({**lost, **job.tally()})

    def _drop(self, attempt: Attempt | None) -> None:
        """An attempt is no longer counted on."""
        if attempt is None:
            return
        task = attempt.task
        task.attempts.pop(attempt.id, None)
        if (worker := self.workers.get(attempt.worker)) is not None:
            worker.attempts.pop(attempt.id, None)
        if not task.attempts and task.state == RUNNING:
            task.state = PENDING

    # -- what a beat says

    def _result(self, worker: WorkerState, result: Result, now: float) -> None:
        job = self.jobs.get(result.job_id)
        task = job.task(result.kind, result.index) if job is not None else None
        if job is None or task is None or job.state != ACTIVE:
            self._acknowledge(worker, result.attempt)
            return
        self._meet(job, task, result.attempt)
        attempt = task.attempts.get(result.attempt)
        if task.done:
            # A second copy that ended later counts for nothing; the winner, told again, is heard.
            self._drop(attempt)
            self._acknowledge(worker, result.attempt)
            return
        self._drop(attempt)
        if result.failure is not None:
            self._acknowledge(worker, result.attempt)
            self._failed(job, task, worker, result, now)
            return
        self._won(job, task, worker, result, now)

    def _acknowledge(self, worker: WorkerState, attempt: str) -> None:
        """The worker may forget a result; not before what it says is durable."""
        if attempt not in self._unacknowledged:
            worker.orders.setdefault("acknowledge", []).append(attempt)

    def _won(
        self, job: JobState, task: TaskState, worker: WorkerState, result: Result, now: float
    ) -> None:
        """The first attempt to end well is the one that counts."""
        if any(number_of(other) < number_of(result.attempt) for other in task.attempts):
            job.counts["backups_won"] += 1
        self._cancel_attempts(task)
        task.state, task.result = DONE, result
        task.worker, task.incarnation = worker.name, worker.incarnation
        job.durations[task.kind].setdefault(worker.name, []).append(result.seconds)
        record = {
            "result": encode(result), "worker": worker.name, "incarnation": worker.incarnation,
            "after": now - job.began,
        }  # fmt: skip
        key = f"job/{job.id}/{task.kind}/{task.index}"
        sequence = self._persist({key: record, **job.tally()})
        self._unacknowledged[result.attempt] = sequence
        acknowledgement = Orders(str(self.epoch), acknowledge=[result.attempt])
        self._when_durable(sequence, Send(worker.name, acknowledgement))
        if task.kind == MAP and job.spec.job.reduces:
            job.add_source(task)
            self._tell_sources(job)
        else:
            self._commit(job, task)

    def _commit(self, job: JobState, task: TaskState) -> None:
        """Rename the winner's output, once it is certain for ever that it is the winner."""
        assert task.result is not None
        commit = Commit(
            job.id, task.kind, task.index, job.spec.job.output, task.result.path,
            part_name(task.index),
        )  # fmt: skip
        self._when_durable(self._sequence, commit)

    def _failed(
        self, job: JobState, task: TaskState, worker: WorkerState, result: Result, now: float
    ) -> None:
        assert result.failure is not None
        failure = replace(result.failure, attempt=result.attempt, worker=worker.name)
        self._emit(
            "mr.failure", job=job.id, task=f"{task.kind} {task.index}", worker=worker.name,
            why=failure.kind, record=failure.record, error=failure.message[:200],
        )  # fmt: skip
        job.failed(failure)
        self._persist(job.tally())
        task.failures.append(failure)
        task.failed_on.add(worker.name)
        if failure.kind == "disk":
            worker.avoided_until = now + AVOID_S
        if failure.kind == "source":
            damaged = job.task(MAP, failure.source)
            if damaged is not None and damaged.done:
                self._undo(job, damaged)
        task.verdict = judge(job.spec.job, task.failures)
        if task.verdict.fail:
            job.error = f"{task.kind} {task.index} failed: {task.verdict.fail}"
            self._end(job, FAILED, now)

    def _progress(self, worker: WorkerState, progress: Progress, now: float) -> None:
        job = self.jobs.get(progress.job_id)
        task = job.task(progress.kind, progress.index) if job is not None else None
        if job is not None and task is not None:
            self._meet(job, task, progress.attempt)
        if job is None or task is None or job.state != ACTIVE or task.done:
            worker.orders.setdefault("cancel", []).append(progress.attempt)
            return
        attempt = task.attempts.get(progress.attempt)
        if attempt is None:
            # It was begun by an earlier life of this master, or given up too early: count on it.
            attempt = Attempt(progress.attempt, job.id, task, worker.name, now)
            self._count_on(attempt)
        attempt.heard(progress, now)
        if task.kind == REDUCE and progress.phase == "shuffle":
            self._owe_sources(worker, job, progress.sources)

    def _meet(self, job: JobState, task: TaskState, attempt: str) -> None:
        if job.state == ACTIVE and job.meet(task.kind, attempt):
            self._persist(job.tally())

    def _say_again(self, worker: WorkerState, listed: set[str], now: float) -> None:
        """Orders that a worker does not show were lost."""
        for attempt in worker.attempts.values():
            if attempt.id not in listed and now - attempt.offered_at > AGAIN_S:
                attempt.offered_at = now
                self._order(worker, self.jobs[attempt.job_id], attempt)

    def _complaint(self, complaint: Complaint, now: float) -> None:
        """A map's output cannot be fetched though its worker may well be alive."""
        job = self.jobs.get(complaint.job_id)
        task = job.task(MAP, complaint.map_index) if job is not None else None
        if job is None or task is None or task.result is None or not job.maps_needed:
            return
        if task.result.attempt != complaint.map_attempt:
            return  # it has been run again meanwhile
        tries = {f"{complaint.reduce_attempt}#{n}" for n in range(complaint.tries)}
        task.complaints.setdefault(complaint.map_attempt, set()).update(tries)
        if len(task.complaints[complaint.map_attempt]) >= COMPLAINTS_MAX:
            self._emit("mr.unreachable", worker=task.worker, job=job.id, map=task.index)
            holder = self.workers.get(task.worker)
            if holder is not None:
                holder.avoided_until = now + AVOID_S
            task.failed_on.add(task.worker)
            self._undo(job, task)

    # -- who does what

    def _schedule(self, now: float) -> None:
        """Give tasks to whoever has room, maps before reduces, older jobs before younger."""
        for job in self._active():
            reduces_may_start = job.spec.job.shuffle == "direct" or not any(
                task.state == PENDING for task in job.maps
            )
            for worker in by_room(self.workers.values()):
                while worker.room_for(MAP):
                    task = next_map(job, worker, self.workers, now)
                    if task is None:
                        break
                    self._offer(worker, job, task, now)
            if not reduces_may_start or not any(w.room_for(REDUCE) for w in self.workers.values()):
                continue
            for task in job.reduces:
                if task.state == PENDING:
                    worker_free = worker_for_reduce(task, self.workers)
                    if worker_free is not None:
                        self._offer(worker_free, job, task, now)

    def _offer(self, worker: WorkerState, job: JobState, task: TaskState, now: float) -> None:
        job.next_attempt += 1
        id = f"{job.id}.{task.kind[0]}{task.index}.{self.epoch}.{job.next_attempt}"
        attempt = Attempt(id, job.id, task, worker.name, now)
        self._count_on(attempt)
        job.runs[task.kind] += 1
        self._order(worker, job, attempt)

    def _count_on(self, attempt: Attempt) -> None:
        attempt.task.attempts[attempt.id] = attempt
        attempt.task.state = RUNNING
        self.workers[attempt.worker].attempts[attempt.id] = attempt

    def _order(self, worker: WorkerState, job: JobState, attempt: Attempt) -> None:
        """Tell the worker to begin, and all that it needs to know for it."""
        task = attempt.task
        start = Start(
            attempt.id,
            job.id,
            task.kind,
            task.index,
            job.spec.splits[task.index] if task.kind == MAP else None,
            sorted(task.verdict.skip),
            task.verdict.careful,
            len(job.maps),
        )
        worker.orders.setdefault("start", []).append(start)
        if job.id not in worker.knows_jobs:
            worker.orders.setdefault("jobs", {})[job.id] = replace(job.spec, splits=[])
        if task.kind == REDUCE:
            self._owe_sources(worker, job, 0)

    def _tell_sources(self, job: JobState) -> None:
        """Reduces that wait for map outputs hear of a new one at once."""
        for task in job.reduces:
            for attempt in task.attempts.values():
                worker = self.workers.get(attempt.worker)
                if worker is not None:
                    self._owe_sources(worker, job, attempt.sources)

    def _owe_sources(self, worker: WorkerState, job: JobState, known: int) -> None:
        due = [source for source in job.sources if source.version > known]
        if due:
            worker.orders.setdefault("sources", {})[job.id] = due

    def _copy_the_late(self, job: JobState, now: float) -> None:
        if not job.spec.job.backups:
            return
        for kind, tasks in ((MAP, job.maps), (REDUCE, job.reduces)):
            if any(task.state == PENDING for task in tasks):
                continue
            running = job.running(tasks, now)
            free = [w.name for w in by_room(self.workers.values()) if w.room_for(kind)]
            slots = sum(w.slots for w in self.workers.values() if w.alive)
            chosen = late.choose(running, job.durations[kind], free, slots)
            if chosen is not None:
                original, name = chosen
                task = next(t for t in tasks if original.attempt in t.attempts)
                job.counts["backups"] += 1
                self._emit("mr.backup", job=job.id, task=f"{kind} {task.index}", worker=name)
                self._offer(self.workers[name], job, task, now)

    def _cancel_attempts(self, task: TaskState) -> None:
        for attempt in list(task.attempts.values()):
            worker = self.workers.get(attempt.worker)
            if worker is not None:
                worker.orders.setdefault("cancel", []).append(attempt.id)
            self._drop(attempt)

    # -- ends

    def _look_at(self, job: JobState, now: float) -> None:
        """Is it finished?"""
        if job.state == ACTIVE and all(task.state == COMMITTED for task in job.parts):
            job.state = FINISHING
            finish = Finish(job.id, job.spec.job.output, job.outcome(now).report())
            self._when_durable(self._sequence, finish)

    def _end(self, job: JobState, state: str, now: float) -> None:
        """The job is over: say so durably, then to whoever waits."""
        for task in job.tasks():
            self._cancel_attempts(task)
        job.state, job.ended_at = state, now
        sequence = self.end_sequence[job.id] = self._persist(
            {f"job/{job.id}/end": job.end_record(now)}
        )
        if state != FINISHED:
            self._when_durable(sequence, Abandon(job.spec.job.output))
        self._when_durable(sequence, Ended(job.id))
        self._emit("mr.job_ended", job=job.id, state=state, error=job.error[:200])

    def _forget_old_jobs(self) -> None:
        ended = [job for job in self.jobs.values() if job.state in ENDED]
        for job in ended[: max(0, len(ended) - ENDED_JOBS_KEPT)]:
            del self.jobs[job.id]
            self.end_sequence.pop(job.id, None)
            self._persist(dict.fromkeys(job.record_keys()))

    # -- what goes out

    def _active(self) -> list[JobState]:
        return [job for job in self.jobs.values() if job.state == ACTIVE]

    def _persist(self, records: dict[str, Any]) -> int:
        self._sequence += 1
        self._outputs.append(Persist(self._sequence, records))
        return self._sequence

    def _when_durable(self, sequence: int, output: Output) -> None:
        if sequence <= self._durable:
            self._outputs.append(output)
        else:
            self._held.append((sequence, output))

    def _emit(self, kind: str, **fields: Any) -> None:
        self._outputs.append(Event(kind, fields))

    def _flush(self) -> None:
        """Send what has gathered for each worker."""
        for worker in self.workers.values():
            if worker.orders and worker.alive:
                orders = Orders(str(self.epoch), **worker.orders)
                self._outputs.append(Send(worker.name, orders))
            worker.orders = {}

    def remember(self, key: str, value: Any) -> None:
        """One more record, for the shell."""
        self._persist({key: value})

    # -- for people and tests

    def durable(self, sequence: int) -> bool:
        """Whether `persisted` has been told of it."""
        return sequence <= self._durable

    @property
    def sequence(self) -> int:
        """Of the latest Persist."""
        return self._sequence

    def outcome(self, job_id: str, now: float) -> dict[str, Any] | None:
        """How a job goes, or has ended, with its counters; None if there is no such."""
        job = self.jobs.get(job_id)
        if job is None:
            return None
        at = job.ended_at if job.ended_at is not None else now
        return {**job.progress(now), "outcome": asdict(job.outcome(at))}

    def check(self) -> None:
        """Raises AssertionError when something is not as it must be."""
        for job in self.jobs.values():
            job.check()
