"""Where a new replica goes: on servers that live, have room, and are not busy (GFS §4.2).

Each server's lot is drawn with a weight: its free space, divided by what it has to do. Always the
emptiest would send everything to the newcomer at once. No two replicas share a server.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Final

from mapreduce.store.model import ServerRecord

if TYPE_CHECKING:
    import random

# Moving this much counts as much as half of the free space.
LOAD_BYTES: Final = 256 * 1024 * 1024

# What a server keeps free, so that a disk never fills to the last byte.
RESERVE_BYTES: Final = 64 * 1024 * 1024


def choose(
    servers: Iterable[ServerRecord],
    count: int,
    *,
    need_bytes: int,
    exclude: Collection[str] = (),
    rng: random.Random,
) -> list[ServerRecord]:
    """Up to `count` servers, each once, that have room for `need_bytes`; fewer if there are."""
    able = sorted(
        (s for s in servers if s.name not in exclude and has_room(s, need_bytes)),
        key=lambda server: server.name,
    )
    chosen: list[ServerRecord] = []
    while able and len(chosen) < count:
        weights = [weight(server) for server in able]
        [server] = rng.choices(able, weights)
        able.remove(server)
        chosen.append(server)
    return chosen


def has_room(server: ServerRecord, need_bytes: int) -> bool:
    """Whether so much would leave it its reserve."""
    return server.free_bytes >= need_bytes + RESERVE_BYTES


def weight(server: ServerRecord) -> float:
    """How likely a server is to be chosen, against others."""
    return server.free_bytes / (1 + server.load / LOAD_BYTES)
