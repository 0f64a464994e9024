"""Ring: each rank talks to its neighbour only (Patarasu and Yuan, 2009; Baidu, 2017).

    rounds    bytes sent, max = mean   peak fan-in   time
    2(P-1)    2N(P-1)/P                1             2(P-1)α + 2N(P-1)/P β + N(P-1)/P γ

First every chunk travels once around and is added to on its way (reduce-scatter), then once more,
finished (all-gather). Least bytes, fan-in 1, but O(P) rounds. Chunk c is added in the order c+1,
c+2, …, c: not that of ranks, so floats differ in their last bits from a plain loop (the lecture's
remark), though not from rank to rank.
"""

from __future__ import annotations

from collections.abc import Sequence

from ddp.schedules.schedule import Action, Round, Schedule, Transfer


def ring(size: int) -> Schedule:
    """Reduce-scatter, then all-gather, on P chunks."""
    everyone, parts = list(range(size)), [(i, i + 1) for i in range(size)]
    rounds = reduce_scatter_rounds(everyone, parts) + all_gather_rounds(everyone, parts)
    return Schedule("ring", size, size, rounds)


def reduce_scatter_rounds(
    ranks: Sequence[int], parts: Sequence[tuple[int, int]]
) -> tuple[Round, ...]:
    """So that ranks[i] ends with the sum of chunks parts[i]."""
    return _around(ranks, parts, Action.REDUCE, first=1)


def all_gather_rounds(ranks: Sequence[int], parts: Sequence[tuple[int, int]]) -> tuple[Round, ...]:
    """So that all have what ranks[i] has in chunks parts[i]."""
    return _around(ranks, parts, Action.COPY, first=0)


def _around(
    ranks: Sequence[int], parts: Sequence[tuple[int, int]], action: Action, first: int
) -> tuple[Round, ...]:
    n = len(ranks)
    return tuple(
        tuple(
            Transfer(ranks[i], ranks[(i + 1) % n], *parts[(i - step - first) % n], action)
            for i in range(n)
        )
        for step in range(n - 1)
    )
