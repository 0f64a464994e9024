"""The roofline of a cluster: operations a byte *sent*, and a slope that is the bus bandwidth.

    attainable of P ranks = min(P × peak of one, intensity × bandwidth)

Left of the ridge a way to divide the training waits for the network, right of it for arithmetic.
The counts are those of a real step, divided over threads: the operations of its matrix products,
and the bytes that its collectives hand over (an allreduce of N bytes sends 2(P − 1)/P · N a rank,
as a ring does). What is attainable follows from them; it is a ceiling, not a measurement.

The slope is measured: two processes sum an array between them over a pair of kernel sockets, each
half by one of them (what a ring is for two).
"""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import Final

import numpy as np

from ddp.training.autograd import Array
from ddp.training.collectives import Collectives
from ddp.training.counting import counting
from ddp.training.data import Dataset
from ddp.training.grid import Grid
from ddp.training.models import Spec
from ddp.training.optimizers import Sgd
from ddp.training.threads import Hub, run_ranks
from ddp.training.trainer import Trainer

SUM_BYTES: Final = 16 << 20
ROUNDS: Final = 7
PEER_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Division:
    """One way to divide a step, and what it sends."""

    name: str
    grid: Grid
    flop: int
    sent_bytes: int

    @property
    def intensity(self) -> float:
        """Operations a byte sent."""
        return self.flop / self.sent_bytes

    def attainable(self, peak_gflop_s: float, bus_gb_s: float) -> float:
        """GFLOP/s of all ranks together."""
        return min(self.grid.size * peak_gflop_s, self.intensity * bus_gb_s * self.grid.size)

    def bound(self, peak_gflop_s: float, bus_gb_s: float) -> str:
        """What it waits for: "network" or "arithmetic"."""
        return "network" if self.intensity * bus_gb_s < peak_gflop_s else "arithmetic"


def divisions() -> list[Division]:
    """An MLP of 256 × 4 layers, divided in the three ways, with a small batch and a large one."""
    spec = Spec("mlp", 64, 10, width=256, depth=2)
    return [
        count(spec, Grid.parse(text), batch)
        for batch in (64, 1024)
        for text in ("dp=4", "pp=4", "tp=4", "dp=2,tp=2")
    ]


def count(spec: Spec, grid: Grid, batch: int) -> Division:
    """Run one step and count."""
    dice, hub = np.random.default_rng(0), Hub()
    x, y = dice.standard_normal((batch, spec.inputs)), dice.integers(0, spec.classes, batch)
    data = Dataset("random", x, y, x[:1], y[:1], spec.classes)
    micros = 4 if grid.pp > 1 else 1

    def rank(world: Collectives) -> tuple[int, int]:
        trainer = Trainer(spec, grid, world, Sgd(0.0), micros=micros)
        with counting() as work:
            trainer.step(data.train_x, data.train_y)
        return work.flop, world.rank

    flop = sum(flop for flop, _ in run_ranks(grid.size, rank, hub))
    parts = [(name, getattr(grid, name)) for name in ("dp", "pp", "tp")]
    shown = ",".join(f"{name}={size}" for name, size in parts if size > 1)
    return Division(f"{shown} batch {batch}", grid, flop, hub.wire_bytes)


def bus_bandwidth() -> float:
    """GB/s of an allreduce of SUM_BYTES between two processes, the median of ROUNDS."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [sys.executable, "-m", "ddp.roofline", "--peer", str(theirs.fileno())]
        with subprocess.Popen(command, pass_fds=[theirs.fileno()]) as peer:
            theirs.close()
            ours.settimeout(PEER_S)
            try:
                times = take_part(ours, 0)
            finally:
                peer.kill()
    # busbw = 2(P − 1)/P · N/t, and P = 2.
    return SUM_BYTES / statistics.median(times) / 1e9


def take_part(line: socket.socket, rank: int) -> list[float]:
    """Sum an array with the other end's, ROUNDS + 1 times; seconds of all but the first."""
    array = np.ones(SUM_BYTES // 4, np.float32)
    halves = np.split(array, 2)
    came = np.empty_like(halves[0])
    times = []
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        _exchange(line, halves[1 - rank], came)
        np.add(halves[rank], came, out=halves[rank])
        _exchange(line, halves[rank], halves[1 - rank])
        times.append(time.perf_counter() - began)
        array.fill(1)
    return times[1:]


def _exchange(line: socket.socket, send: Array, into: Array) -> None:
    """Both directions at once: a thread sends while this one receives."""
    sender = threading.Thread(target=line.sendall, args=(_bytes_of(send),))
    sender.start()
    view = _bytes_of(into)
    while view:
        got = line.recv_into(view)
        if not got:
            raise ConnectionError("the other process is gone")
        view = view[got:]
    sender.join()


def _bytes_of(array: Array) -> memoryview:
    return array.data.cast("B")
