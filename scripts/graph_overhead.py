"""What a task costs: ten thousand that do nothing, on the workers of a running cluster.

ring up graph=2 && python scripts/graph_overhead.py
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path

from mapreduce.graph.client import SyncGraphClient

TASKS, ROUNDS = 10_000, 5


def nothing(i):
    return i


def main() -> None:
    home = Path(os.environ.get("RING_HOME") or ".ring")
    flat = {f"t{i}": (nothing, i) for i in range(TASKS)}
    shapes = {
        "independent": (flat, list(flat)),
        "one sum of all": ({**flat, "sum": (sum, list(flat))}, "sum"),
    }
    with SyncGraphClient(home / "cluster.toml") as graph:
        graph.get(flat, list(flat))  # everybody is awake
        for name, (dsk, wanted) in shapes.items():
            took = []
            for _ in range(ROUNDS):
                began = time.perf_counter()
                graph.get(dsk, wanted)
                took.append((time.perf_counter() - began) / TASKS * 1e3)
            told = " ".join(f"{ms:.3f}" for ms in took)
            print(f"{name:16} {statistics.median(took):.3f} ms a task  (rounds: {told})")


if __name__ == "__main__":
    sys.exit(main())
