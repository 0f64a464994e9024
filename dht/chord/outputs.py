"""What a Chord node asks of others, what they answer, and what it tells its shell."""

from __future__ import annotations

from typing import Final, NamedTuple

from dht.chord.ring import Contact

# Questions. STATE and PING may change the asker's state by their answer; the others do not.
STATE: Final = "state"  # -> State | BUSY
PING: Final = "ping"  # -> True
NOTIFY: Final = "notify"  # (contact,) -> True if it is the predecessor now
STEP: Final = "step"  # (target, walk) -> Route
GONE: Final = "gone"  # (contact,) -> True: it leaves

BUSY: Final = "busy"
"""Alive, and in the middle of a step of its own (Zave 2017, the rule of shared state)."""


class State(NamedTuple):
    """What a member lets others see."""

    pred: Contact | None
    succ: tuple[Contact, ...]


class Ask(NamedTuple):
    """A question to another node; its answer comes back with the same token."""

    token: int
    to: Contact
    what: str
    body: tuple[object, ...] = ()


class Changed(NamedTuple):
    """Predecessor or successors are others now: ranges may have moved."""

    pred: Contact | None
    succ: tuple[Contact, ...]


Output = Ask | Changed
