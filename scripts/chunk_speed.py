"""What the chunk store moves: one file in and out, on the chunk servers of a running cluster.

ring up chunks=3 && python scripts/chunk_speed.py
"""

from __future__ import annotations

import hashlib
import os
import statistics
import sys
import time
from pathlib import Path

from mapreduce.store.client import SyncChunkStore

MEGABYTES, ROUNDS = 64, 5


def main() -> None:
    home = Path(os.environ.get("RING_HOME") or ".ring")
    data = os.urandom(MEGABYTES * 1_000_000)
    rates: dict[str, list[float]] = {}
    with SyncChunkStore(home / "cluster.toml") as store:
        for _ in range(ROUNDS):
            for replicas in (1, 2, 3):
                began = time.perf_counter()
                store.put("speed", data, replicas=replicas)
                took = time.perf_counter() - began
                rates.setdefault(f"put, {replicas} replicas", []).append(MEGABYTES / took)
            began = time.perf_counter()
            read = store.read("speed")
            rates.setdefault("get", []).append(MEGABYTES / (time.perf_counter() - began))
            assert read == data, "it is not what was written"
            began = time.perf_counter()
            hashlib.sha256(data)
            rates.setdefault("sha256 (for scale)", []).append(
                MEGABYTES / (time.perf_counter() - began)
            )
        store.remove("speed")
    for name, found in rates.items():
        told = " ".join(f"{rate:.0f}" for rate in found)
        print(f"{name:20} {statistics.median(found):7.1f} MB/s  (rounds: {told})")


if __name__ == "__main__":
    sys.exit(main())
