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

A core without I/O: race.py runs it in virtual time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ddp.training.autograd import Array, Parameter
from ddp.training.errors import TrainingError
from ddp.training.optimizers import Optimizer


class StaleServer:
    """The parameters, and how far each worker is.

    Args:
        parameters: of the model; changed in place.
        bound: clocks that one may be ahead of the slowest; None: any.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        optimizer: Optimizer,
        workers: int,
        bound: int | None,
    ) -> None:
        if workers < 1 or (bound is not None and bound < 0):
            raise TrainingError(f"{workers} workers and a bound of {bound} make no server")
        self.parameters = list(parameters)
        self.optimizer = optimizer
        self.bound = bound
        self.clocks = [0] * workers
        self.version = 0  # updates applied
        self.staleness: list[int] = []  # of each push: updates between its read and itself
        self._read_at = [0] * workers
        self._waiting: dict[int, list[Array]] = {}  # bound 0: what has come of this clock

    def __repr__(self) -> str:
        bound = "none" if self.bound is None else self.bound
        return f"<StaleServer clocks={self.clocks} bound={bound} version={self.version}>"

    def blockers(self, worker: int) -> list[int]:
        """Those for whom `worker` has to wait before it reads; empty: it may."""
        if self.bound is None:
            return []
        least = self.clocks[worker] - self.bound
        return [other for other, clock in enumerate(self.clocks) if clock < least]

    def read(self, worker: int) -> list[Array]:
        """Copies of the parameters as they are; raises TrainingError if it has to wait."""
        if waits := self.blockers(worker):
            raise TrainingError(f"worker {worker} is too far ahead of {waits}")
        self._read_at[worker] = self.version
        return [np.array(parameter.data) for parameter in self.parameters]

    def push(self, worker: int, gradients: Sequence[Array]) -> None:
        """What `worker` computed from its last read; its clock goes up."""
        self.clocks[worker] += 1
        if self.bound == 0:
            self._waiting[worker] = list(gradients)
            if len(self._waiting) == len(self.clocks):
                parts = [self._waiting[rank] for rank in range(len(self.clocks))]
                self._waiting = {}
                self.staleness += [self.version - read for read in self._read_at]
                self._apply([sum(same[1:], same[0]) for same in zip(*parts, strict=True)])
        else:
            self.staleness.append(self.version - self._read_at[worker])
            self._apply(gradients)
        self.check()

    def _apply(self, gradients: Sequence[Array]) -> None:
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step(self.parameters)
        self.version += 1

    def check(self) -> None:
        """Nobody is further ahead than the bound, and the push that he read for, allow."""
        ahead = max(self.clocks) - min(self.clocks)
        if self.bound is not None and ahead > self.bound + 1:
            raise AssertionError(f"{self!r}: {ahead} clocks apart")
