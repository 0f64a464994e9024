"""Fits the cost model to the group that is there: α, β, γ and δ, the same on all ranks.

Rank 0 and the farthest rank play ping-pong with a small and a large message, rank 0 times a local
sum and copies, and tells all: they must choose alike. Medians, since the machine has other things
to do.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Final

import numpy as np

from ddp.schedules.costs import CostModel

if TYPE_CHECKING:
    from ddp.group import Group

ROUNDS: Final = 9
SMALL_BYTES: Final = 64
LARGE_BYTES: Final = 1 << 20
COPIES: Final = 4


def calibrate(group: Group) -> CostModel:
    """A collective call: all ranks make it together. Sets the fabric's model."""
    group.barrier()
    small, large = _ping_pong(group, SMALL_BYTES), _ping_pong(group, LARGE_BYTES)
    beta = (large - small) / (LARGE_BYTES - SMALL_BYTES)
    found = np.array([small, beta, _sum_time(), _copy_time()])
    group.broadcast(found, root=0)
    model = group.fabric.model = CostModel(*(max(float(value), 1e-12) for value in found))
    return model


def _ping_pong(group: Group, nbytes: int) -> float:
    """Seconds one way between rank 0 and the last; 0 on other ranks."""
    far, times = group.size - 1, []
    data = np.zeros(nbytes, np.uint8)
    for _ in range(ROUNDS):
        began = time.perf_counter()
        if group.rank == 0:
            group.send(data, far)
            group.recv(data, far)
        elif group.rank == far:
            group.recv(data, 0)
            group.send(data, 0)
        times.append((time.perf_counter() - began) / 2)
    return statistics.median(times)


def _sum_time() -> float:
    """Seconds a byte of a sum of float32."""
    a, b = np.ones(LARGE_BYTES // 4, np.float32), np.ones(LARGE_BYTES // 4, np.float32)
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        np.add(a, b, out=a)
        times.append(time.perf_counter() - began)
    return statistics.median(times) / LARGE_BYTES


def _copy_time() -> float:
    """Seconds a byte of copies that all wait to leave: of new memory, which costs most of it."""
    vector = np.ones(LARGE_BYTES // 4, np.float32)
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        waiting = [vector.tobytes() for _ in range(COPIES)]
        times.append(time.perf_counter() - began)
        del waiting
    return statistics.median(times) / (COPIES * LARGE_BYTES)
