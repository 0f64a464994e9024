"""Who belongs to the workers' group: a record in raftd, changed by compare-and-swap only.

    ddp/workers/alive/NAME    the card of a living worker, under a lease: it vanishes with its owner
    ddp/workers/record        epoch, and the members in the order of their ranks

Whoever sees that the living are others than the members writes the next record; of several who
do, one wins, and the others read what it wrote. The epoch goes up with each, and every frame
bears it: who slept through a change is fenced off. A member is a *life* of a worker, so one that
was restarted is another one.

Decisions only, without I/O; roster.py is what talks to raftd.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgpack

from ddp.card import Card
from ddp.errors import BadCall

# Beside `ddp/runs/`, where runs of training keep theirs (training/replicated.py): neither watches
# the other's.
PREFIX: Final = b"ddp/workers/"
ALIVE: Final = PREFIX + b"alive/"
RECORD: Final = PREFIX + b"record"


@dataclass(frozen=True, slots=True)
class Member:
    """One life of one worker."""

    life: str
    card: Card

    @property
    def name(self) -> str:
        """The worker's."""
        return self.card.name

    def encode(self) -> bytes:
        """For raftd."""
        return bytes(msgpack.packb([self.life, self.card.to_wire()]))

    @classmethod
    def decode(cls, data: bytes) -> Member:
        """Raises BadCall."""
        try:
            life, card = msgpack.unpackb(data)
        except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
            raise BadCall(f"not a member: {error!r}") from None
        return cls(str(life), Card.from_wire(card))


@dataclass(frozen=True, slots=True)
class Record:
    """Who is in, since which epoch."""

    epoch: int
    members: tuple[Member, ...]

    def __repr__(self) -> str:
        return f"<Record epoch={self.epoch} {' '.join(m.name for m in self.members)}>"

    def rank_of(self, life: str) -> int | None:
        """The rank of that life; None: it does not belong."""
        return next((rank for rank, m in enumerate(self.members) if m.life == life), None)

    def encode(self) -> bytes:
        """For raftd."""
        members: list[Any] = [member.encode() for member in self.members]
        return bytes(msgpack.packb([self.epoch, members]))

    @classmethod
    def decode(cls, data: bytes) -> Record:
        """Raises BadCall."""
        try:
            epoch, members = msgpack.unpackb(data)
            return cls(int(epoch), tuple(Member.decode(m) for m in members))
        except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
            raise BadCall(f"not a record: {error!r}") from None


def by_number(name: str) -> tuple[str, int]:
    """r2 before r10."""
    found = re.fullmatch(r"(.*?)(\d*)", name)
    assert found is not None
    return found[1], int(found[2] or 0)


def successor(
    record: Record | None, alive: Mapping[str, Member], *, renew: bool = False
) -> Record | None:
    """The record that should follow; None if this one is right.

    renew: the group of this epoch is over although nobody has died: the same again, one epoch on.
    """
    members = tuple(alive[name] for name in sorted(alive, key=by_number))
    if record is not None and record.members == members and not renew:
        return None
    if not members:
        return None
    return Record(record.epoch + 1 if record is not None else 1, members)
