"""One look-up, seen from whoever makes it: whom to ask next, and what to do if nobody answers.

    lookup = Lookup(target, start)
    while (peer := lookup.next()) is not None:
        lookup.answered(peer, route)    what that peer says, or
        lookup.failed(peer)             it did not answer
    lookup.found                        the owner, and who follows it; None: no way led there

This is the iterative form: the asker talks to every hop itself. It always asks the contact that
precedes the target most closely among those that it has heard of, so a dead one costs one time-out
and the next best takes its place. If all between a node and the target are dead, the owner is the
first behind the target in that node's successor list (Chord §V-C): in the lecture, N85 and N102
have died, and N80 must know that K90 is N113's now, not N120's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from dht.chord.ring import Contact

# More hops than any ring of this world has fingers: beyond, something goes round in circles.
HOPS_MAX: Final = 256


class Route(NamedTuple):
    """A node's answer to "who owns this?".

    final: `contacts` are the owner and its successors, as far as the node knows.
    Otherwise they precede the target, the closest first; if the target lies within the node's
    successor list, `beyond` are the entries from there on: the owners, should all before be dead.
    """

    final: bool
    contacts: tuple[Contact, ...]
    beyond: tuple[Contact, ...] = ()


class Found(NamedTuple):
    """Where a look-up ended."""

    owner: Contact
    owners: tuple[Contact, ...]  # the owner, and those that follow it
    via: Contact | None  # who said so; None: known from the start


class Lookup:
    """The state of one iterative look-up.

    Args:
        target: an identifier.
        start: contacts to begin from.
        bits: of an identifier.
        hops_max: a linear walk needs as many as the ring has members.
    """

    def __init__(
        self, target: int, start: Iterable[Contact], *, bits: int, hops_max: int = HOPS_MAX
    ) -> None:
        self.target = target
        self.found: Found | None = None
        self.path: list[Contact] = []  # who answered, in order
        self.dead: list[Contact] = []  # who did not
        self._mask = (1 << bits) - 1
        self._hops_max = hops_max
        self._heard: dict[Contact, int] = {}  # -> how far before the target
        self._asked: set[Contact] = set()
        # How far before the target, who, and its successors beyond the target: the closest so far.
        self._near: tuple[int, Contact, tuple[Contact, ...]] | None = None
        self._hear(start)

    def __repr__(self) -> str:
        state = f"found {self.found.owner}" if self.found else f"{len(self._heard)} to ask"
        return f"<Lookup hops={self.hops} timeouts={len(self.dead)} {state}>"

    @property
    def hops(self) -> int:
        """Nodes that the query visited, the owner included."""
        owner_asked = self.found is not None and self.found.owner in self.path
        return len(self.path) + (self.found is not None and not owner_asked)

    def next(self) -> Contact | None:
        """Whom to ask; None when there is nobody left, or the owner is known."""
        if self.found is not None or len(self._asked) >= self._hops_max:
            return None
        best = min(self._heard, key=self._heard.__getitem__, default=None)
        if self._near is not None and (best is None or self._heard[best] >= self._near[0]):
            # All between that node and the target are dead.
            owners = tuple(c for c in self._near[2] if c not in self.dead)
            if owners:
                self.found = Found(owners[0], owners, self._near[1])
                return None
            self._near = None
        if best is None:
            return None
        del self._heard[best]
        self._asked.add(best)
        return best

    def answered(self, peer: Contact, route: Route) -> None:
        """What `peer` said."""
        self.path.append(peer)
        if not route.final:
            self._hear(route.contacts)
            behind = self._before(peer)
            if route.beyond and (self._near is None or behind < self._near[0]):
                self._near = behind, peer, tuple(c for c in route.beyond if c.real)
            return
        owners = tuple(c for c in route.contacts if c.real and c not in self.dead)
        if owners:
            self.found = Found(owners[0], owners, peer)

    def failed(self, peer: Contact) -> None:
        """`peer` did not answer."""
        self.dead.append(peer)

    def _hear(self, contacts: Iterable[Contact]) -> None:
        for contact in contacts:
            if contact.real and contact not in self._asked:
                self._heard[contact] = self._before(contact)

    def _before(self, contact: Contact) -> int:
        return (self.target - contact.id - 1) & self._mask
