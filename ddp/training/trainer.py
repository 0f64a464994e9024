"""One rank of a training run: any mixture of data, pipeline and tensor parallelism.

    trainer = Trainer(spec, Grid(dp=2, pp=2, tp=2), world, Adam(), micros=4)
    loss = trainer.step(x, y)             on every rank, with the whole batch; it takes its part

A step: this replica's part of the batch is cut into micro-batches, the pipeline's schedule runs
over them, tensor ranks meet inside the layers, and the gradients of the last micro-batch's backward
start their sums over the replicas, bucket by bucket, while it still runs. Then each rank
changes its own parameters.

What it guarantees: the loss is that of the whole batch, divided however it is; float64 runs of
any grid follow the one-process run to 1e-10, since only the order of additions differs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ddp.group import Group
from ddp.local import alone
from ddp.schedules.catalogue import IN_RANK_ORDER
from ddp.training.autograd import Array, Parameter, Tensor
from ddp.training.buckets import BUCKET_BYTES, Buckets
from ddp.training.errors import TrainingError
from ddp.training.functional import cross_entropy
from ddp.training.grid import Grid
from ddp.training.layers import Making
from ddp.training.models import Chain, Spec, build
from ddp.training.optimizers import Optimizer
from ddp.training.pipeline import run_stage
from ddp.training.schedule import SCHEDULES, check


class Trainer:
    """See above.

    Args:
        world: all ranks; its rank is this one's place in the grid.
        micros: micro-batches of a replica's part of the batch.
        schedule: a name in SCHEDULES.
    """

    def __init__(
        self,
        spec: Spec,
        grid: Grid,
        world: Group,
        optimizer: Optimizer,
        *,
        micros: int = 1,
        schedule: str = "1f1b",
        bucket_bytes: int = BUCKET_BYTES,
    ) -> None:
        if world.size != grid.size:
            raise TrainingError(f"{grid} are {grid.size} ranks, not {world.size}")
        spec.check_split(grid.tp)
        self.spec = spec
        self.grid, self.world, self.optimizer, self.micros = grid, world, optimizer, micros
        self.place = grid.place(world.rank)
        self.data, self.stages, self.tensor = (
            world.split(grid.group(kind, world.rank)) for kind in ("dp", "pp", "tp")
        )
        make = Making(spec.seed, spec.dtype, self.tensor)
        self.model = build(spec, make, self.place.stage, grid.pp)
        self.parameters: list[Parameter] = list(self.model.parameters())
        whole = SCHEDULES[schedule](grid.pp, micros)
        check(whole, micros)
        self.actions = whole[self.place.stage]
        self.buckets = (
            Buckets(self.parameters, self.data, bucket_bytes) if self.data.size > 1 else None
        )
        self.last = self.place.stage == grid.pp - 1

    def __repr__(self) -> str:
        return f"<Trainer rank={self.world.rank} {self.grid} {self.model!r}>"

    def step(self, x: Array, y: Array) -> float:
        """Train on the batch (x, y), of which this rank takes its part; returns the loss of all."""
        if len(x) < self.grid.dp * self.micros:
            raise TrainingError(f"{len(x)} samples make no {self.grid.dp} x {self.micros} parts")
        part_x, part_y = (np.array_split(a, self.grid.dp)[self.place.data] for a in (x, y))
        work = self._work(part_x, part_y, y.size)
        run_stage(self.actions, work, self.stages)
        if self.buckets is not None:
            self.buckets.finish()
        self.optimizer.step(self.parameters)
        return self._everywhere(work.loss)

    def _work(self, x: Array, y: Array, count: int) -> _StageOfModel:
        last_backward = self.actions[-1].micro
        return _StageOfModel(
            self.spec,
            self.model,
            np.array_split(x, self.micros),
            np.array_split(y, self.micros) if self.last else None,
            count,
            lambda micro: self.buckets.arm() if self.buckets and micro == last_backward else None,
        )

    def _everywhere(self, value: float) -> float:
        """The sum over replicas of what the last stage knows, told to all stages."""
        number = np.array([value])
        for group in (self.data, self.stages):
            group.allreduce(number, algorithm=IN_RANK_ORDER)
        return float(number[0])

    @property
    def sent_bytes(self) -> int:
        """What this rank has sent to others of its replicas, stages and tensor ranks so far."""
        return sum(group.counters["sent_bytes"] for group in (self.data, self.stages, self.tensor))

    def accuracy(self, x: Array, y: Array) -> float:
        """The part of all labels that the best guess hits; every rank calls it and learns it."""
        part_x, part_y = (np.array_split(a, self.grid.dp)[self.place.data] for a in (x, y))
        inputs = part_x
        if self.place.stage > 0:
            inputs = self.stages.recv(self.spec.border(part_x), self.place.stage - 1)
        output = self.model(Tensor(inputs)).data
        if not self.last:
            self.stages.send(output, self.place.stage + 1)
        hits = float((output.argmax(axis=-1) == part_y).sum()) if self.last else 0.0
        return self._everywhere(hits) / y.size


class _StageOfModel:
    """The stage's work for one batch: forward keeps the graph, backward walks and drops it."""

    def __init__(
        self,
        spec: Spec,
        model: Chain,
        xs: list[Array],
        ys: list[Array] | None,
        count: int,
        before_backward: Callable[[int], None],
    ) -> None:
        self.spec, self.model = spec, model
        self.xs, self.ys, self.count = xs, ys, count
        self.before_backward = before_backward
        self.loss = 0.0
        self._open: dict[int, tuple[Tensor, Tensor]] = {}

    def room(self, micro: int) -> Array:
        """See StageWork."""
        return self.spec.border(self.xs[micro])

    def forward(self, micro: int, x: Array | None) -> Array:
        """See StageWork."""
        first = x is None
        inputs = Tensor(self.xs[micro] if x is None else x, needs_grad=not first)
        output = self.model(inputs)
        if self.ys is not None:
            output = cross_entropy(output, self.ys[micro], self.count)
            self.loss += float(output.data)
        self._open[micro] = inputs, output
        return output.data

    def backward(self, micro: int, gradient: Array | None) -> Array | None:
        """See StageWork."""
        self.before_backward(micro)
        inputs, output = self._open.pop(micro)
        output.backward(gradient)
        return inputs.grad


def train_alone(spec: Spec, optimizer: Optimizer, *, micros: int = 1) -> Trainer:
    """The same run in one process: what every division must equal."""
    return Trainer(spec, Grid(), alone(), optimizer, micros=micros)
