"""Partitions: who snubs whom.

A grudge names the directed edges (a, b) on which nothing of what a sends reaches b. Most are
mutual, and one is not:

    halves     1 2 | 3 4 5            two groups, drawn anew each time
    isolate    1 | 2 3 4 5            one against all
    bridge     1 2 - 3 - 4 5          two groups, and one who sees both
    ring       1-2-3-4-5-1            everybody sees a majority, and no two see the same one
    chain      1-2-3-4-5              everybody sees the neighbours
    one-way    1 hears nobody, and everybody hears 1: or the other way round

The names are those of Jepsen's `nemesis.clj`, as are the shapes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations, pairwise
from typing import Final

Edge = tuple[str, str]
Grudge = frozenset[Edge]


def apart(groups: Sequence[Sequence[str]]) -> Grudge:
    """Nobody of one group reaches anybody of another."""
    return frozenset(
        (a, b)
        for i, here in enumerate(groups)
        for j, there in enumerate(groups)
        if i != j
        for a in here
        for b in there
    )


def only(edges: Iterable[Edge], nodes: Sequence[str]) -> Grudge:
    """All is cut but `edges`, which work in both directions."""
    good = {pair for a, b in edges for pair in ((a, b), (b, a))}
    return frozenset((a, b) for a in nodes for b in nodes if a != b and (a, b) not in good)


def halves(nodes: Sequence[str], rng: random.Random) -> Grudge:
    """Two groups; the larger has one more if the number is odd."""
    drawn = rng.sample(list(nodes), len(nodes))
    middle = len(drawn) // 2
    return apart([drawn[:middle], drawn[middle:]])


def isolate(nodes: Sequence[str], rng: random.Random) -> Grudge:
    """One against all."""
    alone = rng.choice(list(nodes))
    return apart([[alone], [name for name in nodes if name != alone]])


def bridge(nodes: Sequence[str], rng: random.Random) -> Grudge:
    """Two groups that do not see each other, and one node that both see."""
    _middle, *others = rng.sample(list(nodes), len(nodes))
    half = len(others) // 2
    return apart([others[:half], others[half:]])


def ring(nodes: Sequence[str], rng: random.Random) -> Grudge:
    """Each sees itself and so many neighbours on a circle that it sees a majority."""
    circle = rng.sample(list(nodes), len(nodes))
    count = len(circle)
    reach = (count // 2 + 1) // 2
    near = [(circle[i], circle[(i + k) % count]) for i in range(count) for k in range(1, reach + 1)]
    return only(near, nodes)


def chain(nodes: Sequence[str], rng: random.Random) -> Grudge:
    """Each sees its neighbours in a row."""
    row = rng.sample(list(nodes), len(nodes))
    return only(pairwise(row), nodes)


def one_way(nodes: Sequence[str], rng: random.Random) -> Grudge:
    """One node is deaf, or dumb."""
    one = rng.choice(list(nodes))
    others = [name for name in nodes if name != one]
    if rng.random() < 0.5:
        return frozenset((other, one) for other in others)
    return frozenset((one, other) for other in others)


def largest_group(nodes: Sequence[str], grudge: Grudge) -> frozenset[str]:
    """As many nodes as possible of whom each hears each: where a quorum may be."""
    for size in range(len(nodes), 1, -1):
        for group in combinations(nodes, size):
            if not any((a, b) in grudge for a in group for b in group):
                return frozenset(group)
    return frozenset(nodes[:1])


GRUDGES: Final[dict[str, Callable[[Sequence[str], random.Random], Grudge]]] = {
    "halves": halves,
    "isolate": isolate,
    "bridge": bridge,
    "ring": ring,
    "chain": chain,
    "one-way": one_way,
}
