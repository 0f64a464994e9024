"""The roofline of a cluster: operations a byte *sent*, and a slope that is the bus bandwidth.

    attainable of P ranks = min(P × peak of one, intensity × bandwidth)

Left of the ridge a way to divide the training waits for the network, right of it for arithmetic.
The counts are those of a real step, divided over threads: the operations of its matrix products,
and the bytes that its groups count as sent (an allreduce of N bytes sends 2(P − 1)/P · N a rank).
What is attainable follows from them; it is a ceiling, not a measurement.

The slope is measured: it is the bus bandwidth of two ranks that are processes of this machine, in
the manner and by the code of `ring ddp allreduce -b 16M`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ddp.group import Group
from ddp.launch import Launch
from ddp.local import run_local
from ddp.perf import merge
from ddp.training.counting import counting
from ddp.training.data import Dataset
from ddp.training.grid import Grid
from ddp.training.models import Spec
from ddp.training.optimizers import Sgd
from ddp.training.trainer import Trainer

SUM_BYTES: Final = 16 << 20
ROUNDS: Final = 7


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
    dice = np.random.default_rng(0)
    x, y = dice.standard_normal((batch, spec.inputs)), dice.integers(0, spec.classes, batch)
    data = Dataset("random", x, y, x[:1], y[:1], spec.classes)
    micros = 4 if grid.pp > 1 else 1

    def rank(world: Group) -> tuple[int, int]:
        trainer = Trainer(spec, grid, world, Sgd(0.0), micros=micros)
        with counting() as work:
            trainer.step(data.train_x, data.train_y)
        return work.flop, trainer.sent_bytes

    counts = run_local(grid.size, rank)
    flop, sent = (sum(count[i] for count in counts) for i in (0, 1))
    parts = [(name, getattr(grid, name)) for name in ("dp", "pp", "tp")]
    shown = ",".join(f"{name}={size}" for name, size in parts if size > 1)
    return Division(f"{shown} batch {batch}", grid, flop, sent)


def bus_bandwidth() -> tuple[float, str]:
    """GB/s of an allreduce of SUM_BYTES between two processes, and over what: as perf.py does."""
    with Launch(2, "ddp.perf:measure", {"sizes": [SUM_BYTES], "iterations": ROUNDS}) as launch:
        found = launch.results()
    return float(merge(found)[0]["in_place"]["bus_bw"]), str(found[0]["fabric"])
