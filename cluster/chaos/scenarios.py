"""The scenarios: a workload each, under whatever faults are asked for.

register   read, write and compare-and-swap of registers      linearizable?
versions   the same with revisions, and deletes                linearizable, revisions too?
append     transactions that append to lists and read them     strictly serializable?
lock       a lock, with fencing tokens                         one holder at a time?
counter    increments with retries                             each counted once?
set        a set that grows                                    anything lost, or late?
bank       transfers between accounts                          does money stay?
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from cluster.chaos.workloads.append import Append
from cluster.chaos.workloads.bank import Bank
from cluster.chaos.workloads.base import Workload
from cluster.chaos.workloads.counter import Counter
from cluster.chaos.workloads.grow_set import GrowSet
from cluster.chaos.workloads.lock import Lock
from cluster.chaos.workloads.register import Register
from cluster.chaos.workloads.versions import Versions
from cluster.errors import Usage

SCENARIOS: Final[dict[str, Callable[[random.Random], Workload]]] = {
    "register": Register,
    "versions": Versions,
    "append": Append,
    "lock": Lock,
    "counter": Counter,
    "set": GrowSet,
    "bank": Bank,
}


def workload_of(scenario: str, seed: int) -> Workload:
    """The workload of a scenario; raises Usage."""
    try:
        make = SCENARIOS[scenario]
    except KeyError:
        known = ", ".join(SCENARIOS)
        raise Usage(f"there is no scenario {scenario!r}; there are: {known}") from None
    return make(random.Random(f"workload {seed}"))
