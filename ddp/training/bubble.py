"""The bubble of a pipeline, measured: stages that sleep for as long as they would compute.

Two cores cannot show what four stages that compute would do; stages that sleep can. They are real
ranks, and wait for one another as real ones do.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from ddp.group import Group
from ddp.local import run_local
from ddp.training.autograd import Array
from ddp.training.pipeline import run_stage
from ddp.training.schedule import SCHEDULES, check


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run, and what theory says of it."""

    schedule: str
    stages: int
    micros: int
    total_s: float
    ideal_s: float  # if nobody ever waited
    held: int  # activations that the first stage held at the most
    picture: list[str]  # what each stage does when, in units of one action

    @property
    def bubble(self) -> float:
        """Idle over ideal time, as measured."""
        return (self.total_s - self.ideal_s) / self.ideal_s

    @property
    def expected(self) -> float:
        """(p − 1)/m."""
        return (self.stages - 1) / self.micros


class _Sleeper:
    """A stage that takes its time."""

    def __init__(self, forward_s: float, backward_s: float) -> None:
        self.forward_s, self.backward_s = forward_s, backward_s

    def room(self, micro: int) -> Array:
        """See StageWork."""
        return np.empty(1)

    def forward(self, micro: int, x: Array | None) -> Array:
        """See StageWork."""
        time.sleep(self.forward_s)
        return np.zeros(1)

    def backward(self, micro: int, gradient: Array | None) -> Array | None:
        """See StageWork."""
        time.sleep(self.backward_s)
        return np.zeros(1)


def measure(
    schedule: str, *, stages: int, micros: int, forward_s: float, backward_s: float
) -> Measurement:
    """Run one batch through `stages` ranks that sleep; from the first action to the last's end."""
    whole = SCHEDULES[schedule](stages, micros)
    proof = check(whole, micros)

    def rank(group: Group) -> tuple[float, float]:
        group.barrier()
        began = time.monotonic()
        run_stage(whole[group.rank], _Sleeper(forward_s, backward_s), group)
        return began, time.monotonic()

    times = run_local(stages, rank)
    total = max(end for _, end in times) - min(begin for begin, _ in times)
    ideal = micros * (forward_s + backward_s)
    return Measurement(schedule, stages, micros, total, ideal, proof.held[0], proof.draw(1.0))
