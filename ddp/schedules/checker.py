"""Proof by symbols that a schedule does what its name says, and a count of what that costs.

A chunk's value is not numbers but the expression that made it: `prove` runs the schedule on such
values, and at the end asks of each rank what it must have. An allreduce is right if every chunk
of every rank is one and the same expression in which each contributor occurs exactly once: then
any numbers put in give the same bits on all ranks. What is wrong is said in a sentence: who,
which chunk, whose contribution is missing or counted twice, or that a rank sends what it does not
have.

    prove(ring(5), "allreduce")
    count(ring(8)).rounds, .bytes_sent(n), .fan_in
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ddp.schedules.schedule import Action, Round, Schedule, bounds


class WrongSchedule(Exception):
    """The schedule does not do what it is called."""


class Term(NamedTuple):
    """A value: which expression it is, and the set of ranks (as bits) whose vectors are in it."""

    id: int
    ranks: int


class _Terms:
    """Expressions, each distinct one with a number: equal numbers, equal order of additions."""

    def __init__(self) -> None:
        self._ids: dict[tuple[int, int], int] = {}
        self._next = 0

    def leaf(self, rank: int) -> Term:
        self._next += 1
        return Term(self._next, 1 << rank)

    def add(self, left: Term, right: Term, where: str) -> Term:
        twice = left.ranks & right.ranks
        if twice:
            raise WrongSchedule(f"{where}: rank {twice.bit_length() - 1} is counted twice")
        key = (left.id, right.id)
        if key not in self._ids:
            self._next += 1
            self._ids[key] = self._next
        return Term(self._ids[key], left.ranks | right.ranks)


Values = list[list[Term | None]]  # by rank, by chunk


def prove(schedule: Schedule, goal: str, root: int = 0) -> None:
    """Raises WrongSchedule unless `schedule` is a `goal` (a name of `catalogue.KINDS`)."""
    run = _Run(schedule, goal, root)
    for number, transfers in enumerate(schedule.rounds):
        run.round(number, transfers)
    if schedule.place:
        run.place()
    for rank in range(schedule.size):
        for chunk in range(schedule.chunks):
            run.demand(rank, chunk)


class _Run:
    def __init__(self, schedule: Schedule, goal: str, root: int) -> None:
        self.schedule, self.goal, self.root = schedule, goal, root
        self.terms = _Terms()
        chunks = range(schedule.chunks)
        # A chunk's leaf is known by its place alone: all_to_all tells them apart.
        self.leaves = [[self.terms.leaf(rank) for _ in chunks] for rank in range(schedule.size)]
        self.values: Values = [
            [self.leaves[rank][chunk] if self._has(rank, chunk) else None for chunk in chunks]
            for rank in range(schedule.size)
        ]
        self.kept: list[dict[int, dict[int, Term]]] = [{} for _ in range(schedule.size)]

    def _has(self, rank: int, chunk: int) -> bool:
        if self.goal == "all-gather":
            return rank == chunk
        if self.goal == "broadcast":
            return rank == self.root
        return rank not in self.schedule.silent

    def round(self, number: int, transfers: Round) -> None:
        sent = []
        for t in transfers:
            values = self.values[t.src][t.lo : t.hi]
            missing = [t.lo + i for i, value in enumerate(values) if value is None]
            if missing:
                raise WrongSchedule(
                    f"round {number}: rank {t.src} sends chunk {missing[0]}, which it does not have"
                )
            sent.append(values)
        for t, values in zip(transfers, sent, strict=True):
            for chunk, value in enumerate(values, t.lo):
                assert value is not None
                self._take(number, t.src, t.dst, chunk, value, t.action)
        if self.schedule.fold_after is None:
            return
        for rank in range(self.schedule.size):
            if any(turn.round == number and turn.fold for turn in self.schedule.program(rank)):
                self._fold(rank)

    def _take(
        self, number: int, src: int, dst: int, chunk: int, value: Term, action: Action
    ) -> None:
        if action is Action.KEEP:
            self.kept[dst].setdefault(chunk, {})[src] = value
            return
        mine = self.values[dst][chunk]
        if action is Action.REDUCE:
            if mine is None:
                raise WrongSchedule(f"round {number}: rank {dst} adds to nothing in chunk {chunk}")
            where = f"round {number}, rank {dst}, chunk {chunk}"
            left, right = (value, mine) if src < dst else (mine, value)
            value = self.terms.add(left, right, where)
        self.values[dst][chunk] = value

    def _fold(self, rank: int) -> None:
        for chunk, kept in self.kept[rank].items():
            mine = self.values[rank][chunk]
            if mine is not None:
                kept = kept | {rank: mine}
            ordered = [kept[source] for source in sorted(kept)]
            total = ordered[0]
            for term in ordered[1:]:
                total = self.terms.add(total, term, f"rank {rank}, chunk {chunk}")
            self.values[rank][chunk] = total
        self.kept[rank].clear()

    def place(self) -> None:
        for rank, kept in enumerate(self.kept):
            for chunk, by_source in kept.items():
                for source, value in by_source.items():
                    if chunk != rank or value != self.leaves[source][rank]:
                        raise WrongSchedule(f"rank {rank} was sent chunk {chunk} of rank {source}")
                    self.values[rank][source] = value

    def demand(self, rank: int, chunk: int) -> None:
        """What must be there at the end."""
        goal, found = self.goal, self.values[rank][chunk]
        where = f"at the end, rank {rank}, chunk {chunk}"
        if goal == "barrier":
            return
        if goal == "all-to-all":
            if found != self.leaves[chunk][rank]:
                raise WrongSchedule(f"{where}: not what rank {chunk} had for it")
        elif goal in ("all-gather", "broadcast"):
            source = chunk if goal == "all-gather" else self.root
            if found != self.leaves[source][chunk]:
                raise WrongSchedule(f"{where}: not what rank {source} had")
        elif goal == "allreduce" or rank == (chunk if goal == "reduce-scatter" else self.root):
            self._demand_sum(found, self.values[0][chunk] if goal == "allreduce" else found, where)

    def _demand_sum(self, found: Term | None, reference: Term | None, where: str) -> None:
        wanted = sum(1 << rank for rank in self.schedule.contributors)
        have = found.ranks if found is not None else 0
        if have != wanted:
            wrong = (have ^ wanted).bit_length() - 1
            raise WrongSchedule(f"{where}: the contribution of rank {wrong} is missing")
        if found != reference:
            raise WrongSchedule(f"{where}: added in another order than on rank 0")


@dataclass(frozen=True, slots=True)
class Cost:
    """What a schedule costs, for a vector of so many elements."""

    rounds: int
    sent: tuple[int, ...]  # elements, by rank
    added: tuple[int, ...]  # elements that a rank adds to others, by rank
    fan_in: int  # most transfers that one rank receives in one round

    @property
    def sent_max(self) -> int:
        """Of the rank that sends most."""
        return max(self.sent)

    @property
    def sent_mean(self) -> float:
        """Over all ranks."""
        return sum(self.sent) / len(self.sent)


def count(schedule: Schedule, elements: int) -> Cost:
    """Rounds, elements sent and added, and fan-in."""
    starts = bounds(elements, schedule.chunks)
    sent, added = [0] * schedule.size, [0] * schedule.size
    fan_in = 0
    for transfers in schedule.rounds:
        into = [0] * schedule.size
        for t in transfers:
            sent[t.src] += starts[t.hi] - starts[t.lo]
            if t.action is Action.REDUCE or (t.action is Action.KEEP and not schedule.place):
                added[t.dst] += starts[t.hi] - starts[t.lo]
            into[t.dst] += 1
        fan_in = max(fan_in, *into)
    return Cost(len(schedule.rounds), tuple(sent), tuple(added), fan_in)
