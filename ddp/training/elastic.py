"""Training that goes on with whoever is left: who is in, what is committed, who must heal.

    OUTSIDE ──asked, and let in──► HEALING ──has a member's state──► COMPUTING ──has the sum──►
    VOTED
       ▲                                                                ▲                        │
       └──── the others went on without us: fenced ────┐                └── step committed ──────┘

One record decides, and it is replicated (raftd), changed by compare-and-swap only: epoch, step,
members, decided_in (membership.py). The members are in the order of their ranks: those that compute
first, then a parameter server, if there is one.

A step: all members compute their part and get the sum of all; who has it votes; when all have
voted, the first swaps `step` for `step + 1`. Only then does anybody change a parameter. So
whoever dies at whatever moment, either all that are left have the sum, or the step was not
committed, and it is done again by those in the next epoch. No committed step is lost or applied
twice. (The vote is torchft's should_commit; that the record is replicated takes away its single
point of failure.)

A core without I/O: events in, outputs taken. `check` holds its invariants. The shell is worker.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from ddp.membership import Member, Record
from ddp.training.errors import TrainingError

OUTSIDE, HEALING, COMPUTING, VOTED, OVER = "outside", "healing", "computing", "voted", "over"

# How long founders wait for one another before those that are there begin.
FOUNDING_S: Final = 30.0
# What our parameters are worth while they are nobody's.
NOTHING: Final = -1
# Lives that were put out and are remembered: news of those that live may be older than the record.
PAST_MAX: Final = 1000
# Votes that came before the record's news of their epoch: one a member, of a few epochs.
EARLY_VOTES_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Ask:
    """Tell the members that we want in."""

    member: Member


@dataclass(frozen=True, slots=True)
class Propose:
    """Swap the record, if it still is `before`; the requests of those let in are done with."""

    before: Record | None
    after: Record


@dataclass(frozen=True, slots=True)
class Heal:
    """Get the parameters of this step from `source`; None: nobody has them: from a checkpoint."""

    epoch: int
    step: int
    source: Member | None


@dataclass(frozen=True, slots=True)
class Compute:
    """Begin the step: this rank's part, and the sum over all."""

    record: Record
    rank: int


@dataclass(frozen=True, slots=True)
class Vote:
    """Tell the first member that we have the sum of this step."""

    epoch: int
    step: int
    to: Member


@dataclass(frozen=True, slots=True)
class Apply:
    """The step is committed: change the parameters by the sum that is held."""

    epoch: int
    step: int


@dataclass(frozen=True, slots=True)
class Drop:
    """The epoch ended before the step was committed: forget the sum, and what is under way."""

    epoch: int
    step: int


