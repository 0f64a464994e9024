"""What shows that a fault was there: counted while it lasted, on what it befell, of its own kind.

    a link    datagrams that were cut, lost, in a burst, held up …: a count for each cause
    a disk    how often it struck; or that the process ended over just that, by its own word
    a point   that the process was gone as at a kill -9, and nobody had killed it
    a clock   what it shows beside ours, before and after

Counts of a node grow as long as its process lives, and begin with nothing in its next life. What
was counted before a fault began is not its doing.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cluster.chaos.grudges import GRUDGES

# Which count of a link is a fault's own, and what is said of it.
_CAUSE: Final = {
    "loss": ("lost", "lost"),
    "burst": ("burst", "lost in bursts"),
    "delay": ("delayed", "held up"),
    "duplicate": ("duplicated", "duplicated"),
    "reorder": ("reordered", "overtaken"),
    "corrupt": ("corrupted", "damaged"),
    "rate": ("throttled", "held up or dropped by a busy link"),
    **dict.fromkeys(GRUDGES, ("cut", "dropped")),
}
_STRUCK: Final = {"full": "full", "slow-disk": "slow", "eio": "eio", "torn": "torn", "lie": "lies"}
# How a process ends by itself (`ends` of System.faults): without a word, or over a fault of its
# disk, the last words of which tell which it was (netstack.runtime.disk).
GONE: Final = "gone"
_LAST_WORDS: Final = {"torn": "torn write", "eio": os.strerror(errno.EIO)}

# A clock is off if it shows at least so much of what it was set off by.
_SHARE: Final = 0.5


class Meter:
    """What one node has counted since a fault began."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self._last = dict(_flat(answer))
        self._grown: dict[tuple[str, str], int] = {}

    def read(self, answer: Mapping[str, Any]) -> None:
        """A later answer of System.faults; what it does not tell has not changed."""
        for name, count in _flat(answer):
            before = self._last.get(name, 0)
            # Less than before: another life has begun to count.
            more = count - before if count >= before else count
            self._grown[name] = self._grown.get(name, 0) + more
            self._last[name] = count

    def grown(self, part: str, name: str) -> int:
        """By how much; `part` is struck, ends, or the address of a link."""
        return self._grown.get((part, name), 0)


def _flat(answer: Mapping[str, Any]) -> Iterable[tuple[tuple[str, str], int]]:
    for part in ("struck", "ends"):
        for name, count in answer.get(part, {}).items():
            yield (part, name), int(count)
    for address, link in answer.get("links", {}).items():
        for name, count in link.get("counts", {}).items():
            yield (address, name), int(count)


def of_links(fault: str, meters: Iterable[tuple[Meter, str]]) -> str:
    """What became of the datagrams of some edges; empty if nothing did.

    Args:
        meters: of the sender of each edge, with the address that it leads to.
    """
    count, said = _CAUSE[fault]
    total = sum(meter.grown(address, count) for meter, address in meters)
    return f"{total} datagrams {said}" if total else ""


def ended_over(event: Mapping[str, Any]) -> str:
    """The fault of its disk over which a node says that it ended; empty if over none."""
    if event["kind"] != "node.fatal":
        return ""
    error = str(event.get("error", ""))
    return next((name for name, words in _LAST_WORDS.items() if error.endswith(words)), "")


def of_disk(fault: str, name: str, meter: Meter) -> str:
    """How often the disk of `name` struck; empty if it did not."""
    if count := meter.grown("struck", _STRUCK[fault]):
        return f"{name}: {_STRUCK[fault]} {count} times"
    if fault in _LAST_WORDS and meter.grown("ends", fault):
        return f"{name} gave up over its disk: {_LAST_WORDS[fault]}"
    return ""


def of_point(point: str, name: str, meter: Meter) -> str:
    """Whether the process of `name` was gone at a point of its code."""
    return f"{name} died at {point}" if meter.grown("ends", GONE) else ""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a node's clocks showed at a moment of ours."""

    at: float
    wall: float
    steady: float
    life: int

    @classmethod
    def of(cls, answer: Mapping[str, Any], at: float, life: int) -> Reading | None:
        """None if it did not tell."""
        if "wall" not in answer or "steady" not in answer:
            return None
        return cls(at, answer["wall"], answer["steady"], life)


def of_clock(
    values: Mapping[str, float], name: str, before: Reading | None, after: Reading | None
) -> str:
    """By how much the clock of `name` was seen to be off; empty if by nothing of what was set."""
    if before is None or after is None or after.at <= before.at:
        return ""
    ours = after.at - before.at
    if "offset_s" in values:
        off = after.wall - before.wall - ours
        wanted = values["offset_s"]
        return f"{name}: wall clock off by {off:+.2f} s" if _shows(off, wanted) else ""
    # A steady clock begins anew with each life, and says nothing about the time before.
    if after.life != before.life:
        return ""
    rate = (after.steady - before.steady) / ours
    told = f"{name}: steady clock ran {rate:.2f} times as fast"
    return told if _shows(rate - 1, values["rate"] - 1) else ""


def _shows(seen: float, wanted: float) -> bool:
    return wanted != 0 and seen / wanted >= _SHARE
