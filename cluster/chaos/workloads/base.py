"""What all workloads have in common."""

from __future__ import annotations

import random
from typing import ClassVar, Protocol

from cluster.chaos.worker import Worker


class Workload(Protocol):
    """One kind of load, and the model by which its history is judged.

    Its objects are shared by all workers of a run.
    """

    model: ClassVar[str]

    async def prepare(self, worker: Worker) -> None:
        """Before everything, with all well: what must be there. May be tried again."""

    async def turn(self, worker: Worker) -> None:
        """One step of a worker: an operation or two."""

    async def final(self, worker: Worker) -> bool:
        """After everything, with all well: read what is left. False: try again."""


class Plain:
    """Needs no preparation, and no last look."""

    async def prepare(self, worker: Worker) -> None:
        """See Workload."""

    async def final(self, worker: Worker) -> bool:
        """See Workload."""
        return True


class Keys:
    """A few keys at a time, each for a bounded number of operations.

    Judging a key costs more than in proportion to its history, so many short ones are better than
    a long one; and how many operations each gets differs, so that they do not change together.

    Args:
        prefix: of their names.
        at_once: how many are in use.
        operations: of each, about.
    """

    def __init__(
        self, prefix: str, rng: random.Random, at_once: int = 5, operations: int = 120
    ) -> None:
        self._prefix = prefix
        self._rng = rng
        self._operations = operations
        self._begun = 0
        self._open = [self._new() for _ in range(at_once)]

    def _new(self) -> list[int]:
        self._begun += 1
        return [self._begun, int(self._operations * self._rng.uniform(0.8, 1.2))]

    def draw(self) -> str:
        """The key of the next operation."""
        place = self._rng.randrange(len(self._open))
        entry = self._open[place]
        entry[1] -= 1
        if not entry[1]:
            self._open[place] = self._new()
        return f"{self._prefix}{entry[0]}"

    def all(self) -> list[str]:
        """Those in use now."""
        return [f"{self._prefix}{number}" for number, _ in self._open]