@dataclass(frozen=True, slots=True)
class Fence:
    """The others went on without us: nothing that we hold counts any more."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Finish:
    """All steps are done."""

    step: int


@dataclass(frozen=True, slots=True)
class Serve:
    """Give parameters to the workers of this record, and take their gradients (asynchronous.py)."""

    record: Record


@dataclass(frozen=True, slots=True)
class Push:
    """Read from this server, compute, push, and again, until told to drop it (asynchronous.py)."""

    server: Member


Output: TypeAlias = (
    Ask | Propose | Heal | Compute | Vote | Apply | Drop | Fence | Finish | Serve | Push
)


class Elastic:
    """One rank's view of the training.

    Args:
        me: name and address; its life is made from `me.life` and a number.
        steps: to do in all.
        founders: how many begin together.
    """

    def __init__(self, me: Member, *, steps: int, founders: int, now: float) -> None:
        self.me = me
        self.steps = steps
        self.founders = founders
        self.phase = OUTSIDE
        self.record: Record | None = None
        self.applied = 0  # steps that our parameters have; all begin with those of the seed
        self._boot = me.life
        self._lives = 0
        self._alive: dict[str, Member] = {}
        self._past: dict[str, None] = {}  # lives that were members; they do not come back
        self._suspects: set[str] = set()
        self._votes: dict[tuple[int, int], set[str]] = {}
        self._proposing = False
        self._over = 0  # the epoch whose group has ended before it
        self._founding_ends: float | None = now + FOUNDING_S
        self._outputs: list[Output] = []
        self._be_born()

    def __repr__(self) -> str:
        epoch = self.record.epoch if self.record else 0
        return f"<Elastic {self.me.name} {self.phase} epoch={epoch} applied={self.applied}>"

    def take_outputs(self) -> list[Output]:
        """What is to be done, in order."""
        outputs, self._outputs = self._outputs, []
        return outputs

    def next_deadline(self) -> float | None:
        """When `on_deadline` wants to be called."""
        return self._founding_ends if self.record is None else None

    # -- events

    def on_deadline(self, now: float) -> None:
        """Not all founders have come: begin with those that have."""
        if self._founding_ends is not None and now >= self._founding_ends:
            self.founders = 1
            self._decide()

    def on_alive(self, alive: Iterable[Member]) -> None:
        """All that live, as the replicated store has them: who is no member wants in."""
        self._alive = {member.life: member for member in alive}
        self._decide()

    def on_given_up(self) -> None:
        """We are not among them any more: our lease has ended; or we were in and out unawares."""
        if self.phase == OUTSIDE:
            self._be_born()
        else:
            self._outputs.append(Ask(self.me))

    def on_record(self, record: Record | None) -> None:
        """The record as it is, or as it was at some time: what is older than ours is ignored."""
        if record is None or (self.record is not None and record.age < self.record.age):
            self._decide()
            return
        before, self.record = self.record, record
        if before is None or record.age > before.age:
            self._follow(before, record)
        self._decide()

    def on_proposal_over(self) -> None:
        """Won, lost or unknown: the shell has read the record since."""
        self._proposing = False
        self._decide()

    def on_sum(self, epoch: int, step: int) -> None:
        """The shell holds the sum of all members' gradients of this step."""
        record = self.record
        if (
            record is None
            or self.phase != COMPUTING
            or (epoch, step) != (record.epoch, record.step)
        ):
            return
        self.phase = VOTED
        first = record.members[0]
        if first.life == self.me.life:
            self.on_vote(epoch, step, self.me.life)
        else:
            self._outputs.append(Vote(epoch, step, first))

    def on_vote(self, epoch: int, step: int, life: str) -> None:
        """A member has the sum."""
        if self.record is not None and epoch < self.record.epoch:
            return  # of a past that is decided
        if len(self._votes) < EARLY_VOTES_MAX:
            self._votes.setdefault((epoch, step), set()).add(life)
        self._decide()

    def on_healed(self, epoch: int, step: int) -> None:
        """We have the parameters before `step`, whoever gave them."""
        record = self.record
        if self.phase != HEALING or record is None or epoch != record.epoch:
            return
        self.applied = step
        if step == record.step:
            self._compute(record)
        elif any(member.healed for member in record.members):
            self._heal(record)
        self._decide()

    def on_lost(self, epoch: int, lives: Iterable[str]) -> None:
        """These are silent, or a call to them failed for good."""
        if self.record is not None and epoch == self.record.epoch:
            self._suspects |= {life for life in lives if self.record.rank(life) is not None}
            self._suspects.discard(self.me.life)
            self._decide()

    def on_answer(self, life: str) -> None:
        """It lives, whatever was thought of it."""
        self._suspects.discard(life)

    def on_over(self, epoch: int) -> None:
        """The group of this epoch is over although nobody is known to have died."""
        if self.record is not None and epoch == self.record.epoch:
            self._over = epoch
            self._decide()

    # -- what follows from the record

    def _follow(self, before: Record | None, record: Record) -> None:
        for member in before.members if before is not None else ():
            if record.rank(member.life) is None:
                self._past[member.life] = None
        while len(self._past) > PAST_MAX:
            del self._past[next(iter(self._past))]
        self._suspects = {life for life in self._suspects if record.rank(life) is not None}
        self._votes = {key: v for key, v in self._votes.items() if key >= record.age}
        if before is not None:
            self._end_step(before, record)
        if record.rank(self.me.life) is not None:
            self._founding_ends = None
            self._take_part(record)
        elif self.phase != OUTSIDE:
            self._fence(record)

    def _end_step(self, before: Record, record: Record) -> None:
        """What was under way belongs to `before`."""
        if self.phase == VOTED:
            self._settle(before, record)
        elif self.phase == COMPUTING:
            self._outputs.append(Drop(before.epoch, before.step))

    def _take_part(self, record: Record) -> None:
        """We are a member of it."""
        if self._mine(record).healed and self.applied == record.step:
            self._compute(record)
        else:
            self._heal(record)

    def _settle(self, before: Record, record: Record) -> None:
        """We hold the sum of `before.step`: was it this sum that was committed?"""
        if record.step == before.step + 1 and record.decided_in == before.epoch:
            self._outputs.append(Apply(before.epoch, before.step))
            self.applied = record.step
        else:
            self._outputs.append(Drop(before.epoch, before.step))
        self.phase = COMPUTING

    def _fence(self, record: Record) -> None:
        self._outputs.append(Fence(record.epoch))
        self._be_born()

    def _be_born(self) -> None:
        """Outside, as somebody whom nobody has known: what the old life has sent is void."""
        self._lives += 1
        self.me = replace(self.me, life=f"{self._boot}.{self._lives}", healed=False)
        self.phase = OUTSIDE
        self.applied = 0 if self._lives == 1 else NOTHING
        self._outputs.append(Ask(self.me))

    def _heal(self, record: Record) -> None:
        self.phase = HEALING
        self.applied = NOTHING
        source = next((m for m in record.members if m.healed and m.life != self.me.life), None)
        self._outputs.append(Heal(record.epoch, record.step, source))

    def _compute(self, record: Record) -> None:
        if record.step >= self.steps:
            if self.phase != OVER:
                self.phase = OVER
                self._outputs.append(Finish(record.step))
            return
        self.phase = COMPUTING
        rank = record.rank(self.me.life)
        assert rank is not None
        self._outputs.append(Compute(record, rank))

    # -- what we bring about

    def _decide(self) -> None:
        """Whatever is due now; called after every event, and may be called at any time."""
        if self._proposing:
            return
        record = self.record
        if record is None:
            if len(self._alive) >= self.founders and self.me.life in self._alive:
                found = sorted(self._alive.values(), key=lambda member: member.place)
                self._propose(Record(1, 0, tuple(self._founder(member) for member in found)))
            return
        joiners = [m for m in self._alive.values() if record.rank(m.life) is None]
        joiners = [member for member in joiners if member.life not in self._past]
        joiners.sort(key=lambda member: member.place)
        # Who asks under the name of a member is its next life: the one that we know is dead.
        reborn = {member.name for member in joiners}
        gone = self._suspects | {m.life for m in record.members if m.name in reborn}
        gone = self._certain(record, gone)
        if record.rank(self.me.life) is None:
            self._from_outside(record, joiners, gone)
        elif gone - {self.me.life} or self._over == record.epoch:
            self._propose(record.changed(gone, joiners))
        else:
            self._go_on(record, joiners)

    def _founder(self, member: Member) -> Member:
        """All begin with the parameters that follow from the seed."""
        return replace(member, healed=True)

    def _go_on(self, record: Record, joiners: list[Member]) -> None:
        """Nobody is missing: it is for the first to commit, and to let in who has come."""
        if record.members[0].life != self.me.life:
            return
        if self.phase == HEALING:
            self._roll_back(record)
        elif self._votes.get((record.epoch, record.step), set()) >= {
            member.life for member in record.members
        }:
            self._propose(record.committed(joiners))
        elif joiners and (self.phase == OVER or not record.workers):
            self._propose(record.changed((), joiners))

    def _certain(self, record: Record, gone: set[str]) -> set[str]:
        """Silence is no proof. Where it would leave nobody with the parameters, those that have
        them are gone only once they are not among the living, either (their leases end without
        them): or a busy moment would cost steps that are committed."""
        having = {member.life for member in record.members if member.healed}
        return gone if having - gone else gone - (having & self._alive.keys())

    def _roll_back(self, record: Record) -> None:
        """Nobody has the committed parameters any more, and ours are from a checkpoint.

        The first of those that are left says from where training goes on. What was committed since
        is lost; the epoch tells it apart from what will be.
        """
        if self.applied != NOTHING and not any(member.healed for member in record.members):
            us = (replace(self.me, healed=True), *record.members[1:])
            self._propose(Record(record.epoch + 1, self.applied, us, record.decided_in))

    def _from_outside(self, record: Record, joiners: list[Member], gone: set[str]) -> None:
        """Only where nobody is left inside do those outside begin anew, from a checkpoint."""
        asked = self.me.life in self._alive
        if asked and gone >= {member.life for member in record.members}:
            self._propose(record.changed(gone, joiners))

    def _propose(self, after: Record) -> None:
        self._proposing = True
        self._outputs.append(Propose(self.record, after))

    def _mine(self, record: Record) -> Member:
        rank = record.rank(self.me.life)
        assert rank is not None
        return record.members[rank]

    def check(self) -> None:
        """Whoever computes has the parameters of the record's step, and is a member."""
        if self.record is None or self.phase in (OUTSIDE, HEALING):
            return
        if self.applied != self.record.step or self.record.rank(self.me.life) is None:
            raise TrainingError(f"{self!r} is {self.phase} in {self.record!r}")
