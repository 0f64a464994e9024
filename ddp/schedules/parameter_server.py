"""Parameter server: all send to rank 0, which adds and sends back (Li et al., OSDI 2014).

    rounds   bytes sent, max / mean     peak fan-in   time
    2        (P-1)N / 2(P-1)N/P         P-1           2α + 2(P-1)Nβ + (P-1)Nγ

The server's link carries everything: O(N·P), and P-1 messages arrive at once. With a server of
its own (`dedicated`) the P workers send N each, and the server P·N at a fan-in of P: the last rank
of the group serves, contributes nothing, and is given the sum as all are.
"""

from __future__ import annotations

from ddp.schedules.schedule import Action, Schedule, Transfer


def parameter_server(size: int) -> Schedule:
    """Rank 0 serves, and contributes like the others."""
    push, pull = _star(0, [rank for rank in range(size) if rank != 0])
    rounds = (push, pull) if size > 1 else ()
    return Schedule("parameter-server", size, 1, rounds, fold_after=0)


def dedicated_server(size: int) -> Schedule:
    """The last rank serves the size - 1 before it."""
    push, pull = _star(size - 1, list(range(size - 1)))
    rounds = (push, pull) if size > 1 else ()
    silent = frozenset({size - 1}) if size > 1 else frozenset()
    return Schedule("dedicated-server", size, 1, rounds, fold_after=0, silent=silent)


def _star(server: int, workers: list[int]) -> tuple[tuple[Transfer, ...], tuple[Transfer, ...]]:
    push = tuple(Transfer(worker, server, 0, 1, Action.KEEP) for worker in workers)
    pull = tuple(Transfer(server, worker, 0, 1, Action.COPY) for worker in workers)
    return push, pull
