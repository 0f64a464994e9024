"""Recursive doubling: in round k each exchanges its whole vector with the rank 2^k away.

    rounds   bytes sent, max = mean   peak fan-in   time                        (P = 2^k)
    log2 P   N·log2 P                 1             log2 P (α + Nβ + Nγ)

Fewest rounds, so the best for small vectors. Both of a pair add the same two operands in the same
order, so all ranks have the same bits. Where P is no power of two the surplus ranks hand their
vector to a neighbour first and get the result last: two more rounds (Thakur, Rabenseifner and
Gropp, 2005).
"""

from __future__ import annotations

from ddp.schedules.schedule import Action, Round, Schedule, Transfer


def recursive_doubling(size: int) -> Schedule:
    """Whole vectors, doubling distances."""
    active, before, after = fold_surplus(size, 1)
    rounds, distance = list(before), 1
    while distance < len(active):
        rounds.append(
            tuple(
                Transfer(rank, active[i ^ distance], 0, 1, Action.REDUCE)
                for i, rank in enumerate(active)
            )
        )
        distance *= 2
    return Schedule("recursive-doubling", size, 1, tuple(rounds) + after)


def fold_surplus(size: int, chunks: int) -> tuple[list[int], tuple[Round, ...], tuple[Round, ...]]:
    """A power of two of ranks that go on, the round before and the round after.

    Of the first 2r ranks, r = the surplus, the even ones give to and take from their neighbour.
    """
    power = 1 << (size.bit_length() - 1)
    surplus = size - power
    active = [2 * i + 1 for i in range(surplus)] + list(range(2 * surplus, size))
    if not surplus:
        return active, (), ()
    pairs = [(2 * i, 2 * i + 1) for i in range(surplus)]
    before = tuple(Transfer(a, b, 0, chunks, Action.REDUCE) for a, b in pairs)
    after = tuple(Transfer(b, a, 0, chunks, Action.COPY) for a, b in pairs)
    return active, (before,), (after,)
