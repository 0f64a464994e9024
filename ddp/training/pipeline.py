"""One stage of a pipeline at work: it follows its line of the schedule, whatever that says.

    forward    take the micro-batch from the stage before, hand the result to the stage after
    backward   take its gradient from the stage after, hand ours to the stage before

Nothing is ever decided here: schedule.py has proved that it ends. Sends do not wait for their
receivers; two neighbours may be about to send to one another, and would wait for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ddp.training.autograd import Array
from ddp.training.schedule import FORWARD, Action

if TYPE_CHECKING:
    from ddp.group import Group
    from ddp.work import Work


class StageWork(Protocol):
    """What a stage does with a micro-batch."""

    def room(self, micro: int) -> Array:
        """An array of the size and type of what the stage before hands over."""

    def forward(self, micro: int, x: Array | None) -> Array:
        """x: from the stage before; None: this is the first. What the last returns goes nowhere."""

    def backward(self, micro: int, gradient: Array | None) -> Array | None:
        """gradient: from the stage after; None: this is the last. Returns that of x."""


def run_stage(actions: Sequence[Action], work: StageWork, group: Group) -> None:
    """Do all actions of this rank's stage; ranks of `group` are the stages, in order."""
    first, last = group.rank == 0, group.rank == group.size - 1
    sent: list[Work] = []
    made: dict[int, Array] = {}  # of its size is the gradient that comes for it
    for action in actions:
        if action.kind == FORWARD:
            x = None if first else group.recv(work.room(action.micro), group.rank - 1)
            y = work.forward(action.micro, x)
            if not last:
                sent.append(group.start_send(y, group.rank + 1))
                made[action.micro] = y
        else:
            gradient = None
            if not last:
                gradient = group.recv(np.empty_like(made.pop(action.micro)), group.rank + 1)
            dx = work.backward(action.micro, gradient)
            if not first:
                assert dx is not None
                sent.append(group.start_send(dx, group.rank - 1))
    for sending in sent:
        sending.wait()
