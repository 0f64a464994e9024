"""Hierarchical: what can be added inside a host does not cross between hosts (Horovod, 2018).

    rounds                bytes between hosts, a rank   peak fan-in   (h hosts of g ranks)
    2(g-1) + 2(h-1)       2(N/g)(h-1)/h                 1

Inside each host a ring reduce-scatter leaves each rank one shard; ranks of the same place in
their hosts make a ring allreduce of theirs; a ring all-gather inside the hosts ends it. Where
hosts have different numbers of ranks, the first of each collects, and only those talk: more
bytes, fan-in max(g) - 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from ddp.schedules.ring import all_gather_rounds, reduce_scatter_rounds
from ddp.schedules.schedule import Action, Round, Schedule, Transfer, side_by_side

Hosts = Sequence[Sequence[int]]


def hierarchical(size: int, hosts: Hosts | None = None) -> Schedule:
    """`hosts`: the ranks of each; without, pairs of neighbours."""
    hosts = hosts or [list(range(at, min(at + 2, size))) for at in range(0, size, 2)]
    if len({len(host) for host in hosts}) == 1:
        return _shards(size, hosts)
    return _leaders(size, hosts)


def _shards(size: int, hosts: Hosts) -> Schedule:
    g, h = len(hosts[0]), len(hosts)
    shards = [(place * h, place * h + h) for place in range(g)]
    inside = side_by_side(*(reduce_scatter_rounds(host, shards) for host in hosts))
    across = side_by_side(*(_ring([host[p] for host in hosts], p * h) for p in range(g)))
    spread = side_by_side(*(all_gather_rounds(host, shards) for host in hosts))
    return Schedule("hierarchical", size, g * h, inside + across + spread)


def _leaders(size: int, hosts: Hosts) -> Schedule:
    h = len(hosts)
    collect = tuple(
        Transfer(rank, host[0], 0, h, Action.REDUCE) for host in hosts for rank in host[1:]
    )
    spread = tuple(
        Transfer(host[0], rank, 0, h, Action.COPY) for host in hosts for rank in host[1:]
    )
    across = _ring([host[0] for host in hosts], 0)
    return Schedule("hierarchical", size, h, (collect, *across, spread))


def _ring(ranks: Sequence[int], first: int) -> tuple[Round, ...]:
    parts = [(first + i, first + i + 1) for i in range(len(ranks))]
    return reduce_scatter_rounds(ranks, parts) + all_gather_rounds(ranks, parts)
