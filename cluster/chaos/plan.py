"""A fault plan: what befalls whom, when, and until when. Data, drawn from a seed.

    {"fault": "kill", "target": "leader", "values": {}, "at": 3.2, "until": 5.9}

Each package goes through the time on its own: quiet for a while, one fault of its own, quiet
again; so faults of different packages overlap, and those of one do not. A target is a selector,
looked up when the time has come, because nobody knows now who will lead then.

The same plan can be carried out again. In the simulation that gives the same run, byte for byte;
on live processes it gives the same faults at the same times, and the interleaving is the
machine's.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from cluster.chaos.catalogue import FAULTS_BY_NAME, package, package_of

# More at once, and a small cluster is down most of the time: nothing is tested by that.
AT_ONCE: Final = 1.6
EPISODE_S: Final = 3.5  # about as long as one lasts


@dataclass(frozen=True, slots=True)
class Episode:
    """One fault from its beginning to its end, in seconds since the run began."""

    fault: str
    target: str
    values: dict[str, Any]
    at: float
    until: float

    def __str__(self) -> str:
        values = "".join(f" {name}={value}" for name, value in self.values.items())
        return f"{self.at:6.2f} to {self.until:6.2f}  {self.fault} {self.target}{values}"


Plan = list[Episode]


def draw_plan(
    packages: Sequence[str],
    seconds: float,
    rng: random.Random,
    *,
    interval_s: float | None = None,
    able: Iterable[str] | None = None,
    nodes: int = 3,
) -> Plan:
    """A plan of all packages, in the order of the beginnings; raises UnknownFault.

    Args:
        packages: names of packages or of single faults.
        seconds: all episodes end by then.
        interval_s: mean time of quiet between two faults of a package; else so long that
            AT_ONCE faults are under way on average.
        nodes: of the system; faults that need more are left out.
        able: what the system can do to its nodes; other faults are left out. None: everything.
    """
    plan: Plan = []
    if interval_s is None:
        interval_s = max(2.0, EPISODE_S * (len(packages) / AT_ONCE - 1))
    known = None if able is None else frozenset(able)
    for name in packages:
        faults = [FAULTS_BY_NAME[n] for n in package(name) if not _why_not(n, known, nodes)]
        # Each package begins early enough that none is missing in a short run.
        now = rng.uniform(0.1, min(interval_s, max(0.2, seconds / 2)))
        while faults:
            fault = rng.choice(faults)
            until = now + rng.uniform(*fault.lasts_s)
            if until > seconds:
                break
            plan.append(
                Episode(
                    fault.name,
                    rng.choice(fault.targets),
                    fault.draw(rng),
                    round(now, 3),
                    round(until, 3),
                )
            )
            now = until + rng.expovariate(1 / interval_s)
    return sorted(plan, key=lambda episode: episode.at)


def impossible(packages: Sequence[str], able: Iterable[str], nodes: int) -> dict[str, str]:
    """Those of the packages of which a system can suffer nothing, and why."""
    known = frozenset(able)
    found = {}
    for name in packages:
        reasons = [_why_not(fault, known, nodes) for fault in package(name)]
        if all(reasons):
            found[name] = reasons[0]
    return found


def _why_not(fault: str, able: frozenset[str] | None, nodes: int) -> str:
    """Why nothing of it can happen; empty if it can."""
    kind = FAULTS_BY_NAME[fault]
    if able is not None and kind.needs not in able:
        return "it is out of reach there"
    if nodes < kind.nodes_min:
        return f"it takes {kind.nodes_min} nodes, and there are {nodes}"
    return ""


def packages_in(plan: Plan) -> tuple[str, ...]:
    """The packages of which it has something."""
    return tuple(dict.fromkeys(package_of(episode.fault) for episode in plan))


def write_plan(path: Path, plan: Plan) -> None:
    """JSON lines, an episode a line."""
    path.write_text("".join(json.dumps(asdict(episode)) + "\n" for episode in plan))


def read_plan(path: Path) -> Plan:
    """What write_plan wrote, or a person; raises ValueError that names the line."""
    plan = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            episode = Episode(**json.loads(line))
            if episode.fault not in FAULTS_BY_NAME:
                raise ValueError(f"there is no fault {episode.fault!r}")
            if not 0 <= episode.at < episode.until:
                raise ValueError("it should begin at 0 or later, and end after that")
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        plan.append(episode)
    return sorted(plan, key=lambda episode: episode.at)
