"""Who holds what: the owner of a key and the next processes along its successor list.

Replicas lie on *distinct processes*: several identifiers of one process die together. So the
replicas of a range are the first r-1 other processes in the owner's successor list.

An owner is *settled* for its range when it has compared the whole of it with those replicas since
its range last grew or somebody new followed it. Until then it may lack what they hold: it asks
them before it answers, and says `absent` only if all of them said so.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dht.chord.node import ChordNode
from dht.chord.ring import SIZE, Contact


def followers(core: ChordNode) -> list[Contact]:
    """One contact of each other process in the successor list, the nearest first."""
    found: dict[str, Contact] = {}
    for contact in core.succ:
        if contact.real and contact.name != core.me.name:
            found.setdefault(contact.name, contact)
    return list(found.values())


@dataclass(slots=True)
class Span:
    """What one identifier of this process knows of its own range."""

    settled_low: int | None = None  # (settled_low, me] is compared
    knew: frozenset[Contact] = field(default_factory=frozenset)
    complete: bool = False  # the last comparison reached as many replicas as there should be

    def moved(self, core: ChordNode) -> None:
        """The pointers of `core` have changed."""
        first = core.succ[0]
        if first.real and first not in self.knew:
            # Somebody new follows: it may hold, from another ring, what belongs to this range.
            self.settled_low = None
        if core.state != "member":
            self.settled_low = None
        self.knew = frozenset(core.succ)

    def settled(self, core: ChordNode) -> bool:
        """Whether the whole range is compared."""
        if self.settled_low is None or core.pred is None:
            return self.settled_low is not None and not core.succ[0].real and not core.contacts
        covered = (core.me.id - self.settled_low) % SIZE or SIZE
        return ((core.me.id - core.pred.id) % SIZE or SIZE) <= covered
