"""A whole training run in one process, its ranks as threads, and what it says meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite

from ddp.training.collectives import Collectives
from ddp.training.counting import counting, rule
from ddp.training.errors import TrainingError
from ddp.training.grid import Grid
from ddp.training.job import ASKED_MAX, Job
from ddp.training.models import build
from ddp.training.threads import Hub, run_ranks
from ddp.training.trainer import Trainer

# How often in a run the accuracy is asked for.
ASKS = 10


def run(job: Job, grid: Grid, micros: int, schedule: str, say: Callable[..., None]) -> None:
    """Train; `say` is told of each step's loss, now and then of the accuracy, and of the end."""
    data = job.dataset()
    spec, order, hub = job.spec(data), job.order(data), Hub()
    test_x, test_y = data.test_x[:ASKED_MAX], data.test_y[:ASKED_MAX]
    every = max(1, job.steps // ASKS)

    def rank(world: Collectives) -> int:
        trainer = Trainer(spec, grid, world, job.make_optimizer(), micros=micros, schedule=schedule)
        with counting() as work:
            for step in range(job.steps):
                rows = order.rows(step)
                loss = trainer.step(data.train_x[rows], data.train_y[rows])
                if not isfinite(loss):
                    raise TrainingError(f"the loss of step {step} is {loss}; try a lower --rate")
                if world.rank == 0:
                    say("step", step=step, loss=loss)
                if step == 0:
                    flop = work.flop
                if (step + 1) % every == 0 or step + 1 == job.steps:
                    accuracy = trainer.accuracy(test_x, test_y)
                    if world.rank == 0:
                        say("accuracy", step=step + 1, accuracy=accuracy)
        return flop

    flop = sum(run_ranks(grid.size, rank, hub))
    places = data.train_y[0].size
    parameters = build(spec).size
    say(
        "finished",
        steps=job.steps,
        parameters=parameters,
        flop_per_step=flop,
        rule_per_step=rule(parameters, job.batch * places),
        sent_bytes=hub.wire_bytes,
    )
