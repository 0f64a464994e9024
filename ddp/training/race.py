"""Workers of different speed against one stale server, in virtual time, on real data.

The gradients are real; only the time that computing one takes is said instead of spent, so that a
straggler of factor five is one, on any machine, and the same seed gives the same run.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ddp.training.autograd import Array, Tensor
from ddp.training.data import Dataset
from ddp.training.functional import cross_entropy
from ddp.training.models import Spec, accuracy, build
from ddp.training.optimizers import Optimizer, Sgd
from ddp.training.order import DataOrder
from ddp.training.stale import Share, StaleServer, Worker

# A gradient takes this much longer or shorter, at random: no machine is exact.
JITTER = 0.1


@dataclass(slots=True)
class Outcome:
    """What a race gave."""

    bound: int | None
    seconds: float = 0.0  # virtual, until the last push
    losses: list[tuple[float, float]] = field(default_factory=list)  # (time, loss) a push
    waited_s: dict[tuple[Worker, Worker], float] = field(default_factory=dict)  # (who, for whom)
    staleness: Counter[int] = field(default_factory=Counter)
    accuracy: float = 0.0
    pushes: list[int] = field(default_factory=list)  # of each worker

    @property
    def rate(self) -> float:
        """Gradients a virtual second."""
        return sum(self.pushes) / self.seconds


class Race:
    """See above.

    Args:
        slowness: of each worker: what one gradient takes it, in virtual seconds.
        batch: samples of all workers together at one clock.
    """

    def __init__(
        self,
        spec: Spec,
        data: Dataset,
        optimizer: Optimizer,
        *,
        slowness: Sequence[float],
        bound: int | None,
        batch: int,
        seed: int = 0,
    ) -> None:
        self.data, self.slowness = data, slowness
        self.model = build(spec)
        self.parameters = list(self.model.parameters())
        self.server = StaleServer(self.parameters, optimizer, range(len(slowness)), bound)
        self.order = DataOrder(seed, len(data.train_x), batch)
        self.outcome = Outcome(bound)
        self._dice = random.Random(seed)
        self._ends: list[tuple[float, int]] = []  # when who will have its gradient
        self._has: dict[int, Share] = {}  # what each computes from

    def run(self, pushes: int) -> Outcome:
        """Until `pushes` gradients have been pushed in all."""
        now = 0.0
        for worker in range(len(self.slowness)):
            self.server.ask(worker, now)
        self._begin(now)
        for _ in range(pushes):
            now, worker = heapq.heappop(self._ends)
            loss, gradients = self._gradient(worker)
            self.server.push(worker, self._has[worker].ticket, gradients)
            self.outcome.losses.append((now, loss))
            self.server.ask(worker, now)
            self._begin(now)
        self.outcome.seconds = now
        self.outcome.waited_s = self.server.waited_s
        self.outcome.staleness = self.server.staleness
        self.outcome.pushes = list(self.server.clocks.values())
        self.outcome.accuracy = accuracy(self.model, self.data.test_x, self.data.test_y)
        return self.outcome

    def _begin(self, now: float) -> None:
        """Whoever may read, reads."""
        for worker in self.server.take_ready(now):
            assert isinstance(worker, int)
            self._has[worker] = self.server.read(worker)
            takes = self.slowness[worker] * self._dice.uniform(1 - JITTER, 1 + JITTER)
            heapq.heappush(self._ends, (now + takes, worker))

    def _gradient(self, worker: int) -> tuple[float, list[Array]]:
        """Of this worker's part of the batch at its clock, at the parameters that it read."""
        share = self._has[worker]
        rows = self.order.part(share.clock, share.rank, share.size)
        current = [parameter.data for parameter in self.parameters]
        for parameter, read in zip(self.parameters, share.parameters, strict=True):
            parameter.data = read
        logits = self.model(Tensor(self.data.train_x[rows]))
        loss = cross_entropy(logits, self.data.train_y[rows], self.order.batch)
        loss.backward()
        gradients = []
        for parameter, data in zip(self.parameters, current, strict=True):
            assert parameter.grad is not None
            gradients.append(np.array(parameter.grad))
            parameter.data, parameter.grad = data, None
        return float(loss.data) * len(self.slowness), gradients


# What is compared: synchronous, a little ahead, much, and without end.
BOUNDS = (0, 1, 2, 4, 8, 16, None)
RATE = 0.05
BATCH = 64


def compare_bounds(
    data: Dataset, pushes: int, slowest: float, seeds: int, say: Callable[..., None]
) -> None:
    """The same work under each bound: four workers, one of them `slowest` times as slow.

    Momentum is on: it is what suffers from stale gradients first (an old gradient, taken again and
    again, is momentum of its own; Mitliagkas et al. 2016).
    """
    spec = Spec("mlp", data.train_x.shape[1], data.classes, width=32, depth=1)
    slowness = [1.0, 1.0, 1.0, slowest]
    for bound in BOUNDS:
        for seed in range(seeds):
            optimizer = Sgd(RATE, momentum=0.9)
            race = Race(
                spec, data, optimizer, slowness=slowness, bound=bound, batch=BATCH, seed=seed
            )
            found = race.run(pushes)
            waits = [
                [who, whom, round(seconds, 3)] for (who, whom), seconds in found.waited_s.items()
            ]
            say(
                "race",
                bound=bound,
                seed=seed,
                accuracy=found.accuracy,
                rate=found.rate,
                stalest=max(found.staleness),
                pushes=found.pushes,
                waits=sorted(waits),
            )
