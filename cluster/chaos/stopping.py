"""Whether a process that was told to stop stands still: the kernel's word, and nobody else's."""

from __future__ import annotations

import asyncio
from typing import Final

from cluster.chaos.system import NoEffect
from cluster.process import STOPPED, state_of

POLL_S: Final = 0.01

# SIGSTOP takes effect when the process is next scheduled.
STOPS_S: Final = 2.0


async def stands_still(node: str, pid: int) -> str:
    """What to say once it does; raises NoEffect if it does not."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + STOPS_S
    while (state := state_of(pid)) != STOPPED:
        if loop.time() > deadline:
            raise NoEffect(f"process {pid} of {node} is in state {state or 'gone'}")
        await asyncio.sleep(POLL_S)
    return f"{node}: process {pid} was stopped"
