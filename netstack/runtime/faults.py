"""All that can be made wrong around one node, in one place: its links, its disk, its clock.

    {"links": {"127.0.0.1:7402": {"loss": 0.1, "delay_s": 0.02}}, "disk": {"slow_s": 0.5},
     "clock": {"offset_s": 30, "rate": 1.02}, "heal": ["links"]}

The same map is what the operator's admin call carries and what the simulation sets. A map is
checked as a whole before any of it takes effect.
"""

from __future__ import annotations

from typing import Any

from netstack.runtime.clock import Clock
from netstack.runtime.disk import DiskFaults
from netstack.runtime.endpoint import Address
from netstack.runtime.policy import LinkTable

PARTS = ("links", "disk", "clock")


class Faults:
    """What is injected into one node."""

    def __init__(self, links: LinkTable, disk: DiskFaults, clock: Clock) -> None:
        self.links = links
        self.disk = disk
        self.clock = clock

    def __repr__(self) -> str:
        return f"<Faults {self.describe()}>"

    def apply(self, change: dict[str, Any]) -> None:
        """Take a change; raises ValueError with one plain sentence, and then changes nothing."""
        unknown = sorted(set(change) - {*PARTS, "heal"})
        if unknown:
            raise ValueError(f"no faults in {unknown[0]!r}; there are {', '.join(PARTS)} and heal")
        for part in (*PARTS, "heal"):
            if not isinstance(change.get(part, [] if part == "heal" else {}), (dict, list)):
                raise ValueError(f"{part} should be a map")
        links = {
            parse_address(name): self.links.get(parse_address(name)).changed(values)
            for name, values in change.get("links", {}).items()
        }
        clock = change.get("clock", {})
        if set(clock) - {"offset_s", "rate"}:
            raise ValueError("a clock has offset_s and rate")
        trial = DiskFaults()
        trial.apply(change.get("disk", {}))
        for part in change.get("heal", ()):
            self.heal(part)
        if "rate" in clock:
            self.clock.set_rate(clock["rate"])
        self.clock.offset_s = float(clock.get("offset_s", self.clock.offset_s))
        self.disk.apply(change.get("disk", {}))
        for address, policy in links.items():
            self.links.set(address, policy)

    def heal(self, part: str | None = None) -> None:
        """Everything good again, or one part of it."""
        if part not in (None, *PARTS):
            raise ValueError(f"nothing called {part!r} to heal; there are {', '.join(PARTS)}")
        if part in (None, "links"):
            self.links.clear()
        if part in (None, "disk"):
            self.disk.heal()
        if part in (None, "clock"):
            self.clock.offset_s = 0.0
            self.clock.set_rate(1.0)

    def describe(self) -> dict[str, Any]:
        """What is wrong now; an empty map for each part that is good."""
        clock = {"offset_s": self.clock.offset_s, "rate": self.clock.rate}
        good = {"offset_s": 0.0, "rate": 1.0}
        return {
            "links": self.links.describe(),
            "disk": self.disk.describe(),
            "clock": {name: value for name, value in clock.items() if value != good[name]},
        }


def parse_address(text: str) -> Address:
    """`host:port`; raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or not host:
        raise ValueError(f"{text!r} is not an address; write host:port")
    return host, int(port)
