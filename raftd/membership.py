"""Who belongs to the cluster: voters, those being replaced, learners, and where they are (§6).

A change goes in up to three entries:

    learners    newcomers get the log and do not count, until the leader finds them caught up
    joint       voters = new, outgoing = old: every decision needs a majority of both
    final       voters = new, outgoing = none; proposed once the joint one is committed

A node uses the newest configuration in its log, committed or not; when that entry is overwritten,
it falls back to the one before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

import msgpack

from raftd import quorum
from raftd.errors import InvalidChange

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Membership:
    """One configuration. Names are sorted; `addresses` covers everyone named."""

    voters: tuple[str, ...] = ()
    outgoing: tuple[str, ...] = ()
    learners: tuple[str, ...] = ()
    promoting: tuple[str, ...] = ()  # learners to be made voters when they have caught up
    addresses: dict[str, Address] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"voters={','.join(self.voters)}"]
        if self.outgoing:
            parts.append(f"outgoing={','.join(self.outgoing)}")
        if self.learners:
            parts.append(f"learners={','.join(self.learners)}")
        return " ".join(parts)

    @classmethod
    def of(cls, addresses: dict[str, Address]) -> Membership:
        """The first configuration of a cluster: all of them voters."""
        return cls(voters=tuple(sorted(addresses)), addresses=dict(sorted(addresses.items())))

    @property
    def joint(self) -> bool:
        """Whether a change is half-way."""
        return bool(self.outgoing)

    @property
    def everyone(self) -> tuple[str, ...]:
        """All who get the log."""
        return tuple(sorted({*self.voters, *self.outgoing, *self.learners}))

    def is_voter(self, name: str) -> bool:
        """Whether `name` may vote and be elected."""
        return name in self.voters or name in self.outgoing

    def has_quorum(self, members: Collection[str]) -> bool:
        """Whether `members` can decide."""
        return quorum.has_joint_majority(self.voters, self.outgoing, members)

    def adding(self, newcomers: dict[str, Address]) -> Membership:
        """With newcomers as learners, to be promoted; raises InvalidChange."""
        self._refuse_joint()
        known = [name for name in newcomers if name in self.voters]
        if known:
            raise InvalidChange(f"{known[0]} is a member already")
        return replace(
            self,
            learners=_sorted({*self.learners, *newcomers}),
            promoting=_sorted({*self.promoting, *newcomers}),
            addresses=dict(sorted({**self.addresses, **newcomers}.items())),
        )

    def promoted(self, names: Iterable[str]) -> Membership:
        """The joint configuration that makes learners voters."""
        names = set(names)
        return replace(
            self,
            voters=_sorted({*self.voters, *names}),
            outgoing=self.voters,
            learners=_sorted(set(self.learners) - names),
            promoting=_sorted(set(self.promoting) - names),
        )

    def removing(self, names: Collection[str]) -> Membership:
        """The configuration without `names`: joint if voters leave; raises InvalidChange."""
        self._refuse_joint()
        strangers = [name for name in names if name not in self.everyone]
        if strangers:
            raise InvalidChange(f"{strangers[0]} is not a member")
        voters = _sorted(set(self.voters) - set(names))
        if not voters:
            raise InvalidChange("the last voter cannot be removed")
        return replace(
            self,
            voters=voters,
            outgoing=self.voters if voters != self.voters else (),
            learners=_sorted(set(self.learners) - set(names)),
            promoting=_sorted(set(self.promoting) - set(names)),
        )._without_strangers()

    def left_joint(self) -> Membership:
        """The final configuration of a change."""
        return replace(self, outgoing=())._without_strangers()

    def _without_strangers(self) -> Membership:
        kept = set(self.everyone)
        addresses = {name: at for name, at in self.addresses.items() if name in kept}
        return replace(self, addresses=addresses)

    def _refuse_joint(self) -> None:
        if self.joint:
            raise InvalidChange("a membership change is under way; wait until it is done")

    def pack(self) -> bytes:
        """For the log and for snapshots."""
        packed: bytes = msgpack.packb(
            [self.voters, self.outgoing, self.learners, self.promoting, self.addresses]
        )
        return packed

    @classmethod
    def unpack(cls, data: bytes) -> Membership:
        """Raises ValueError for what is no packed membership."""
        try:
            *groups, addresses = msgpack.unpackb(data)
            voters, outgoing, learners, promoting = map(_names, groups)
            located = {name: _address(at) for name, at in addresses.items()}
        except (ValueError, TypeError, AttributeError, msgpack.exceptions.UnpackException) as error:
            raise ValueError(f"not a membership: {error}") from None
        membership = cls(voters, outgoing, learners, promoting, located)
        if set(located) != set(membership.everyone):
            raise ValueError("not a membership: addresses and names differ")
        return membership


def _names(group: object) -> tuple[str, ...]:
    if not isinstance(group, list) or not all(type(name) is str for name in group):
        raise ValueError("a group is a list of names")
    return tuple(group)


def _address(at: object) -> Address:
    if not isinstance(at, list) or len(at) != 2:
        raise ValueError("an address is a host and a port")
    host, port = at
    if type(host) is not str or type(port) is not int:
        raise ValueError("an address is a host and a port")
    return host, port


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names))
