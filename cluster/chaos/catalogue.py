"""What can be made to go wrong, as data: which nodes it befalls, how long, and with what values.

A fault is not carried out here (injector.py does that); it is drawn here, from a seeded die, so
that a plan is a list that can be printed, stored, replayed and made smaller. Faults that go
together are a package, named on the command line:

    kill         one, some or all processes end without a word, and are started again
    host         a machine is lost: its process is gone, and nothing answers in its place
    pause        SIGSTOP, later SIGCONT;  slow: so, fifty times a second
    partition    halves, isolate, bridge, ring, chain, one-way (grudges.py)
    packets      lost, in bursts too, late, twice, out of order, damaged, throttled
    disk         full, slow, failing once, torn in the middle of a write
    clock        jumps, and runs fast or slow
    files        damaged while the node is down; its data is taken from the others again
    members      some leave the cluster by its own decision, run on, and join again, empty
    crashpoints  it dies at a named line of its code (netstack.runtime.failpoints)

`lies`, a disk that says "synced" and forgets, stands alone: no system survives it, and a run with
it shows that the judge notices.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from cluster.chaos.grudges import GRUDGES
from netstack.runtime.failpoints import catalogue as failpoints

Values = dict[str, Any]

# What a system must be able to do to its nodes for a fault to be possible (system.py).
PROCESS, PAUSE, FAULTS, FILES, MEMBERS = "process", "pause", "faults", "files", "members"

# Who is chosen, as on the command line (cluster/selectors.py).
SOME: Final = ("one", "one", "leader", "leader", "minority")
ANY: Final = (*SOME, "majority", "all")


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of misfortune.

    targets: selectors to draw from.
    draw: the values of one occurrence.
    lasts_s: shortest and longest, from beginning to end.
    needs: what the system must be able to do to its nodes.
    unseats: whether a leader that it befalls must lose its place, or nothing was tested.
    excuses: whether a quorum that it befalls may be silent meanwhile.
    nodes_min: in a smaller cluster there is nothing of it: a circle of three cuts nothing.
    """

    name: str
    needs: str
    targets: tuple[str, ...]
    lasts_s: tuple[float, float]
    draw: Callable[[random.Random], Values]
    unseats: bool = False
    excuses: bool = True
    nodes_min: int = 1


def _nothing(rng: random.Random) -> Values:
    return {}


def _one_of(**choices: tuple[Any, ...]) -> Callable[[random.Random], Values]:
    """A value of each of the choices."""
    return lambda rng: {name: rng.choice(values) for name, values in choices.items()}


# Points that a busy node comes to every few milliseconds; the others are rare.
_OFTEN: Final = ("wal.append.", "raft.persisted", "raft.before-apply")


def _crash_point(rng: random.Random) -> Values:
    points = list(failpoints("raftd"))
    often = [point for point in points if point.startswith(_OFTEN)]
    point = rng.choice(often if rng.random() < 0.8 else points)
    return {"point": point, "after": rng.choice((1, 2, 5))}


_LINKS_S = (2.0, 8.0)

# The shapes of partitions need so many; a chain of three is a bridge.
_NODES_MIN = {"bridge": 3, "ring": 4, "chain": 4}

_JUMPS_S: Final = (-3600.0, -2.0, 2.0, 86_400.0)
# (name, targets, whether a quorum may be silent meanwhile, values)
_OF_LINKS: Final[tuple[tuple[str, tuple[str, ...], bool, dict[str, tuple[Any, ...]]], ...]] = (
    ("loss", ANY, True, {"loss": (0.05, 0.2, 0.4)}),
    ("burst", ANY, True, {"burst_begin": (0.02, 0.1), "burst_end": (0.1, 0.3)}),
    ("delay", ANY, True, {"delay_s": (0.005, 0.05), "jitter_s": (0.0, 0.01)}),
    ("duplicate", ANY, False, {"duplicate": (0.1, 0.5)}),
    ("reorder", ANY, False, {"reorder": (0.1, 0.4), "reorder_s": (0.01,)}),
    ("corrupt", ANY, True, {"corrupt": (0.02, 0.2)}),
    ("rate", SOME, True, {"rate_bytes_s": (50_000, 500_000)}),
)

