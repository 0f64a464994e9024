"""A system that only remembers what was done to it, on a clock of its own."""

from __future__ import annotations

import asyncio
from typing import Any

from cluster.chaos.catalogue import FAULTS, FILES, MEMBERS, PAUSE, PROCESS
from cluster.chaos.system import NoEffect, Refused, View
from netstack.runtime.simulation.loop import VirtualLoop


class FakeSystem:
    """Nodes in a table. `deeds` is what was done, in order."""

    name = "fake"
    able = frozenset((PROCESS, PAUSE, FAULTS, FILES, MEMBERS))

    def __init__(self, nodes: int = 5) -> None:
        self.nodes = tuple(f"n{i}" for i in range(1, nodes + 1))
        self.states = dict.fromkeys(self.nodes, "running")
        self.lives = dict.fromkeys(self.nodes, 1)
        self.links: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in self.nodes}
        self.counts: dict[str, int] = {}
        self.struck: dict[str, int] = {}
        self.clock: dict[str, float] = {}  # as it was set
        self.obeys = True  # its clock is as it was set
        self.ends: dict[str, int] = {}
        self._steady, self._looked, self._rate = 50.0, 0.0, 1.0
        self.deeds: list[tuple[str, ...]] = []
        self.leader = "n1"
        self.notices = True  # a flipped bit keeps a node from starting
        self.replaceable = True
        self.decides = True  # who belongs to it

    async def look(self) -> dict[str, View]:
        return {
            name: View(
                name,
                state,
                "leader" if name == self.leader else "follower",
                health="ok" if state == "running" else "down",
                lives=self.lives[name],
            )
            for name, state in self.states.items()
        }

    def address(self, node: str) -> str:
        return f"127.0.0.1:{7000 + self.nodes.index(node)}"

    async def kill(self, node: str) -> str:
        self.deeds.append(("kill", node))
        if self.states[node] != "running":
            raise NoEffect(f"{node} has no process")
        self.states[node] = "killed"
        return f"{node} is gone"

    async def lose(self, node: str) -> str:
        return await self.kill(node)

    async def revive(self, node: str) -> str:
        self.deeds.append(("revive", node))
        damaged = any(d[:2] == ("damage", node) and d[2] != "keep" for d in self.deeds)
        self.states[node] = "fatal" if damaged and self.notices else "running"
        self.lives[node] += 1
        return self.states[node]

    async def pause(self, node: str) -> str:
        self.deeds.append(("pause", node))
        self.states[node] = "paused"
        return f"{node} stands still"

    async def resume(self, node: str) -> str:
        self.deeds.append(("resume", node))
        self.states[node] = "running"
        return ""

    async def slow(self, node: str, share: float) -> str:
        self.deeds.append(("slow", node, str(share)))
        return "" if share < 1 else f"{node} was slow"

    async def faults(self, node: str, change: dict[str, Any]) -> dict[str, Any]:
        for part, values in change.items():
            self.deeds.append((part, node, str(values)))
        self.links[node].update(change.get("links", {}))
        self.clock.update(change.get("clock", {}))
        now = asyncio.get_running_loop().time()
        wrong = self.clock if self.obeys else {}
        self._steady += (now - self._looked) * self._rate
        self._looked, self._rate = now, wrong.get("rate", 1.0)
        counted = {at: {"counts": dict(self.counts)} for at in map(self.address, self.nodes)}
        return {
            "links": counted,
            "disk": {},
            "clock": self.clock,
            "points": {},
            "struck": dict(self.struck),
            "ends": dict(self.ends),
            "wall": 1000.0 + now + wrong.get("offset_s", 0.0),
            "steady": self._steady,
        }

    async def damage(self, node: str, how: str, seed: int) -> str:
        self.deeds.append(("damage", node, how))
        return f"{how} of {node}"

    async def leave(self, nodes) -> str:
        self.deeds.append(("leave", *nodes))
        if not self.decides:
            raise Refused("nobody leads")
        return f"without {', '.join(nodes)}"

    async def replace(self, node: str) -> str:
        self.deeds.append(("replace", node))
        if not self.replaceable:
            raise Refused("not now")
        self.states[node] = "running"
        return ""

    def cut(self) -> set[tuple[str, str]]:
        """The edges that are cut now."""
        by_address = {self.address(name): name for name in self.nodes}
        return {
            (a, by_address[at])
            for a, links in self.links.items()
            for at, policy in links.items()
            if policy["cut"]
        }


async def later(seconds: float, counts: dict[str, int], more: dict[str, int]) -> None:
    """Something is counted meanwhile."""
    await asyncio.sleep(seconds)
    for name, count in more.items():
        counts[name] = counts.get(name, 0) + count


def in_virtual_time(scenario):
    """Run a coroutine whose sleeps cost nothing."""
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(scenario)
    finally:
        asyncio.set_event_loop(None)
        loop.close()
