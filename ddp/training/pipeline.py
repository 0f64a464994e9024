"""One stage of a pipeline at work: it follows its line of the schedule, whatever that says.

    forward    take the micro-batch from the stage before, hand the result to the stage after
    backward   take its gradient from the stage after, hand ours to the stage before

Nothing is ever decided here: schedule.py has proved that it ends. Sends do not wait for their
receivers; two neighbours may be about to send to one another, and would wait for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ddp.training.autograd import Array
from ddp.training.collectives import Collectives, Pending
from ddp.training.schedule import FORWARD, Action


class StageWork(Protocol):
    """What a stage does with a micro-batch."""

    def forward(self, micro: int, x: Array | None) -> Array:
        """x: from the stage before; None: this is the first. What the last returns goes nowhere."""

    def backward(self, micro: int, gradient: Array | None) -> Array | None:
        """gradient: from the stage after; None: this is the last. Returns that of x."""


def run_stage(actions: Sequence[Action], work: StageWork, group: Collectives) -> None:
    """Do all actions of this rank's stage; ranks of `group` are the stages, in order."""
    first, last = group.rank == 0, group.rank == group.size - 1
    sent: list[Pending] = []
    for action in actions:
        if action.kind == FORWARD:
            x = None if first else group.recv(group.rank - 1)
            y = work.forward(action.micro, x)
            if not last:
                sent.append(group.send(y, group.rank + 1))
        else:
            gradient = None if last else group.recv(group.rank + 1)
            dx = work.backward(action.micro, gradient)
            if not first:
                assert dx is not None
                sent.append(group.send(dx, group.rank - 1))
    for pending in sent:
        pending.wait()
