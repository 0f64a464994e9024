"""What has to be done so that each chunk has as many replicas as it should: a plan, without I/O.

Rules that make it safe (`healer.py` and `chunk_server.py` keep them too):

- A server is added to a chunk's record only by itself, when the chunk is on its disk and synced.
- A server is taken from a record only when as many others as there should be hold the chunk, live,
  and have just checked theirs. So the last good copy, wherever it is, stays listed.
- Bytes are deleted only by the server that has them, when the record does not list it (any more).

The worst off go first (GFS §4.3): a chunk that one server holds comes before one that two do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mapreduce.store import placement
from mapreduce.store.blocks import stored_bytes
from mapreduce.store.model import ChunkRecord, ServerRecord

if TYPE_CHECKING:
    import random

# Clones under way at a time, in the whole cluster and towards one server: healing a dead server
# should not drown what people are doing.
CLONES_MAX: Final = 8
CLONES_A_SERVER_MAX: Final = 2


@dataclass(frozen=True, slots=True)
class Clone:
    """Have `target` fetch the chunk from one of those that list it."""

    record: ChunkRecord
    target: str


@dataclass(frozen=True, slots=True)
class Unlist:
    """Take `node` from the record, if all of `holders` say that theirs is good."""

    record: ChunkRecord
    node: str
    holders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Health:
    """How the chunks are: how many have too few living replicas, and how many have none."""

    chunks: int
    under_replicated: int
    unavailable: int


def living(record: ChunkRecord, servers: Mapping[str, ServerRecord]) -> list[str]:
    """Those that list it and live."""
    return [name for name in record.nodes if name in servers]


def health(records: Iterable[ChunkRecord], servers: Mapping[str, ServerRecord]) -> Health:
    """Counted over all committed chunks."""
    counts = [
        (len(living(record, servers)), record.replicas) for record in records if record.committed
    ]
    return Health(
        len(counts),
        sum(alive < wanted for alive, wanted in counts),
        sum(alive == 0 for alive, _ in counts),
    )


def plan(
    records: Iterable[ChunkRecord],
    servers: Mapping[str, ServerRecord],
    under_way: Collection[tuple[str, str]],
    rng: random.Random,
) -> list[Clone | Unlist]:
    """What to begin now, the most urgent first.

    under_way: (chunk, target) of clones that have not ended.
    """
    committed = [record for record in records if record.committed]
    return [
        *_clones(committed, servers, under_way, rng),
        *(action for record in committed if (action := _unlist(record, servers))),
    ]


def _clones(
    records: list[ChunkRecord],
    servers: Mapping[str, ServerRecord],
    under_way: Collection[tuple[str, str]],
    rng: random.Random,
) -> list[Clone]:
    busy = {name: sum(target == name for _, target in under_way) for name in servers}
    room = CLONES_MAX - len(under_way)
    found: list[Clone] = []
    for record in sorted(records, key=lambda r: (len(living(r, servers)), r.chunk)):
        coming = [target for chunk, target in under_way if chunk == record.chunk]
        alive = len(living(record, servers))
        missing = record.replicas - alive - len(coming)
        if missing <= 0 or not alive:
            continue
        full = [name for name, count in busy.items() if count >= CLONES_A_SERVER_MAX]
        for server in placement.choose(
            servers.values(),
            min(missing, room),
            need_bytes=stored_bytes(record.length),
            exclude={*record.nodes, *coming, *full},
            rng=rng,
        ):
            found.append(Clone(record, server.name))
            busy[server.name] += 1
            room -= 1
        if room <= 0:
            break
    return found


def _unlist(record: ChunkRecord, servers: Mapping[str, ServerRecord]) -> Unlist | None:
    """One at a time: the dead first, then the one whose disk is fullest."""
    alive = living(record, servers)
    if len(alive) < record.replicas or len(record.nodes) == record.replicas:
        return None
    dead = [name for name in record.nodes if name not in servers]
    node = dead[0] if dead else min(alive, key=lambda name: (servers[name].free_bytes, name))
    return Unlist(record, node, tuple(name for name in alive if name != node))
