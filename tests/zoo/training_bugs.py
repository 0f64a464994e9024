"""Classic bugs of distributed training, each one method that does too much or too little."""

from __future__ import annotations

from dataclasses import replace

import google_crc32c
import msgpack
import numpy as np

from ddp.membership import SERVER
from ddp.training import elastic as e
from ddp.training.asynchronous import Asynchronous
from ddp.training.autograd import Tensor
from ddp.training.buckets import Buckets
from ddp.training.checkpoint import HEADER, Checkpoints, Snapshot
from ddp.training.elastic import Elastic, Record
from ddp.training.schedule import Action, one_f_one_b
from ddp.training.stale import StaleServer

# -- elastic


class AcceptsVotesOfThePast(Elastic):
    """A vote of an older epoch counts for this one."""

    def on_vote(self, epoch, step, life):
        if self.record is not None:
            epoch, step = self.record.epoch, self.record.step
        super().on_vote(epoch, step, life)


class AcceptsSumsOfThePast(Elastic):
    """The sum of an older epoch, from other members, is voted for as this one's."""

    def on_sum(self, epoch, step):
        if self.record is not None and step == self.record.step:
            epoch = self.record.epoch
        super().on_sum(epoch, step)


class ObeysRecordsOfThePast(Elastic):
    """What a slow watch hands over late is taken for the present."""

    def on_record(self, record):
        if record is not None and self.record is not None and record.epoch < self.record.epoch:
            self.record = None
        super().on_record(record)


class AppliesWhateverWasCommitted(Elastic):
    """The step is committed; that it was another epoch's sum is overlooked."""

    def _settle(self, before, record):
        super()._settle(before, replace(record, decided_in=before.epoch))


class CommitsWithAMajority(Elastic):
    """All but one have voted: good enough?"""

    def _decide(self):
        record = self.record
        if record is not None and len(record.members) > 2:
            votes = self._votes.get((record.epoch, record.step), set())
            if len(votes) == len(record.members) - 1:
                votes |= {member.life for member in record.members}
        super()._decide()


class ComputesBeforeItIsHealed(Elastic):
    """A newcomer begins with the parameters that it was born with."""

    def _heal(self, record):
        self.applied = record.step
        self._compute(record)


class ComesBackAsItself(Elastic):
    """Who was put out asks again under its old life, and keeps its parameters."""

    def _fence(self, record):
        self._outputs.append(e.Fence(record.epoch))
        self.phase = e.OUTSIDE
        self._outputs.append(e.Ask(self.me))

    def _follow(self, before, record):
        rank = record.rank(self.me.life)
        if rank is not None:
            members = tuple(replace(m, healed=True) for m in record.members)
            record = Record(record.epoch, record.step, members, record.decided_in)
            self.record = record
            self.applied = record.step
        super()._follow(before, record)


# -- data parallel, pipeline, tensor parallel


class SumsABucketTwice(Buckets):
    def finish(self):
        self._pending[0].wait()
        self._pending[0] = self.group.start("allreduce", self.buckets[0].flat)
        super().finish()


class StartsBucketsAsTheyFill(Buckets):
    """Before their last gradient is there."""

    def _complete(self, tensor):
        bucket = self.of[tensor.name]
        if bucket not in self.buckets[: len(self._pending)]:
            self._start(bucket)
        super()._complete(tensor)


def drops_a_micro_batch(stages, micros):
    last = micros - 1
    return [[a for a in actions if a.micro != last] for actions in one_f_one_b(stages, micros)]


def goes_backward_too_early(stages, micros):
    schedule = [list(actions) for actions in one_f_one_b(stages, micros)]
    schedule[0].insert(0, schedule[0].pop(schedule[0].index(Action("B", 0))))
    return schedule


def hoards_activations(stages, micros):
    from ddp.training.schedule import gpipe

    return gpipe(stages, micros)


def copies_without_summing_back(x, group):
    """The f of a column split that forgets its backward: each rank keeps its own part of dx."""
    return x


def sums_back_what_is_whole(x, group):
    """The g of a row split that sums its backward too: dx comes out P times too large."""
    if group.size == 1:
        return x
    return Tensor(
        group.allreduce(np.array(x.data)), (x,), lambda g: (group.allreduce(np.array(g)),)
    )


# -- asynchronous


class LetsEverybodyRun(StaleServer):
    def blockers(self, worker):
        return []


class LetsOneClockMore(StaleServer):
    """The bound, off by one."""

    def blockers(self, worker):
        if self.bound is None:
            return []
        least = self.clocks[worker] - self.bound - 1
        return [other for other, clock in self.clocks.items() if clock < least]


class ForgetsWhoIsSlow(StaleServer):
    """Pushes of one clock are dropped when the next comes first."""

    def push(self, worker, ticket, gradients, loss=0.0):
        if self.clocks.get(worker, 0) > min(self.clocks.values()):
            gradients = [0 * gradient for gradient in gradients]
        return super().push(worker, ticket, gradients, loss)


class TakesAnyTicket(StaleServer):
    """Whatever comes from a worker that has read counts as what it was asked for."""

    def push(self, worker, ticket, gradients, loss=0.0):
        share = self._shares.get(worker)
        return share is not None and super().push(worker, share.ticket, gradients, loss)


class TakesPartsOfTheOldDivision(StaleServer):
    """Workers come and go, and what was dealt out before counts all the same."""

    def change(self, workers):
        shares = dict(self._shares)
        super().change(workers)
        self._shares |= {worker: share for worker, share in shares.items() if worker in self.clocks}


class LetsNewcomersBeginAtZero(StaleServer):
    def change(self, workers):
        before = set(self.clocks)
        super().change(workers)
        if before:
            self.clocks = {w: c if w in before else 0 for w, c in self.clocks.items()}


class CommitsWhatItOnlyRemembers(Asynchronous):
    """The server says that a step is kept before it is on its disk."""

    def on_record(self, record):
        super().on_record(record)
        if self.phase == e.COMPUTING and self.me.role == SERVER:
            self.on_kept(self.record.step + 5)


class ServesBeforeItIsHealed(Asynchronous):
    """The server's next life begins with the parameters that it was born with."""

    def _serve(self, record):
        if self.phase != e.COMPUTING and not self._mine(record).healed:
            self.applied = record.step
            self._kept = record.step
            record = Record(record.epoch, record.step, self._as_healed(record.members))
        super()._serve(record)


class PushesToTheDead(Asynchronous):
    """A worker stays with the server that it had, whoever serves."""

    def _follow_server(self, record):
        if self.phase != e.COMPUTING or record.step >= self.steps:
            super()._follow_server(record)


# -- checkpoints


class LoadsWhateverIsThere(Checkpoints):
    """The checksum is not looked at."""

    def newest(self, job):
        for name in reversed(self._names()):
            data = self._disk.read(f"checkpoints/{name}")
            body = data[HEADER.size :]
            head = HEADER.pack(b"RTC1", google_crc32c.value(body), len(body))
            try:
                return Snapshot.decode(head + body)
            except (Exception, msgpack.exceptions.UnpackException):
                continue
        return None


class LoadsAStaleOne(Checkpoints):
    def newest(self, job):
        names = self._names()
        return Snapshot.decode(self._disk.read(f"checkpoints/{names[0]}")) if names else None


class WritesInPlace(Checkpoints):
    """No file beside, no rename: a power cut in the middle takes both."""

    def save(self, snapshot):
        for name in self._names():
            self._disk.remove(f"checkpoints/{name}")
        with self._disk.open(f"checkpoints/{snapshot.step:010d}.ckpt") as file:
            file.write_at(0, snapshot.encode())
            file.sync()
