"""Who sees the whole ring at once, and judges it: Zave's inductive invariant, and the ideal.

Members cannot see this; tests, the simulation and `ring dht nodes` can. After every step of a ring
that loses no more than it may, these hold (Zave 2017):

    a live successor    every member has one in its list
    principals          at least r+1 members are skipped by nobody's list. m is skipped by n if two
                        neighbours of [n, *n.succ] have m between them.

From these follow: one ring, in order, and every appendage leads into it. What is not ideal yet is
on the way: `flaws` says how far.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from dht.chord.ring import Contact, between


class View(NamedTuple):
    """The pointers of one member."""

    pred: Contact | None
    succ: tuple[Contact, ...]


Ring = Mapping[Contact, View]


def principals(ring: Ring) -> set[Contact]:
    """Members whom nobody's extended successor list skips."""
    members = sorted(ring)
    skipped: set[Contact] = set()
    for node, view in ring.items():
        known = [node, *view.succ]
        for a, b in itertools.pairwise(known):
            if a.id != b.id:
                skipped.update(m for m in _inside(members, a.id, b.id) if m not in skipped)
    return set(members) - skipped


def _inside(members: list[Contact], low: int, high: int) -> Iterator[Contact]:
    return (m for m in members if between(low, m.id, high))


def violations(ring: Ring, successors: int) -> list[str]:
    """What of the invariant does not hold; `successors`: r."""
    found = [
        f"{node!r} has no live successor: {view.succ}"
        for node, view in ring.items()
        if not any(c in ring for c in view.succ)
    ]
    kept = principals(ring)
    if len(kept) < successors + 1:
        found.append(f"{len(kept)} principals, where {successors + 1} are needed: {sorted(kept)}")
    found += [
        f"{node!r} lists out of order: {view.succ}"
        for node, view in ring.items()
        if not _in_order(node, view.succ)
    ]
    return found


def _in_order(node: Contact, succ: tuple[Contact, ...]) -> bool:
    reals = [c.id for c in succ if c.real]
    steps = zip([node.id, *reals], reals, strict=False)
    if any(a == b for a, b in steps):
        return False
    return all(between(node.id, a, b) for a, b in itertools.pairwise(reals))


def flaws(ring: Ring, successors: int) -> list[str]:
    """Where the ring is not ideal: every pointer as if its owner saw everybody."""
    order = sorted(ring)
    count = len(order)
    found = []
    for i, node in enumerate(order):
        view = ring[node]
        wanted = tuple(order[(i + k) % count] for k in range(1, min(successors, count - 1) + 1))
        before = order[i - 1] if count > 1 else None
        reals = tuple(c for c in view.succ if c.real)
        if reals != wanted:
            found.append(f"{node!r}: {_first_difference(wanted, reals)}")
        if view.pred != before:
            found.append(f"{node!r}: its predecessor should be {before!r}, not {view.pred!r}")
    return found


def _first_difference(wanted: tuple[Contact, ...], found: tuple[Contact, ...]) -> str:
    """From there on the rest is shifted, and says nothing new."""
    pairs = itertools.zip_longest(wanted, found)
    number, (right, wrong) = next((n, p) for n, p in enumerate(pairs, 1) if p[0] != p[1])
    return f"its successor {number} should be {right or 'nobody'!r}, not {wrong or 'nobody'!r}"


def owner(ring: Ring, target: int) -> Contact:
    """Who owns `target`, seen from above."""
    order = sorted(ring)
    return next((m for m in order if m.id >= target), order[0])


def may_fail(ring: Ring, dying: Contact, successors: int) -> bool:
    """Zave's rule for the environment: this death leaves the invariant true."""
    rest = {node: view for node, view in ring.items() if node != dying}
    alive = all(any(c in rest for c in view.succ) for view in rest.values())
    return alive and len(principals(rest)) >= successors + 1
