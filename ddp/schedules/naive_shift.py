"""Decentralised, naive, shifted: in round k everybody sends its whole vector k places on.

    rounds   bytes sent, max = mean   peak fan-in   time
    P-1      (P-1)N                   1             (P-1)(α + Nβ + Nγ)

Fan-in 1 as in the serial form, at the same bytes, in a P-th of the rounds: P disjoint transfers
go on at once. All vectors are kept and added in the order of ranks; adding them as they come
would give every rank other bits.
"""

from __future__ import annotations

from ddp.schedules.schedule import Action, Schedule, Transfer


def naive_shift(size: int) -> Schedule:
    """Round k: i to i + k."""
    rounds = tuple(
        tuple(Transfer(i, (i + k) % size, 0, 1, Action.KEEP) for i in range(size))
        for k in range(1, size)
    )
    return Schedule("naive-shift", size, 1, rounds, fold_after=len(rounds) - 1)
