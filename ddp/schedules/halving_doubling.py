"""Recursive halving, then doubling (Rabenseifner, 2004).

    rounds     bytes sent, max = mean   peak fan-in   time                      (P = 2^k)
    2·log2 P   2N(P-1)/P                1             2·log2 P α + 2N(P-1)/P β + N(P-1)/P γ

Least bytes in O(log P) rounds at fan-in 1: each exchanges half of what it is still responsible
for with the rank half the group away, then a quarter, and so on, until it holds one finished
chunk; then all of it backwards. Surplus ranks are folded in as in recursive doubling: two more
rounds of N.
"""

from __future__ import annotations

from ddp.schedules.recursive_doubling import fold_surplus
from ddp.schedules.schedule import Action, Round, Schedule, Transfer


def halving_doubling(size: int) -> Schedule:
    """Chunk i ends at the i-th of the active ranks, and goes out from there."""
    chunks = 1 << (size.bit_length() - 1)
    active, before, after = fold_surplus(size, chunks)
    rounds: list[Round] = list(before)
    distance = chunks // 2
    while distance:
        rounds.append(
            tuple(
                Transfer(rank, active[i ^ distance], *_block(i ^ distance, distance), Action.REDUCE)
                for i, rank in enumerate(active)
            )
        )
        distance //= 2
    distance = 1
    while distance < chunks:
        rounds.append(
            tuple(
                Transfer(rank, active[i ^ distance], *_block(i, distance), Action.COPY)
                for i, rank in enumerate(active)
            )
        )
        distance *= 2
    return Schedule("halving-doubling", size, chunks, tuple(rounds) + after)


def _block(i: int, length: int) -> tuple[int, int]:
    """The aligned block of so many chunks in which i lies."""
    lo = i - i % length
    return lo, lo + length
