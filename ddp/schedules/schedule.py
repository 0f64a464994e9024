"""A collective as pure data: who sends which chunk to whom in which round, and what becomes of it.

A vector is cut into `chunks` parts whose lengths differ by one element at most (some may be empty).
In a round every rank first sends what it has *before* the round, then takes what it is sent, in
the order in which the transfers are listed. So there is one order of additions, whatever arrives
first, and the result is the same bits from run to run. Rounds are not barriers: a rank goes on to
its next round as soon as it has taken all of this one.

    REDUCE   mine = mine ⊕ theirs      (the lower rank on the left)
    COPY     mine = theirs
    KEEP     put it aside under the sender's rank, until the rank folds or places what it has:
             fold    mine = c0 ⊕ c1 ⊕ … in the order of ranks
             place   chunk r = what rank r sent me

What executes a schedule is elsewhere (execution.py), and so is what proves it (checker.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple


class Action(IntEnum):
    """What the receiver does with a transfer."""

    REDUCE = 0
    COPY = 1
    KEEP = 2


class Transfer(NamedTuple):
    """Chunks [lo, hi) of `src` go to `dst`."""

    src: int
    dst: int
    lo: int
    hi: int
    action: Action


Round = tuple[Transfer, ...]

Key = tuple[int, int, int]  # round, the other rank, lo: one transfer of a rank


class Turn(NamedTuple):
    """One round as one rank sees it; rounds without it are left out."""

    round: int
    sends: tuple[Transfer, ...]
    receives: tuple[Transfer, ...]
    fold: bool  # what was kept, once all is received


@dataclass(frozen=True)
class Schedule:
    """The plan of one collective for `size` ranks.

    fold_after: the round after which what was kept is folded; None: never.
    place: whether what was kept is placed at the end.
    silent: ranks that contribute nothing (a dedicated server).
    """

    name: str
    size: int
    chunks: int
    rounds: tuple[Round, ...]
    fold_after: int | None = None
    place: bool = False
    silent: frozenset[int] = frozenset()
    _programs: dict[int, tuple[Turn, ...]] = field(
        default_factory=dict, repr=False, compare=False, hash=False
    )
    _lasting: dict[tuple[int, bool], frozenset[Key]] = field(
        default_factory=dict, repr=False, compare=False, hash=False
    )

    def __repr__(self) -> str:
        return (
            f"<Schedule {self.name} size={self.size} rounds={len(self.rounds)} "
            f"transfers={sum(map(len, self.rounds))}>"
        )

    @property
    def contributors(self) -> list[int]:
        """Ranks whose vectors are in the result, in order."""
        return [rank for rank in range(self.size) if rank not in self.silent]

    def program(self, rank: int) -> tuple[Turn, ...]:
        """The turns of one rank."""
        if not self._programs:
            self._programs.update(self._split())
        return self._programs[rank]

    def lasting(self, rank: int, *, rewritten: bool = False) -> frozenset[Key]:
        """Sends of `rank`, by (round, dst, lo), that need no copy of what they send.

        What is overwritten here later is overwritten by something that could not be, or could not
        have come, before the receiver had taken the old. rewritten: all is, at the end (a mean).
        """
        key = (rank, rewritten or self.place)
        if key not in self._lasting:
            self._lasting[key] = frozenset(
                (number, t.dst, t.lo)
                for number, transfers in enumerate(self.rounds)
                for t in transfers
                if t.src == rank and self._lasts(number, t, at_the_end=key[1])
            )
        return self._lasting[key]

    def _lasts(self, number: int, sent: Transfer, *, at_the_end: bool) -> bool:
        """Follow who can know by when that `sent` was taken, and look who overwrites it."""
        rank, folds = sent.src, {turn.round for turn in self.program(sent.src) if turn.fold}
        knows: set[int] = set()
        for later, transfers in enumerate(self.rounds[number:], number):
            into = [t for t in transfers if t.dst == rank and t.lo < sent.hi and sent.lo < t.hi]
            if any(t.src not in knows for t in into if t.action is not Action.KEEP):
                return False
            knows |= {t.dst for t in transfers if t.src in knows}
            if later == number:
                knows.add(sent.dst)
            if later in folds and rank not in knows and self._folds(rank, sent):
                return False
            if len(knows) == self.size:
                return True
        return rank in knows or not at_the_end

    def _folds(self, rank: int, sent: Transfer) -> bool:
        """Whether `rank` folds any of these chunks."""
        return any(
            t.dst == rank and t.action is Action.KEEP and t.lo < sent.hi and sent.lo < t.hi
            for transfers in self.rounds
            for t in transfers
        )

    def _split(self) -> dict[int, tuple[Turn, ...]]:
        turns: dict[int, list[Turn]] = {rank: [] for rank in range(self.size)}
        for number, transfers in enumerate(self.rounds):
            sends: dict[int, list[Transfer]] = {}
            receives: dict[int, list[Transfer]] = {}
            for transfer in transfers:
                sends.setdefault(transfer.src, []).append(transfer)
                receives.setdefault(transfer.dst, []).append(transfer)
            for rank in sorted(sends.keys() | receives.keys()):
                out, into = tuple(sends.get(rank, ())), tuple(receives.get(rank, ()))
                turns[rank].append(Turn(number, out, into, False))
        if self.fold_after is not None:
            for program in turns.values():
                self._mark_fold(program, self.fold_after)
        return {rank: tuple(program) for rank, program in turns.items()}

    @staticmethod
    def _mark_fold(program: list[Turn], after: int) -> None:
        """A rank folds at the last turn it has until then: all is received, its own all sent."""
        until = [i for i, turn in enumerate(program) if turn.round <= after]
        if until:
            program[until[-1]] = program[until[-1]]._replace(fold=True)


def bounds(count: int, chunks: int) -> list[int]:
    """Where chunks begin: chunk c is [bounds[c], bounds[c + 1])."""
    return [count * chunk // chunks for chunk in range(chunks + 1)]


def side_by_side(*schedules: Sequence[Iterable[Transfer]]) -> tuple[Round, ...]:
    """Lists of rounds that run at the same time."""
    longest = max((len(rounds) for rounds in schedules), default=0)
    return tuple(
        tuple(t for rounds in schedules if number < len(rounds) for t in rounds[number])
        for number in range(longest)
    )
