"""A whole training run: each rank a process, in any mixture of parallelism; what it says meanwhile.

    for event in train({"model": "mlp", "data": "digits", "steps": 200}, "dp=2,pp=2"):
        …{"kind": "step", "step": 0, "loss": 2.3}, … accuracy, …, finished

The ranks are started by launch.py and meet as a Group: over shared memory on one host. `train_rank`
is what each of them does, and runs on any Group.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from math import isfinite
from typing import Any, Final

from ddp.group import Group
from ddp.launch import Launch, LaunchFailed
from ddp.training.counting import counting, rule
from ddp.training.errors import TrainingError
from ddp.training.grid import Grid
from ddp.training.job import ASKED_MAX, Job
from ddp.training.models import build
from ddp.training.schedule import SCHEDULES
from ddp.training.trainer import Trainer

# How often in a run the accuracy is asked for.
ASKS: Final = 10

# A rank waits so long for another that computes: the slowest stage, on a machine with other work.
TIMEOUT_S: Final = 120.0

Event = dict[str, Any]


def train(
    job: dict[str, Any],
    parallel: str,
    *,
    micros: int = 1,
    schedule: str = "1f1b",
    transport: str = "auto",
) -> Iterator[Event]:
    """Train; yields each step's loss, now and then the accuracy, and at last what was counted.

    Args:
        job: the fields of a Job.
        parallel: `dp=2,pp=2,tp=2`.
        transport: as of Launch.

    Raises TrainingError for what makes no sense, LaunchFailed if a rank dies.
    """
    Job(**job)
    if schedule not in SCHEDULES:
        known = ", ".join(SCHEDULES)
        raise TrainingError(f"there is no schedule {schedule!r}; there are: {known}")
    grid = Grid.parse(parallel)
    arguments = {"job": job, "parallel": parallel, "micros": micros, "schedule": schedule}
    target = f"{__name__}:{train_rank.__name__}"
    with Launch(
        grid.size, target, arguments, transport=transport, timeout_s=TIMEOUT_S, quiet=True
    ) as launch:
        for _, event in launch.events():
            yield event
        try:
            results = launch.results()
        except LaunchFailed as failed:
            if failed.kind == TrainingError.__name__:
                raise TrainingError(failed.text) from None
            raise
    sums = {name: sum(result[name] for result in results) for name in ("flop", "sent_bytes")}
    yield {
        "kind": "finished",
        "steps": results[0]["steps"],
        "fabric": results[0]["fabric"],
        "parameters": results[0]["parameters"],
        "flop_per_step": sums["flop"],
        "rule_per_step": results[0]["rule"],
        "sent_bytes": sums["sent_bytes"],
    }


def train_rank(
    world: Group, job: dict[str, Any], parallel: str, micros: int, schedule: str
) -> Generator[Event, None, dict[str, Any]]:
    """What one rank does; the first yields what there is to say, and each returns its counts."""
    task, grid = Job(**job), Grid.parse(parallel)
    data = task.dataset()
    spec, order = task.spec(data), task.order(data)
    test_x, test_y = data.test_x[:ASKED_MAX], data.test_y[:ASKED_MAX]
    every = max(1, task.steps // ASKS)
    optimizer = task.make_optimizer()
    trainer = Trainer(spec, grid, world, optimizer, micros=micros, schedule=schedule)
    flop = 0
    for step in range(task.steps):
        rows = order.rows(step)
        with counting() as work:
            loss = trainer.step(data.train_x[rows], data.train_y[rows])
        flop = flop or work.flop
        if not isfinite(loss):
            raise TrainingError(f"the loss of step {step} is {loss}; try a lower --rate")
        if world.rank == 0:
            yield {"kind": "step", "step": step, "loss": loss}
        if (step + 1) % every == 0 or step + 1 == task.steps:
            accuracy = trainer.accuracy(test_x, test_y)
            if world.rank == 0:
                yield {"kind": "accuracy", "step": step + 1, "accuracy": accuracy}
    parameters = build(spec).size
    return {
        "steps": task.steps,
        "fabric": world.fabric.name,
        "flop": flop,
        "parameters": parameters,
        "rule": rule(parameters, task.batch * data.train_y[0].size),
        "sent_bytes": trainer.sent_bytes,
    }
