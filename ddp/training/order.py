"""Which samples a step is made of, and who computes which: a function, not a state.

    rows = f(seed, step)        every rank can compute it, at any time, without having seen the rest
    part = g(rows, members)     contiguous, in the order of the members, sizes differ by one at most

So nothing about the data has to be saved: who comes back at step 4,711, or replaces another, knows
what is next from the committed step alone, and no sample of an epoch is lost or taken twice,
whoever died. The whole batch does not depend on who is there; only its division does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ddp.training.autograd import Array


@dataclass(frozen=True, slots=True)
class DataOrder:
    """Shuffled passes over `samples`, cut into batches of `batch`; the rest of a pass is left out.

    seed: of the shuffles; pass p has the shuffle of (seed, p).
    """

    seed: int
    samples: int
    batch: int

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= self.samples:
            raise ValueError(f"a batch is between 1 and {self.samples} samples, not {self.batch}")

    @property
    def steps_per_pass(self) -> int:
        """Whole batches in one pass."""
        return self.samples // self.batch

    def rows(self, step: int) -> Array:
        """Indices of the samples of a step, from 0 on."""
        number, within = divmod(step, self.steps_per_pass)
        shuffled = np.random.default_rng([self.seed, number]).permutation(self.samples)
        return shuffled[within * self.batch : (within + 1) * self.batch]

    def part(self, step: int, rank: int, size: int) -> Array:
        """Those of them that rank `rank` of `size` computes."""
        return np.array_split(self.rows(step), size)[rank]
