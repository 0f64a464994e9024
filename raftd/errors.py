"""How the consensus core says no.

RaftError
├── NotLeader           this node cannot take the request; `leader` may
├── Overloaded          too much waits for a majority; nothing of the request was taken
└── InvalidChange       the membership change makes no sense, or not now

InvariantViolated       a property of the paper's figure 3 does not hold: a bug, told with its story
"""

from __future__ import annotations


class RaftError(Exception):
    """Base of what a caller may meet. Each is definite: nothing happened."""


class NotLeader(RaftError):
    """This node cannot take the request; `leader` may."""

    def __init__(self, leader: str | None) -> None:
        super().__init__(f"not the leader; it is {leader or 'not known'}")
        self.leader = leader


class Overloaded(RaftError):
    """Too much waits for a majority; nothing of the request was taken."""


class InvalidChange(RaftError):
    """The membership change makes no sense, or not now; the message says why."""


class InvariantViolated(AssertionError):
    """A property of figure 3 does not hold. The text tells the last steps."""
