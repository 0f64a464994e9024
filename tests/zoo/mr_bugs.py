"""Planted bugs of MapReduce: each overrides one rule of a core or of a task."""

from __future__ import annotations

from mapreduce.job_state import PENDING
from mapreduce.master_core import MasterCore
from mapreduce.outputs import Commit
from mapreduce.worker_core import WorkerCore


class CommitsTwice(MasterCore):
    """Renames the output of every attempt that ends well, not of the winner alone."""

    def _result(self, worker, result, now):
        job = self.jobs.get(result.job_id)
        task = job.task(result.kind, result.index) if job else None
        late = task is not None and task.done and task.result.attempt != result.attempt
        super()._result(worker, result, now)
        if late and result.failure is None and result.kind == "reduce":
            name = f"part-{result.index:05d}"
            self._outputs.append(
                Commit(job.id, result.kind, result.index, job.spec.job.output, result.path, name)
            )


class CountsTwice(MasterCore):
    """Adds the counters of every result as it comes, those of second copies and retries too."""

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.sums = {}

    def _result(self, worker, result, now):
        if result.failure is None:
            mine = self.sums.setdefault(result.job_id, {})
            mine[result.kind] = mine.get(result.kind, 0) + 1
        super()._result(worker, result, now)

    def _look_at(self, job, now):
        outcome = job.outcome

        def wrong(at):
            found = outcome(at)
            found.counters["mine"] = dict(self.sums.get(job.id, {}))
            return found

        job.outcome = wrong
        super()._look_at(job, now)


class KeepsLostRuns(MasterCore):
    """Thinks that the map output of a dead worker is still there, and believes no complaint."""

    def _lose(self, worker, keep=""):
        for attempt in list(worker.attempts.values()):
            self._drop(attempt)

    def _complaint(self, complaint, now):
        pass


class AcknowledgesEarly(MasterCore):
    """Lets a worker forget a result, and renames, before that it is done is durable."""

    def _when_durable(self, sequence, output):
        self._outputs.append(output)


class ForgetsAcrossRestarts(MasterCore):
    """Reads back that there was a job, and not what was done of it."""

    def restore(self, records, now):
        super().restore({k: v for k, v in records.items() if k.count("/") == 1}, now)


class TrustsTheFirstBeat(MasterCore):
    """Takes a restarted worker for the one that was there before."""

    def _known(self, beat, now):
        if beat.worker in self.workers:
            self.workers[beat.worker].incarnation = beat.incarnation
        return super()._known(beat, now)

    def _complaint(self, complaint, now):
        pass


class ReusesVersions(MasterCore):
    """Numbers map outputs from one again after each restart."""

    def restore(self, records, now):
        super().restore(records, now)
        for job in self.jobs.values():
            job._version = 0
            for task in job.maps:
                if task.done:
                    job.add_source(task)


class NeverSkips(MasterCore):
    """Tries a bad record for ever."""

    def _failed(self, job, task, worker, result, now):
        task.state = PENDING if not task.attempts else task.state


class StartsEarly(WorkerCore):
    """Runs a reduce as soon as it has something, and not when it has everything."""

    def _go_on(self, now):
        for held in self.held.values():
            if held.phase == "shuffle" and held.have:
                held.start = type(held.start)(
                    *(getattr(held.start, name) for name in held.start.__slots__[:-1]),
                    len(held.have),
                )
        super()._go_on(now)


class InOrderOfArrival(WorkerCore):
    """Merges runs in the order in which they were fetched."""

    def _mission(self, held):
        mission = super()._mission(held)
        runs = [run for runs in held.have.values() for run in runs]
        return type(mission)(
            mission.start, mission.job, mission.cuts, mission.folder, mission.out, runs
        )


class WaitsWithAChild(WorkerCore):
    """Lets a reduce that still fetches hold a child process: maps that must run again starve."""

    def _go_on(self, now):
        holding = sum(held.phase == "shuffle" for held in self.held.values())
        before, self.slots = self.slots, self.slots - holding
        super()._go_on(now)
        self.slots = before


def salted_hash(keys, reduces):
    """Python's own `hash`, which differs from process to process."""
    return [hash(key) % reduces for key in keys]


def drops_equal_keys(runs):
    """A merge that keeps one pair a key in each stretch."""
    for stretch in REAL_MERGE(runs):
        yield list(dict(stretch).items())


REAL_MERGE = None
# A master, and what the judge of a storm must say of it.
MASTERS = {
    "counts twice": (CountsTwice, "the counters are"),
    "keeps lost runs": (KeepsLostRuns, "the job hangs"),
    "forgets across restarts": (ForgetsAcrossRestarts, "renames of 3 parts"),
    "trusts the first beat": (TrustsTheFirstBeat, "the job hangs"),
    "reuses versions": (ReusesVersions, "the job hangs"),
}
WORKERS = {
    "starts early": (StartsEarly, "holds the maps"),
    "in order of arrival": (InOrderOfArrival, "holds the maps"),
}
