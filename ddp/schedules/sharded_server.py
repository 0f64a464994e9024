"""Sharded, co-located parameter server: every rank serves one P-th of the vector.

    rounds   bytes sent, max = mean   peak fan-in   time
    2        2N(P-1)/P                P-1           2(P-1)α′ + 2N(P-1)/P β + N(P-1)/P γ

Two rounds and least bytes, but P-1 messages arrive at every rank at once: α′ is the cost of one
of so many. Each shard is summed in the order of ranks, so the result equals a plain loop over
ranks bit for bit. Between ranks that share memory this is the algorithm of choice: there is no
fan-in to pay.
"""

from __future__ import annotations

from ddp.schedules.schedule import Action, Schedule, Transfer


def sharded_server(size: int) -> Schedule:
    """Rank r serves chunk r."""
    pairs = [(a, b) for a in range(size) for b in range(size) if a != b]
    push = tuple(Transfer(a, b, b, b + 1, Action.KEEP) for a, b in pairs)
    pull = tuple(Transfer(a, b, a, a + 1, Action.COPY) for a, b in pairs)
    rounds = (push, pull) if size > 1 else ()
    return Schedule("sharded-server", size, size, rounds, fold_after=0)
