"""Decentralised, naive, serial: one transfer in flight in the whole system.

    rounds    bytes sent, max = mean   peak fan-in   time
    P(P-1)    (P-1)N                   1             P(P-1)(α + Nβ)

Each tells the next when it may send (lecture 24). Here the message is the telling: the transfers
follow an Euler circuit of the complete directed graph, so whoever has just received sends next.
"""

from __future__ import annotations

from itertools import pairwise

from ddp.schedules.schedule import Action, Schedule, Transfer


def naive_serial(size: int) -> Schedule:
    """Everybody's whole vector to everybody, one after the other."""
    circuit = euler_circuit(size)
    rounds = tuple((Transfer(a, b, 0, 1, Action.KEEP),) for a, b in pairwise(circuit))
    return Schedule("naive-serial", size, 1, rounds, fold_after=len(rounds) - 1)


def euler_circuit(size: int) -> list[int]:
    """Ranks in an order in which each pair (a, b) occurs once as neighbours (Hierholzer, 1873)."""
    ahead = {rank: [other for other in range(size) if other != rank] for rank in range(size)}
    path, circuit = [0], []
    while path:
        if ahead[path[-1]]:
            path.append(ahead[path[-1]].pop(0))
        else:
            circuit.append(path.pop())
    return circuit[::-1]
