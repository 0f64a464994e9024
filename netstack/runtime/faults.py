"""All that can be made wrong with one node, in one place: links, disk, clock, lines of its code.

    {"links": {"127.0.0.1:7402": {"loss": 0.1, "delay_s": 0.02}}, "disk": {"slow_s": 0.5},
     "clock": {"offset_s": 30, "rate": 1.02}, "points": {"wal.append.before-sync": {"after": 3}},
     "heal": ["links"]}

The same map is what the operator's admin call carries and what the simulation sets. A map is
checked as a whole before any of it takes effect. Links, a full or slow disk and a wrong clock
belong to the machine, not to the process: `lasting` says what its next life begins with.
"""

from __future__ import annotations

import math
from typing import Any

from netstack.runtime.clock import Clock, check_rate
from netstack.runtime.disk import DiskFaults
from netstack.runtime.endpoint import Address
from netstack.runtime.failpoints import Failpoints
from netstack.runtime.failpoints import checked as checked_points
from netstack.runtime.policy import PERFECT, LinkPolicy, LinkTable

PARTS = ("links", "disk", "clock", "points")

# What a disk does once, and has done then.
_DISK_ONCE = ("torn", "eio_at", "sync_error", "lie_once")


class Faults:
    """What is injected into one node."""

    def __init__(
        self, links: LinkTable, disk: DiskFaults, clock: Clock, points: Failpoints
    ) -> None:
        self.links = links
        self.disk = disk
        self.clock = clock
        self.points = points

    def __repr__(self) -> str:
        return f"<Faults {self.describe()}>"

    def apply(self, change: dict[str, Any]) -> None:
        """Take a change; raises ValueError with one plain sentence, and then changes nothing."""
        unknown = sorted(set(change) - {*PARTS, "heal"})
        if unknown:
            raise ValueError(f"no faults in {unknown[0]!r}; there are {', '.join(PARTS)} and heal")
        wanted = {part: change.get(part, {}) for part in PARTS}
        for part, values in wanted.items():
            if not isinstance(values, dict):
                raise ValueError(f"{part} should be a map, not {values!r}")
        healed = change.get("heal", [])
        if not isinstance(healed, list):
            raise ValueError(f"heal should be a list, not {healed!r}")
        for part in healed:
            _check_part(part)
        links = self._policies(wanted["links"], afresh="links" in healed)
        clock = _clock_change(wanted["clock"])
        DiskFaults().apply(wanted["disk"])
        checked_points(wanted["points"])
        # All of it makes sense: now it takes effect.
        for part in healed:
            self.heal(part)
        if "rate" in clock:
            self.clock.set_rate(clock["rate"])
        self.clock.offset_s = clock.get("offset_s", self.clock.offset_s)
        self.disk.apply(wanted["disk"])
        self.points.apply(wanted["points"])
        for address, policy in links.items():
            self.links.set(address, policy)

    def _policies(self, links: dict[str, Any], *, afresh: bool) -> dict[Address, LinkPolicy]:
        """What the named links are to be; `afresh`: whatever was wrong with them is healed."""
        policies = {}
        for name, values in links.items():
            address = parse_address(name)
            if not isinstance(values, dict):
                raise ValueError(f"the link to {name} should be a map, not {values!r}")
            before = PERFECT if afresh else self.links.get(address)
            policies[address] = before.changed(values)
        return policies

    def heal(self, part: str | None = None) -> None:
        """Everything good again, or one part of it."""
        if part is not None:
            _check_part(part)
        if part in (None, "links"):
            self.links.clear()
        if part in (None, "disk"):
            self.disk.heal()
        if part in (None, "clock"):
            self.clock.offset_s = 0.0
            self.clock.set_rate(1.0)
        if part in (None, "points"):
            self.points.clear()

    def lasting(self) -> dict[str, Any]:
        """The change that makes another life of this node as wrong as this one."""
        wrong = self.describe()
        for link in wrong["links"].values():
            del link["counts"]
        del wrong["points"], wrong["struck"]
        for name in _DISK_ONCE:
            wrong["disk"].pop(name, None)
        return wrong

    def describe(self) -> dict[str, Any]:
        """What is wrong now, an empty map for each part that is good; and how often it struck."""
        clock = {"offset_s": self.clock.offset_s, "rate": self.clock.rate}
        good = {"offset_s": 0.0, "rate": 1.0}
        return {
            "links": self.links.describe(),
            "disk": self.disk.describe(),
            "clock": {name: value for name, value in clock.items() if value != good[name]},
            "points": self.points.describe(),
            "struck": dict(self.disk.counts),
        }


def parse_address(text: str) -> Address:
    """`host:port`; raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or not host or int(port) > 65_535:
        raise ValueError(f"{text!r} is not an address; write host:port")
    return host, int(port)


def _check_part(part: object) -> None:
    if part not in PARTS:
        raise ValueError(f"nothing called {part!r} to heal; there are {', '.join(PARTS)}")


def _clock_change(values: dict[str, Any]) -> dict[str, float]:
    for name, value in values.items():
        if name not in ("offset_s", "rate"):
            raise ValueError("a clock has offset_s and rate")
        if type(value) not in (int, float) or not math.isfinite(value):
            raise ValueError(f"clock.{name} is a number, not {value!r}")
    if "rate" in values:
        check_rate(values["rate"])
    return {name: float(value) for name, value in values.items()}
