"""A chunk store of real processes with small chunks and short times."""

from __future__ import annotations

import time
from pathlib import Path

from ring_kit import PATIENCE, Ring

from cluster import topology

KIB = 1024
SETTINGS = {
    "chunk_bytes": 256 * KIB,
    "lease_s": 3,
    "scan_ms": 400,
    "garbage_s": 2,
    "scrub_s": 3,
}


def make_ring(home: Path, servers: int = 3, kind: str = "chunks", **settings) -> Ring:
    """`ring up` with a `[chunks]` table; kind: of the nodes that are chunk servers."""
    import dataclasses

    config = topology.create(
        home, {"raft": 3, kind: servers}, any_port=True, power_cut=bool(settings.get("power_cut"))
    )
    table = {**SETTINGS, **settings}
    topology.write(home, dataclasses.replace(config, settings={**config.settings, "chunks": table}))
    ring = Ring(home)
    ring.up()
    ring.wait(lambda: _announced(home, servers), "chunk servers in the metadata")
    return ring


def _announced(home: Path, servers: int) -> bool:
    from mapreduce.store.client import SyncChunkStore

    with SyncChunkStore(home / "cluster.toml") as store:
        return len(store.run(store.asynchronous.links.servers(fresh=True))) == servers


def until(condition, what: str, patience_s: float = 6 * PATIENCE):
    """Wait for something of real processes."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come about")
