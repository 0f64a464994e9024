"""Who belongs to a group: one record in raftd, changed by compare-and-swap only.

    ddp/groups/NAME/alive/MEMBER   one life of a member, under a lease: it vanishes with its owner
    ddp/groups/NAME/record         epoch, step, members in the order of their ranks, decided_in

The workers of a cluster are such a group ("workers"), and so is each elastic run of training
("run-NAME"). The epoch goes up whenever the members change, and every frame bears it: who slept
through a change is fenced off. A member is a *life* of somebody, so one that was restarted is
another one.

What differs is who decides what follows. Workers hold nothing from one call to the next: the
members are those that live (`successor`; roster.py). A run has parameters, so there a step and its
members must change together, and who comes must heal (training/elastic.py).

Data and decisions only, without I/O; records.py is what talks to raftd.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgpack

from ddp.card import Card
from ddp.errors import BadCall

# What a member does: computes and adds; or only adds what the workers send it (a parameter server).
WORKER: Final = "worker"
SERVER: Final = "server"
ROLES: Final = (WORKER, SERVER)


@dataclass(frozen=True, slots=True)
class Member:
    """One life of one member.

    card: how the others find it. healed: it has the state of the record's step, if there is any.
    """

    name: str
    life: str
    card: Card
    healed: bool = True
    role: str = WORKER

    def __str__(self) -> str:
        return self.name

    @property
    def place(self) -> tuple[bool, str, int]:
        """By which members who begin together are ordered: servers last; r2 before r10."""
        found = re.fullmatch(r"(.*?)(\d*)", self.name, re.DOTALL)
        assert found is not None
        return self.role == SERVER, found[1], int(found[2] or 0)

    def to_wire(self) -> list[Any]:
        """As plain data."""
        return [self.name, self.life, self.card.to_wire(), self.healed, self.role]

    @classmethod
    def from_wire(cls, data: Any) -> Member:
        """Raises BadCall."""
        try:
            name, life, card, healed, role = data
        except (TypeError, ValueError):
            raise BadCall(f"not a member: {data!r:.200}") from None
        if role not in ROLES:
            raise BadCall(f"a member is one of {', '.join(ROLES)}, not {role!r:.40}")
        return cls(str(name), str(life), Card.from_wire(card), bool(healed), role)

    def encode(self) -> bytes:
        """For raftd; the same member gives the same bytes: they are compared."""
        return bytes(msgpack.packb(self.to_wire()))

    @classmethod
    def decode(cls, data: bytes) -> Member:
        """Raises BadCall."""
        return cls.from_wire(_unpacked(data, "a member"))


@dataclass(frozen=True, slots=True)
class Record:
    """What is replicated.

    step: the next one to be done; all below are committed. decided_in: the epoch in which the last
    of them was. Where there are no steps both stay 0.
    """

    epoch: int
    step: int
    members: tuple[Member, ...]
    decided_in: int = 0

    def __repr__(self) -> str:
        names = " ".join(m.name if m.healed else f"({m.name})" for m in self.members)
        return f"<Record epoch={self.epoch} step={self.step} [{names}]>"

    @property
    def age(self) -> tuple[int, int]:
        """Grows with every change."""
        return self.epoch, self.step

    @property
    def workers(self) -> tuple[Member, ...]:
        """Those that compute; they have the lowest ranks."""
        return tuple(member for member in self.members if member.role == WORKER)

    def rank(self, life: str) -> int | None:
        """The place of a life among the members; None: it does not belong."""
        return next((i for i, member in enumerate(self.members) if member.life == life), None)

    def committed(self, joiners: Iterable[Member]) -> Record:
        """This step done by all members, and newcomers let in on the occasion."""
        healed = tuple(replace(member, healed=True) for member in self.members)
        done = Record(self.epoch, self.step + 1, healed, decided_in=self.epoch)
        return done.changed((), joiners) if (joiners := list(joiners)) else done

    def changed(self, gone: Iterable[str], joiners: Iterable[Member]) -> Record:
        """The next epoch: without the lives in `gone`, with newcomers, the same step."""
        lives = set(gone)
        left = [member for member in self.members if member.life not in lives]
        coming = [replace(member, healed=False) for member in joiners]
        names = {member.name for member in coming}  # a new life of a name ends the old one
        stay = [member for member in left if member.name not in names]
        members = sorted((*stay, *coming), key=lambda member: member.role == SERVER)
        return Record(self.epoch + 1, self.step, tuple(members), self.decided_in)

    def encode(self) -> bytes:
        """For raftd; the same record gives the same bytes: they are compared."""
        members = [member.to_wire() for member in self.members]
        return bytes(msgpack.packb([self.epoch, self.step, members, self.decided_in]))

    @classmethod
    def decode(cls, data: bytes) -> Record:
        """Raises BadCall."""
        try:
            epoch, step, members, decided_in = _unpacked(data, "a record")
            found = tuple(Member.from_wire(member) for member in members)
            return cls(int(epoch), int(step), found, int(decided_in))
        except (ValueError, TypeError) as error:
            raise BadCall(f"not a record: {error!r}") from None


def _unpacked(data: bytes, what: str) -> Any:
    try:
        return msgpack.unpackb(data)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise BadCall(f"not {what}: {error!r}") from None


def successor(
    record: Record | None, alive: Mapping[str, Member], *, renew: bool = False
) -> Record | None:
    """The record that should follow where the members are those that live; None: this one is right.

    renew: the group of this epoch is over although nobody has died: the same again, one epoch on.
    """
    members = tuple(sorted(alive.values(), key=lambda member: member.place))
    if record is not None and record.members == members and not renew:
        return None
    if not members:
        return None
    return Record(record.epoch + 1 if record is not None else 1, 0, members)
