"""What the workers can be asked to do, all at once: a name, and a function of the group.

A job is called on every rank with the same arguments, and returns plain data. It must make the
same calls on all ranks, as everything does that is given a group.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from ddp.errors import BadCall, Mismatch
from ddp.group import Group

ID_BYTES: Final = 64


def _allreduce_perf(group: Group, arguments: dict[str, Any]) -> Any:
    from ddp.perf import measure

    return measure(group, **arguments)


def _barrier(group: Group, arguments: dict[str, Any]) -> Any:
    group.barrier()
    return group.epoch


JOBS: Final[dict[str, Callable[[Group, dict[str, Any]], Any]]] = {
    "allreduce-perf": _allreduce_perf,
    "barrier": _barrier,
}


def run(group: Group, job: str, identity: str, arguments: dict[str, Any]) -> Any:
    """Run a job, once all ranks have been asked for the same one; raises BadCall, Mismatch, …"""
    if job not in JOBS:
        raise BadCall(f"no job {job!r}; there are {', '.join(JOBS)}")
    own = identity.encode()[:ID_BYTES].ljust(ID_BYTES, b"\0")
    ids = group.all_gather(np.frombuffer(own, np.uint8)).tobytes()
    for rank in range(group.size):
        theirs = ids[rank * ID_BYTES : (rank + 1) * ID_BYTES]
        if theirs != own:
            other = theirs.rstrip(b"\0").decode(errors="replace")
            raise Mismatch(f"rank {group.rank} was asked for {identity}, rank {rank} for {other}")
    return JOBS[job](group, arguments)
