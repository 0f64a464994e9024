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
have died, and N80 must know that K90 is N113's now, not N120's. A walk asks the nearest ahead
instead, and steps over the dead in the same way.

`confirm`: the owner has the last word. Who is named may have died since: then the next in the list
is asked. Or somebody has come before it, of whom only it knows yet: then that one is. A client that
wants to know who owns a key needs this. One with a request for the owner does not: the request
itself tells; nor does a node that looks for its place, since stabilising tells it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from dht.chord.ring import Contact

# More hops than any ring of this world has fingers: beyond, something goes round in circles.
HOPS_MAX: Final = 256

# Newcomers in a row before one member whom only their successor knows yet.
NEWCOMERS_MAX: Final = 4


class Route(NamedTuple):
    """A node's answer to "who owns this?".

    final: `contacts` are the owner and its successors, as far as the node knows.
    Otherwise they precede the target, the closest first, in a walk the closest to the node; if the
    target lies within the node's successor list, `beyond` are the entries from there on: the
    owners, should all before be dead. `pred` is the node's predecessor, for who took it for the
    owner.
    """

    final: bool
    contacts: tuple[Contact, ...]
    beyond: tuple[Contact, ...] = ()
    pred: Contact | None = None


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
        walk: from one to the next, as the lecture begins.
        confirm: only who answers as the owner is.
    """

    def __init__(
        self,
        target: int,
        start: Iterable[Contact],
        *,
        bits: int,
        hops_max: int = HOPS_MAX,
        walk: bool = False,
        confirm: bool = False,
    ) -> None:
        self.target = target
        self.found: Found | None = None
        self.path: list[Contact] = []  # who answered, in order
        self.dead: list[Contact] = []  # who did not
        self._mask = (1 << bits) - 1
        self._hops_max = hops_max
        self._walk, self._confirm = walk, confirm
        self._at = 1 << bits  # how far before the target the walk is
        self._heard: dict[Contact, int] = {}  # -> how far before the target
        self._asked: set[Contact] = set()
        # How far before the target, who, and its successors beyond the target: the closest so far.
        self._near: tuple[int, Contact, tuple[Contact, ...]] | None = None
        # Who may own it, the first to be asked; who said so; which of them have answered.
        self._owners: deque[Contact] = deque()
        self._via: Contact | None = None
        self._living: set[Contact] = set()
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
        if self.found is not None:
            return None
        if self._owners:
            self._asked.add(self._owners[0])
            return self._owners[0]
        if len(self._asked) >= self._hops_max:
            return None
        best = self._best()
        if self._near is not None and (best is None or self._heard[best] >= self._near[0]):
            # All between that node and the target are dead.
            _, via, beyond = self._near
            self._near = None
            self.propose(beyond, via)
            return self.next()
        if best is None:
            return None
        del self._heard[best]
        self._asked.add(best)
        return best

    def answered(self, peer: Contact, route: Route) -> None:
        """What `peer` said."""
        self.path.append(peer)
        if self._owners and peer == self._owners[0]:
            self._claimed(peer, route)
        elif route.final:
            self.propose(route.contacts, peer)
        else:
            self._hear(route.contacts)
            self._at = behind = self._before(peer)
            if route.beyond and (self._near is None or behind < self._near[0]):
                self._near = behind, peer, tuple(c for c in route.beyond if c.real)

    def failed(self, peer: Contact) -> None:
        """`peer` did not answer."""
        self.dead.append(peer)
        if self._owners and peer == self._owners[0]:
            self._owners.popleft()
            if self._owners and self._owners[0] in self._living:
                self._settle()

    def propose(self, owners: Iterable[Contact], via: Contact) -> None:
        """`via` names the owner, and who comes after it."""
        self._owners.extend(c for c in owners if c.real and c not in self.dead)
        self._via = via
        if self._owners and (not self._confirm or self._owners[0] == via):
            self._settle()

    def _claimed(self, peer: Contact, route: Route) -> None:
        """Who should own it lives. Does it say so too?"""
        self._living.add(peer)
        before = route.pred
        if (
            not (route.final and route.contacts[0] == peer)
            and before is not None
            and before not in self.dead
            and len(self._living) <= NEWCOMERS_MAX
            and self._after(before) < self._after(peer)
        ):
            self._owners.appendleft(before)
        else:
            self._settle()

    def _settle(self) -> None:
        self.found = Found(self._owners[0], tuple(self._owners), self._via)
        self._owners.clear()

    def _best(self) -> Contact | None:
        if self._walk:
            ahead = (c for c, before in self._heard.items() if before < self._at)
            return max(ahead, key=self._heard.__getitem__, default=None)
        return min(self._heard, key=self._heard.__getitem__, default=None)

    def _hear(self, contacts: Iterable[Contact]) -> None:
        for contact in contacts:
            if contact.real and contact not in self._asked:
                self._heard[contact] = self._before(contact)

    def _before(self, contact: Contact) -> int:
        return (self.target - contact.id - 1) & self._mask

    def _after(self, contact: Contact) -> int:
        return (contact.id - self.target) & self._mask


def pursue(
    lookup: Lookup,
    mine: Callable[[Contact], Route | None],
    ask: Callable[[Contact, Callable[[Any, float], None], Callable[[float], None]], None],
    ended: Callable[[float], None],
    now: float,
) -> None:
    """Bring a look-up to its end without waiting for anything: answers come by callback.

    `mine` answers for the asker itself; `ask(peer, answered, silent)` asks another.
    """
    while (peer := lookup.next()) is not None:
        route = mine(peer)
        if route is None:
            break
        lookup.answered(peer, route)
    if peer is None:
        ended(now)
        return
    to = peer

    def answered(route: Any, now: float) -> None:
        lookup.answered(to, route)
        pursue(lookup, mine, ask, ended, now)

    def silent(now: float) -> None:
        lookup.failed(to)
        pursue(lookup, mine, ask, ended, now)

    ask(to, answered, silent)
