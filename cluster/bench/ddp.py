"""`ring bench ddp`: allreduce beside gloo and OpenMPI, and torch's DDP on us and on gloo.

float32, P = 2 and 4, from 4 KB to 100 MB; bus bandwidth, and for 4 KB the time. Each system has
its own processes on this machine; ours once over shared memory, once over netstack, encrypted.
All are taken in turn, and a figure is the median of the rounds. With more ranks than cores
everybody measures scheduling as well.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
from typing import Any, Final

from cluster.bench.harness import Report, Row
from cluster.topology import free_ports

ROUNDS: Final = 3
SIZES: Final = {4096: "4 KB", 1 << 20: "1 MB", 1 << 24: "16 MB", 100_000_000: "100 MB"}
RANKS: Final = (2, 4)
OURS: Final = {"shared memory": "shared", "netstack": "network"}
PEERS: Final = ("gloo", "OpenMPI shared memory", "OpenMPI TCP")
TRAIN_STEPS: Final = 20

# What gloo took for 4 KB between two processes when the bar was set, in microseconds.
SMALL_US_BAR: Final = 770.0

MPI: Final = [
    "mpirun", "--allow-run-as-root", "--oversubscribe", "--mca", "pml", "ob1", "--mca", "btl",
]  # fmt: skip
MPI_WAYS: Final = {
    "OpenMPI shared memory": ["self,vader"],
    "OpenMPI TCP": ["self,tcp", "--mca", "btl_tcp_if_include", "127.0.0.0/8"],
}


def run(*, peers: bool, seconds: float = 3.0) -> Report:
    """Take all rounds; raises RuntimeError if a result was wrong or a child failed."""
    report = Report("ddp")
    kinds = [*OURS, *(peer for peer in PEERS if peers and installed(peer))]
    for ranks in RANKS:
        found: dict[str, list[list[float]]] = {kind: [] for kind in kinds}
        for _ in range(ROUNDS):
            for kind in kinds:
                found[kind].append(_round(kind, ranks, cases(seconds)))
        times = {
            kind: [statistics.median(column) for column in zip(*rounds, strict=True)]
            for kind, rounds in found.items()
        }
        report.rows += _rows(ranks, times, peers)
    if peers:
        report.rows += _training()
    return report


def cases(seconds: float) -> list[list[int]]:
    """[bytes, calls] so that a round of one system takes some seconds."""
    return [[size, max(3, min(300, int(seconds * 1e7 / size)))] for size in SIZES]


def installed(peer: str) -> bool:
    """Whether it can be measured here."""
    if peer == "gloo":
        return importlib.util.find_spec("torch") is not None
    return importlib.util.find_spec("mpi4py") is not None and shutil.which("mpirun") is not None


def _round(kind: str, ranks: int, wanted: list[list[int]]) -> list[float]:
    if kind in OURS:
        return _ours(OURS[kind], ranks, wanted)
    if kind == "gloo":
        port = str(_free_port())
        commands = [["gloo", str(r), str(ranks), port, json.dumps(wanted)] for r in range(ranks)]
        return list(_children(commands))
    way = [*MPI, *MPI_WAYS[kind], "-n", str(ranks), sys.executable]
    command = [*way, "-m", "cluster.bench.ddp_peers", "mpi", json.dumps(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=_environment())
    if done.returncode:
        raise RuntimeError(f"{kind}: {done.stderr[-500:]}")
    return list(json.loads(done.stdout))


def _ours(transport: str, ranks: int, wanted: list[list[int]]) -> list[float]:
    from ddp.client import Launch, perf_rows

    arguments = {"cases": wanted}
    with Launch(ranks, "ddp.perf:measure_cases", arguments, transport=transport) as launch:
        rows = perf_rows(launch.results(600))
    wrong = sum(row[kind]["wrong"] for row in rows for kind in ("out_of_place", "in_place"))
    if wrong:
        raise RuntimeError(f"{wrong} elements are wrong")
    return [row["in_place"]["time"] / 1e6 for row in rows]


def _children(commands: list[list[str]]) -> Any:
    """Run them together; what the first prints."""
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "cluster.bench.ddp_peers", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
        )
        for command in commands
    ]
    try:
        output = [child.communicate(timeout=600)[0] for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()
    if any(child.returncode for child in children):
        raise RuntimeError(f"a child failed: {commands[0]}")
    return json.loads(output[0])


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _free_port() -> int:
    import socket

    return free_ports(1, socket.SOCK_STREAM)[0]


def bar(ours: str, peer: str, size: int) -> float | None:
    """The least ratio, as this project has set itself."""
    if ours == "shared memory":
        if peer == "gloo" or (peer == "OpenMPI shared memory" and size >= 1 << 20):
            return 1.0
    elif peer == "gloo" and size >= 1 << 24:
        return 0.5
    return None


def _rows(ranks: int, times: dict[str, list[float]], peers: bool) -> list[Row]:
    rows = []
    factor = 2 * (ranks - 1) / ranks
    for at, (size, name) in enumerate(SIZES.items()):
        for ours in OURS:
            case = f"{ours}: {name}, P = {ranks}"
            seconds = times[ours][at]
            if size == 4096 and ranks == 2:
                rows.append(Row(case, "time", "µs", seconds * 1e6, bar=SMALL_US_BAR))
            for peer in PEERS if peers else ("-",):
                theirs = times[peer][at] if peer in times else None
                note = "" if theirs or peer == "-" else f"{peer} is not installed"
                least = bar(ours, peer, size)
                if size == 4096:
                    theirs_us = theirs * 1e6 if theirs else None
                    rows.append(
                        Row(case, "time", "µs", seconds * 1e6, peer, theirs_us, least, note)
                    )
                else:
                    mine = size / seconds * factor / 1e9
                    other = size / theirs * factor / 1e9 if theirs else None
                    rows.append(Row(case, "busbw", "GB/s", mine, peer, other, least, note))
    return rows


def _training() -> list[Row]:
    """Steps a second of a 4-layer, 1024-wide MLP under DistributedDataParallel."""
    case = "torch DDP, MLP 4 × 1024, P = 2"
    if not installed("gloo"):  # ours runs under torch, too: there is no figure of either
        return [Row(case, "rate", "steps/s", 0.0, "gloo", None, 0.9, "torch is not installed")]
    found: dict[str, list[float]] = {"ring": [], "gloo": []}
    for _ in range(ROUNDS):
        for backend, rates in found.items():
            port = str(_free_port())
            commands = [["train", backend, str(r), "2", port, str(TRAIN_STEPS)] for r in range(2)]
            rates.append(_children(commands))
    ours, theirs = (statistics.median(found[name]) for name in ("ring", "gloo"))
    return [Row(case, "rate", "steps/s", ours, "gloo", theirs, 0.9)]
