"""The scenarios: a workload each, under whatever faults are asked for.

register   read, write and compare-and-swap of registers      linearizable?
versions   the same with revisions, and deletes                linearizable, revisions too?
append     transactions that append to lists and read them     strictly serializable?
counter    increments with retries                             each counted once?
set        a set that grows                                    anything lost, or late?
bank       transfers between accounts                          does money stay?
watch      followers of a range that others write              all of it, in order, once?
lock       a lock, with fencing tokens                         one holder at a time?
lease      holders by lease, who work while they believe so    never two? (trusts clocks)
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from cluster.chaos.catalogue import DEFAULT
from cluster.chaos.workloads.append import Append
from cluster.chaos.workloads.bank import Bank
from cluster.chaos.workloads.base import Workload
from cluster.chaos.workloads.counter import Counter
from cluster.chaos.workloads.grow_set import GrowSet
from cluster.chaos.workloads.lease import Lease
from cluster.chaos.workloads.lock import Lock
from cluster.chaos.workloads.register import Register
from cluster.chaos.workloads.versions import Versions
from cluster.chaos.workloads.watch import Watch
from cluster.errors import Usage

SCENARIOS: Final[dict[str, Callable[[random.Random], Workload]]] = {
    "register": Register,
    "versions": Versions,
    "append": Append,
    "counter": Counter,
    "set": GrowSet,
    "bank": Bank,
    "watch": Watch,
    "lock": Lock,
    "lease": Lease,
}

# A lease is a promise about steady clocks: it cannot be kept where they run at another rate. That
# the time of day jumps must not matter to it.
_TRUST_CLOCKS: Final = ("lease",)


def default_faults(scenario: str) -> tuple[str, ...]:
    """The packages that a correct system must bear in this scenario, all at once."""
    instead = {"clock": "jump"} if scenario in _TRUST_CLOCKS else {}
    return tuple(instead.get(name, name) for name in DEFAULT)


def workload_of(scenario: str, seed: int) -> Workload:
    """The workload of a scenario; raises Usage."""
    try:
        make = SCENARIOS[scenario]
    except KeyError:
        known = ", ".join(SCENARIOS)
        raise Usage(f"there is no scenario {scenario!r}; there are: {known}") from None
    return make(random.Random(f"workload {seed}"))
