"""The faults under which bugs of whole daemons must be found: plans, as a campaign takes them.

Times are seconds from the beginning of a campaign; a plan is the same for every seed, what else
happens is not.
"""

from __future__ import annotations

import itertools
from typing import Any

from cluster.chaos.plan import Episode, Plan

# How long a campaign is.
SECONDS = 14.0


def again(
    fault: str, target: str, every_s: float, lasts_s: float, first_s: float = 1.0, **values: Any
) -> Plan:
    """The same fault over and over."""
    times = [first_s + every_s * k for k in range(int((SECONDS - 2) / every_s))]
    return [Episode(fault, target, values, t, t + lasts_s) for t in times]


def together(*plans: Plan) -> Plan:
    """All of it."""
    return sorted(itertools.chain(*plans), key=lambda episode: episode.at)


POWER_CUTS = again("kill", "all", 1.0, 0.3)
NEW_LEADERS = again("kill", "leader", 0.8, 0.6)
ISOLATION = again("isolate", "all", 1.1, 0.7, grudge="isolate")
LOST_DISKS = again("wipe", "one", 3.0, 0.6)
# So late that hardly a key is written after it.
LAST_DEATH = [Episode("kill", "leader", {}, SECONDS - 0.8, SECONDS - 0.4)]
SLOW_DISKS = [Episode("slow-disk", "all", {"slow_s": 0.2}, 0.5, SECONDS - 1)]
LONELY_LEADERS = again("loss", "leader", 0.8, 0.5, loss=1.0)
LOSS = [Episode("loss", "all", {"loss": 0.3}, 0.5, SECONDS - 1)]
PAUSES = again("pause", "leader", 1.3, 0.9)
# Some leave in the moment in which all lose sight of one another; and the leader dies then.
SPLITS = together(
    again("halves", "all", 1.9, 0.9, grudge="halves"),
    again("leave", "followers", 1.9, 0.3, first_s=1.02),
)
SPLITS_AND_DEATHS = together(SPLITS, again("kill", "leader", 1.9, 0.1, first_s=1.08))
# Nobody can answer for longer than a client waits; what was asked for is done afterwards.
LOST_QUORUM = [Episode("kill", "followers", {}, t, t + 5.0) for t in (1.0, 7.5)]
# n3 lags, n2 loses a part of its log, and n1, which has all of it, is not there.
DAMAGE = [
    *(Episode("loss", "n3", {"loss": 1.0}, t, t + 1.2) for t in (1.0, 5.0, 9.0)),
    *(Episode("bitflip", "n2", {}, t + 1.0, t + 1.3) for t in (1.0, 5.0, 9.0)),
    *(Episode("kill", "n1", {}, t + 1.1, t + 3.0) for t in (1.0, 5.0, 9.0)),
]

# n3 lags, the disk of n1 is slow; then n1 loses its power, and n2, which has all of it, is away.
UNSYNCED = together(
    [Episode("loss", "n3", {"loss": 1.0}, t, t + 1.3) for t in (1.0, 4.5, 8.0)],
    [Episode("slow-disk", "n1", {"slow_s": 0.6}, t + 0.1, t + 1.2) for t in (1.0, 4.5, 8.0)],
    [Episode("kill", "n1", {}, t + 1.0, t + 1.35) for t in (1.0, 4.5, 8.0)],
    [Episode("kill", "n2", {}, t + 1.05, t + 2.6) for t in (1.0, 4.5, 8.0)],
)
