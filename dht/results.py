"""What a client of the ring gets back, and how it can go wrong.

DhtError
├── Refused            the ring said no; nothing changed
│   ├── Conflict       the key has another version than was expected
│   └── Full           a quota or a disk
├── NotReached         nobody who could do it was reached in time; nothing changed
│   └── Unsure         the key was not found, but not all who may hold it could be asked
├── OutcomeUnknown     a write that may or may not have been applied, or may not survive
└── Damaged            a large value of which a part is missing or wrong
"""

from __future__ import annotations

from dataclasses import dataclass

from dht.chord.ring import Contact


class DhtError(Exception):
    """Base of all."""


class Refused(DhtError):
    """The ring said no; nothing changed."""


class Conflict(Refused):
    """Compare-and-swap: the key has version `version`."""

    def __init__(self, message: str, version: int) -> None:
        super().__init__(message)
        self.version = version


class Full(Refused):
    """No room at the owner."""


class NotReached(DhtError):
    """Nobody who could do it was reached in time; nothing changed."""


class Unsure(NotReached):
    """Not found, but not all who may hold the key could be asked."""


class OutcomeUnknown(DhtError):
    """The write may or may not have been applied, or may not survive."""


class Damaged(DhtError):
    """A part of a large value is missing or wrong."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A write that was acknowledged."""

    version: int
    acks: tuple[str, ...]  # the processes that hold it, the owner first
    owner: Contact


@dataclass(frozen=True, slots=True)
class Found:
    """A key that is there."""

    value: bytes
    version: int
    owner: Contact
    sure: bool  # False: not all replicas could be asked; a newer version may exist


@dataclass(frozen=True, slots=True)
class Path:
    """A look-up: who owns it, and how that was found out."""

    target: int
    owner: Contact
    hops: tuple[Contact, ...]  # who was asked and answered, in order; the owner last
    timeouts: tuple[Contact, ...]  # who did not answer
    seconds: float


@dataclass(frozen=True, slots=True)
class NodeView:
    """One identifier, as its process sees it."""

    contact: Contact
    state: str
    pred: Contact | None
    succ: tuple[Contact, ...]
    fingers: int
    keys: int
    settled: bool
    serving: bool


@dataclass(frozen=True, slots=True)
class KeyView:
    """One record that a process holds."""

    key: bytes
    version: int
    size: int
    holder: str
    owned: bool
