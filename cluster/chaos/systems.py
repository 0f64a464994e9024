"""The systems that can be judged, by the names under which `ring chaos --system` knows them.

Each is made from the folder that it may use and the number of its nodes. One more entry is all
that a system of one's own needs here (system.py says what it must be able to do).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from cluster.chaos.etcd import LiveEtcd
from cluster.chaos.raft_live import LiveRaft
from cluster.chaos.system import System
from cluster.errors import Usage

SYSTEMS: Final[dict[str, Callable[[Path, int], System]]] = {
    "raft": LiveRaft,
    "etcd": LiveEtcd,
}


def fresh_system(name: str, folder: Path, nodes: int) -> System:
    """A new cluster of that kind; raises Usage."""
    try:
        make = SYSTEMS[name]
    except KeyError:
        known = ", ".join(SYSTEMS)
        raise Usage(f"there is no system {name!r}; there are: {known}") from None
    return make(folder, nodes)
