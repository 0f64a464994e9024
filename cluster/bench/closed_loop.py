"""Closed-loop load: each of N callers sends its next request when the last one was answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from cluster.bench.harness import Load

# Operations before the clock starts: connections up, caches warm, MTU found.
WARM_UP_S = 0.5


async def closed_loop(
    operation: Callable[[int], Awaitable[object]], callers: int, seconds: float
) -> Load:
    """Run `operation(caller)` in `callers` loops for `seconds` and count what was answered."""
    latencies: list[float] = []
    clock = time.perf_counter
    counting = False
    stop = False

    async def loop(caller: int) -> None:
        while not stop:
            started = clock()
            await operation(caller)
            if counting:
                latencies.append(clock() - started)

    async with asyncio.TaskGroup() as group:
        for caller in range(callers):
            group.create_task(loop(caller))
        await asyncio.sleep(WARM_UP_S)
        counting, began = True, clock()
        await asyncio.sleep(seconds)
        counting, took = False, clock() - began
        stop = True
    return Load(len(latencies), took, latencies)
