"""Which nodes a command means: `n1`, `n1,n3`, `leader`, `followers`, `minority`, `raft:*` …"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.errors import Usage

# What a node of a service with a leader says of itself.
_RANKS = ("leader", "follower", "candidate", "precandidate")

WORDS = ("all", "leader", "followers", "one", "minority", "majority")


@dataclass(frozen=True, slots=True)
class NodeView:
    """What a selector may ask about."""

    name: str
    service: str
    role: str
    alive: bool


def resolve(text: str, nodes: Sequence[NodeView], rng: random.Random) -> list[str]:
    """Names that `text` selects, in the order of the topology; Usage when it selects none."""
    chosen: list[str] = []
    for part in text.split(","):
        chosen += [name for name in _part(part.strip(), nodes, rng) if name not in chosen]
    order = [node.name for node in nodes]
    return sorted(chosen, key=order.index)


def _part(word: str, nodes: Sequence[NodeView], rng: random.Random) -> list[str]:
    names = [node.name for node in nodes]
    if word in names:
        return [word]
    service, colon, rest = word.partition(":")
    if colon:
        of_service = [node for node in nodes if node.service == service]
        if not of_service:
            raise Usage(f"there is no {service!r} node here; nodes: {', '.join(names)}")
        return [n.name for n in of_service] if rest == "*" else _part(rest, of_service, rng)
    alive = [node for node in nodes if node.alive]
    if word == "all":
        return names
    if word in ("leader", "followers"):
        leads = word == "leader"
        led = {node.service for node in nodes if node.role in _RANKS}
        found = [
            node.name for node in alive if (node.role == "leader") == leads and node.service in led
        ]
        if not found:
            raise Usage(f"there is no {word.removesuffix('s')} at the moment")
        return found
    if word in ("one", "minority", "majority"):
        count = {
            "one": 1,
            "minority": max(1, (len(nodes) - 1) // 2),
            "majority": len(nodes) // 2 + 1,
        }[word]
        candidates = [node.name for node in alive]
        if len(candidates) < count:
            raise Usage(f"{word} means {count} running nodes; there are {len(candidates)}")
        return rng.sample(candidates, count)
    raise Usage(f"{word!r} is no node; nodes: {', '.join(names)}; or one of {', '.join(WORDS)}")
