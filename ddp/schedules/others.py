"""The other collectives.

                    rounds          bytes sent, max    peak fan-in
    reduce-scatter  P-1             N(P-1)/P           1     ring; rank r ends with chunk r
    all-gather      P-1             N(P-1)/P           1     ring; chunk r comes from rank r
    broadcast       ceil(log2 P)    N·ceil(log2 P)     1     binomial tree from the root
    reduce          ceil(log2 P)    N                  1     the same tree, backwards
    all-to-all      P-1             N(P-1)/P           1     round k: i sends to i + k
    barrier         ceil(log2 P)    0                  1     dissemination (Hensgen et al., 1988)

N is the whole vector: of reduce-scatter what each rank brings, of all-gather what each rank gets.
"""

from __future__ import annotations

from ddp.schedules.ring import all_gather_rounds, reduce_scatter_rounds
from ddp.schedules.schedule import Action, Round, Schedule, Transfer


def reduce_scatter(size: int) -> Schedule:
    """Chunk r of the sum, to rank r."""
    rounds = reduce_scatter_rounds(list(range(size)), [(i, i + 1) for i in range(size)])
    return Schedule("reduce-scatter", size, size, rounds)


def all_gather(size: int) -> Schedule:
    """Chunk r of rank r, to all."""
    rounds = all_gather_rounds(list(range(size)), [(i, i + 1) for i in range(size)])
    return Schedule("all-gather", size, size, rounds)


def broadcast(size: int, root: int = 0) -> Schedule:
    """The root's vector, to all."""
    rounds = [
        tuple(Transfer(a, b, 0, 1, Action.COPY) for a, b in pairs)
        for pairs in _binomial(size, root)
    ]
    return Schedule("broadcast", size, 1, tuple(rounds))


def reduce(size: int, root: int = 0) -> Schedule:
    """The sum, to the root; on the others the vector is used up on the way."""
    rounds = [
        tuple(Transfer(b, a, 0, 1, Action.REDUCE) for a, b in pairs)
        for pairs in reversed(_binomial(size, root))
    ]
    return Schedule("reduce", size, 1, tuple(rounds))


def all_to_all(size: int) -> Schedule:
    """Chunk b of rank a becomes chunk a of rank b."""
    rounds = tuple(
        tuple(
            Transfer(i, (i + k) % size, (i + k) % size, (i + k) % size + 1, Action.KEEP)
            for i in range(size)
        )
        for k in range(1, size)
    )
    return Schedule("all-to-all", size, size, rounds, place=True)


def barrier(size: int) -> Schedule:
    """Empty messages to the ranks 1, 2, 4, … places on: after them all have heard of all."""
    rounds: list[Round] = []
    distance = 1
    while distance < size:
        rounds.append(
            tuple(Transfer(i, (i + distance) % size, 0, 0, Action.COPY) for i in range(size))
        )
        distance *= 2
    return Schedule("barrier", size, 1, tuple(rounds))


def _binomial(size: int, root: int) -> list[list[tuple[int, int]]]:
    """(parent, child) pairs, round by round, from the root outwards."""
    rounds, reached = [], 1
    while reached < size:
        rounds.append(
            [
                ((a + root) % size, (a + reached + root) % size)
                for a in range(reached)
                if a + reached < size
            ]
        )
        reached *= 2
    return rounds
