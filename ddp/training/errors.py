"""What can go wrong with training.

DdpError
└── TrainingError                what was asked makes no sense, or cannot be done here
    ├── InvalidSchedule              a pipeline schedule breaks one of its rules; says where
    ├── BadCheckpoint                a checkpoint is damaged, or of another model
    └── PeerLost                 a RankLost that knows names, epoch, and what was under way

Calls of the group raise what a Group raises (ddp/errors.py).
"""

from __future__ import annotations

from ddp.errors import DdpError, RankLost


class TrainingError(DdpError):
    """Base of all; the message is for a person."""


class InvalidSchedule(TrainingError):
    """A pipeline schedule breaks one of its rules."""


class BadCheckpoint(TrainingError):
    """A checkpoint cannot be used."""


class PeerLost(TrainingError, RankLost):
    """A rank is gone. `names` are those that are to blame, as far as this rank knows."""

    def __init__(self, names: tuple[str, ...], epoch: int, during: str) -> None:
        who = ", ".join(names) or "a rank"
        super().__init__(f"{who} lost in epoch {epoch} during {during}")
        self.names = names
        self.epoch = epoch
