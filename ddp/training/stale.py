"""A parameter server whose workers may run ahead of one another, but only so far.

    clock of     w0 ████████ 8        bound 3: w0 may not read at clock 8 while w2 is at 4;
                 w1 ███████  7        it waits for w2
                 w2 ████     4

Each worker reads the parameters, computes a gradient, pushes it, and its clock goes up by one. A
worker may read at clock c if nobody's clock is below c − bound (stale synchronous parallel, Ho et
al. 2013): whoever reads then has every update that is older than that.

    bound 0      synchronous: gradients of one clock are added in the order of ranks, and applied as
                 one; the same numbers as data parallel training, bit for bit
    bound s > 0  a gradient is applied when it comes; it was computed from parameters that others
                 have changed since, and that is what costs accuracy
    None         no bound: nobody ever waits

A read deals out a share: which part of which clock's batch, and a ticket. A push counts once, and
only with the ticket of its worker's last read. When workers come or go the batch is divided anew,
and all tickets end: what is under way was computed for the old division, and is done again. So
with bound 0 each step is one whole batch, whoever dies. A newcomer begins at the slowest's clock.

A step is a batch's worth of gradients, whoever pushed them: as many as there are workers.

A core without I/O: race.py runs it in virtual time, pushing.py with real processes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final, TypeAlias

import numpy as np

from ddp.training.autograd import Array, Parameter
from ddp.training.errors import TrainingError
from ddp.training.optimizers import Optimizer

Worker: TypeAlias = Hashable

# How a person writes that there is no bound.
NO_BOUND: Final = "inf"


def parse_bound(text: str) -> int | None:
    """`3`, or `inf`; raises TrainingError."""
    if text == NO_BOUND:
        return None
    if not text.isdecimal():
        raise TrainingError(f"a staleness is 0, 1, 2, … or {NO_BOUND}, not {text!r}")
    return int(text)


@dataclass(frozen=True, slots=True)
class Share:
    """What one worker is to compute: part `rank` of `size` of a clock's batch, from these.

    version: updates that the parameters have had.
    """

    ticket: int
    clock: int
    rank: int
    size: int
    version: int
    parameters: list[Array] = field(repr=False)


class StaleServer:
    """The parameters, and how far each worker is.

    Args:
        parameters: of the model; changed in place.
        workers: in the order of their ranks.
        bound: clocks that one may be ahead of the slowest; None: any.
        step: those that the parameters have had already.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        optimizer: Optimizer,
        workers: Iterable[Worker],
        bound: int | None,
        *,
        step: int = 0,
    ) -> None:
        if bound is not None and bound < 0:
            raise TrainingError(f"a bound of {bound} lets nobody read")
        self.parameters = list(parameters)
        self.optimizer = optimizer
        self.bound = bound
        self.clocks: dict[Worker, int] = {}  # in the order of ranks
        self.version = 0  # updates applied
        self.staleness: Counter[int] = Counter()  # updates between a push and its read: how often
        self.waited_s: dict[tuple[Worker, Worker], float] = {}  # (who, for whom)
        self._done = Fraction(step)
        self._loss, self._worth = 0.0, Fraction(0)  # of what was applied since the last whole step
        self._steps: list[tuple[int, float]] = []
        self._asked: dict[Worker, tuple[float, Worker | None]] = {}  # since when; for whom it waits
        self._shares: dict[Worker, Share] = {}  # read, and not yet pushed
        self._tickets = 0
        self._waiting: dict[Worker, tuple[list[Array], float]] = {}  # bound 0: come of this clock
        self.change(workers)

    def __repr__(self) -> str:
        bound = "none" if self.bound is None else self.bound
        clocks = list(self.clocks.values())
        return f"<StaleServer clocks={clocks} bound={bound} version={self.version}>"

    @property
    def step(self) -> int:
        """Whole steps done."""
        return int(self._done)

    def take_steps(self) -> list[tuple[int, float]]:
        """(step, loss) of those that have become whole."""
        steps, self._steps = self._steps, []
        return steps

    # -- who

    def change(self, workers: Iterable[Worker]) -> None:
        """From now on it is these, in the order of their ranks; the same ones are no change."""
        after = list(workers)
        if after == list(self.clocks):
            return
        for worker in self._waiting:
            self.clocks[worker] -= 1  # its part of this clock is done again, of another division
        self._waiting.clear()
        self._shares.clear()
        stay = [clock for worker, clock in self.clocks.items() if worker in after]
        slowest = min(stay, default=self.step)
        self.clocks = {worker: self.clocks.get(worker, slowest) for worker in after}
        self._asked = {w: asked for w, asked in self._asked.items() if w in self.clocks}

    def blockers(self, worker: Worker) -> list[Worker]:
        """Those for whom `worker` has to wait before it reads; empty: it may."""
        if self.bound is None:
            return []
        least = self.clocks[worker] - self.bound
        return [other for other, clock in self.clocks.items() if clock < least]

    # -- reads

    def ask(self, worker: Worker, now: float) -> None:
        """It wants to read; raises TrainingError if it is none of the workers."""
        self._check_member(worker)
        self._asked.setdefault(worker, (now, None))

    def take_ready(self, now: float) -> list[Worker]:
        """Those of them that may read now. The time that one waited is charged to the slowest."""
        ready = []
        for worker in self.clocks:
            if worker not in self._asked:
                continue
            since, culprit = self._asked[worker]
            if culprit is not None:
                known = self.waited_s.get((worker, culprit), 0.0)
                self.waited_s[worker, culprit] = known + now - since
            if waits := self.blockers(worker):
                self._asked[worker] = now, min(waits, key=self.clocks.__getitem__)
            else:
                del self._asked[worker]
                ready.append(worker)
        return ready

    def read(self, worker: Worker) -> Share:
        """Copies of the parameters as they are; raises TrainingError if it has to wait."""
        self._check_member(worker)
        if waits := self.blockers(worker):
            raise TrainingError(f"worker {worker} is too far ahead of {waits}")
        self._tickets += 1
        rank = list(self.clocks).index(worker)
        copies = [np.array(parameter.data) for parameter in self.parameters]
        share = Share(
            self._tickets, self.clocks[worker], rank, len(self.clocks), self.version, copies
        )
        self._shares[worker] = share
        return share

    def _check_member(self, worker: Worker) -> None:
        if worker not in self.clocks:
            raise TrainingError(f"{worker} is none of the workers: {list(self.clocks)}")

    # -- pushes

    def push(
        self, worker: Worker, ticket: int, gradients: Sequence[Array], loss: float = 0.0
    ) -> bool:
        """What `worker` computed from that read; its clock goes up. False: the read has ended."""
        share = self._shares.get(worker)
        if share is None or share.ticket != ticket:
            return False
        del self._shares[worker]
        self.clocks[worker] += 1
        self.staleness[self.version - share.version] += 1
        if self.bound == 0:
            self._waiting[worker] = list(gradients), loss
            if len(self._waiting) == len(self.clocks):
                self._apply_all()
        else:
            self._apply(gradients, loss, Fraction(1, share.size))
        self.check()
        return True

    def _apply_all(self) -> None:
        """Of one clock, all that there is."""
        parts = [self._waiting[worker] for worker in self.clocks]
        self._waiting = {}
        totals = [sum(same[1:], same[0]) for same in zip(*(p for p, _ in parts), strict=True)]
        self._apply(totals, sum(loss for _, loss in parts), Fraction(1))

    def _apply(self, gradients: Sequence[Array], loss: float, worth: Fraction) -> None:
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step(self.parameters)
        self.version += 1
        step = self.step
        self._done += worth
        self._loss, self._worth = self._loss + loss, self._worth + worth
        if self.step > step:
            self._steps.append((step, self._loss / float(self._worth)))
            self._loss, self._worth = 0.0, Fraction(0)

    def check(self) -> None:
        """Nobody is further ahead than the bound, and the push that he read for, allow."""
        ahead = max(self.clocks.values()) - min(self.clocks.values())
        if self.bound is not None and ahead > self.bound + 1:
            raise AssertionError(f"{self!r}: {ahead} clocks apart")
