"""Who holds what: the owner of a key and the next processes along its successor list.

Replicas lie on *distinct processes*: several identifiers of one process die together. So the
replicas of a range are the first r-1 other processes in the owner's successor list.

An owner is *settled* for its range when it has compared the whole of it with those replicas since
its range last grew or somebody new came among them. Until then it may lack what they hold: it asks
them before it answers, and says `absent` only if all of them said so.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dht.chord.node import ChordNode
from dht.chord.ring import SIZE, Contact, between


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

    replicas: int  # processes that should hold it, the owner included
    settled_low: int | None = None  # (settled_low, me] is compared
    low: int | None = None  # where it began when the pointers last moved
    knew: frozenset[str] = field(default_factory=frozenset)
    taken_in: int = 0  # how often a successor had taken the owner for its predecessor
    complete: bool = False  # the last comparison reached as many replicas as there should be

    def moved(self, core: ChordNode, taken_in: int = 0) -> tuple[int, int] | None:
        """The pointers of `core` have changed, or a successor has taken it in, which is `taken_in`
        times by now; returns the part of the range that it has lost."""
        names = frozenset(c.name for c in followers(core)[: self.replicas - 1])
        before, self.taken_in = self.taken_in, taken_in
        if core.state != "member" or not names <= self.knew or before != taken_in:
            # Somebody new follows: it may hold what belongs here, from another ring even. Or who
            # follows had replaced this owner, which was thought dead: it took writes meanwhile.
            self.settled_low = None
            self.complete = False
        self.knew = names
        low = core.pred.id if core.pred is not None else None
        lower, self.low = self.low, low
        if lower is not None and low is not None and between(lower, low, core.me.id):
            return lower, low
        return None

    def settled(self, core: ChordNode) -> bool:
        """Whether the whole range is compared."""
        if self.settled_low is None or core.pred is None:
            return self.settled_low is not None and not core.succ[0].real and not core.contacts
        covered = (core.me.id - self.settled_low) % SIZE or SIZE
        return ((core.me.id - core.pred.id) % SIZE or SIZE) <= covered