FAULTS_BY_NAME: Final[dict[str, Fault]] = {
    fault.name: fault
    for fault in (
        Fault("kill", PROCESS, ANY, (0.5, 4.0), _nothing, unseats=True),
        Fault("host", FAULTS, SOME, (2.0, 6.0), _nothing, unseats=True),
        Fault("pause", PAUSE, ANY, (0.3, 4.0), _nothing),
        Fault("slow", PAUSE, SOME, (2.0, 6.0), _one_of(duty=(0.3, 0.6))),
        *(
            Fault(
                name,
                FAULTS,
                ("all",),
                _LINKS_S,
                _one_of(grudge=(name,)),
                nodes_min=_NODES_MIN.get(name, 2),
            )
            for name in GRUDGES
        ),
        *(
            Fault(name, FAULTS, targets, _LINKS_S, _one_of(**values), excuses=bad, nodes_min=2)
            for name, targets, bad, values in _OF_LINKS
        ),
        Fault("full", FAULTS, SOME, _LINKS_S, _one_of(full=(True,))),
        Fault("slow-disk", FAULTS, ANY, _LINKS_S, _one_of(slow_s=(0.02, 0.2))),
        Fault("eio", FAULTS, SOME, (1.0, 4.0), _one_of(eio_at=(1, 2, 3, 10))),
        Fault("torn", FAULTS, SOME, (1.0, 4.0), _one_of(torn=(True,))),
        Fault("lie", FAULTS, ("all",), (4.0, 8.0), _one_of(sync_lies=(True,))),
        Fault("jump", FAULTS, ANY, _LINKS_S, _one_of(offset_s=_JUMPS_S), excuses=False),
        Fault("drift", FAULTS, SOME, _LINKS_S, _one_of(rate=(0.5, 0.9, 1.1, 2.0))),
        Fault("bitflip", FILES, ("one", "leader"), (1.0, 3.0), _nothing, nodes_min=3),
        Fault("truncate", FILES, ("one", "leader"), (1.0, 3.0), _nothing, nodes_min=3),
        Fault("old-copy", FILES, ("one", "leader"), (2.0, 4.0), _nothing, nodes_min=3),
        Fault("wipe", FILES, ("one", "leader"), (1.0, 3.0), _nothing, nodes_min=3),
        Fault("leave", MEMBERS, SOME, (2.0, 5.0), _nothing, nodes_min=3),
        Fault("crashpoint", FAULTS, SOME, (2.0, 5.0), _crash_point),
    )
}

PACKAGES: Final[dict[str, tuple[str, ...]]] = {
    "kill": ("kill",),
    "host": ("host",),
    "pause": ("pause", "slow"),
    "partition": tuple(GRUDGES),
    "packets": ("loss", "burst", "delay", "duplicate", "reorder", "corrupt", "rate"),
    "disk": ("full", "slow-disk", "eio", "torn"),
    "clock": ("jump", "drift"),
    "files": ("bitflip", "truncate", "old-copy", "wipe"),
    "members": ("leave",),
    "crashpoints": ("crashpoint",),
    "lies": ("lie",),
}

# What a healthy system must bear, all at once.
DEFAULT: Final = tuple(name for name in PACKAGES if name != "lies")


def package_of(fault: str) -> str:
    """The package that a fault belongs to."""
    return next(name for name, faults in PACKAGES.items() if fault in faults)


class UnknownFault(ValueError):
    """There is no such package or fault; the sentence names those there are."""


def package(name: str) -> tuple[str, ...]:
    """The faults of a package, or one fault by its own name; raises UnknownFault."""
    if name in PACKAGES:
        return PACKAGES[name]
    if name in FAULTS_BY_NAME:
        return (name,)
    raise UnknownFault(
        f"there is no fault {name!r}; packages: {', '.join(PACKAGES)}; "
        f"single faults: {', '.join(FAULTS_BY_NAME)}"
    )
