"""Kernels to put under the roof, with their operations and bytes counted by hand.

A pass over an array of n elements of s bytes moves n·s bytes a time that it is read or written;
what numpy does in several passes is counted in all of them. An exponential counts as one
operation.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ddp.roofline.ceilings import matmul
from ddp.roofline.model import Kernel


def kernels() -> Iterator[Kernel]:
    """All of them."""
    for n in (16, 64, 256, 1024):
        yield matmul(n, "float64")
    yield matmul(1024, "float32")
    yield from relus(1 << 20)
    yield softmax(1024, 256)
    yield layer(256, 512, 512)
    for n in (1 << 14, 1 << 20):
        yield local_sum(n)


def relus(n: int) -> Iterator[Kernel]:
    """The same function in three ways; half of all numbers are negative, in no order."""
    x = np.random.default_rng(0).standard_normal(n)
    y, mask = np.empty(n), np.empty(n, bool)

    def by_mask() -> None:  # every element is multiplied, also those that end as 0
        np.greater(x, 0, out=mask)
        np.multiply(x, mask, out=y)

    def by_branch() -> None:  # only those that pass are touched again
        y.fill(0)
        np.greater(x, 0, out=mask)
        y[mask] = x[mask]

    yield Kernel("relu max", "float64", n, 16 * n, 16 * n, lambda: np.maximum(x, 0, out=y))
    # x read, mask written; x and mask read, y written.
    yield Kernel("relu by mask", "float64", 2 * n, (8 + 1 + 8 + 1 + 8) * n, 17 * n, by_mask)
    # y written; x read, mask written; mask read twice, half of x read, written, read, written.
    moved = (8 + 8 + 1 + 2 + 4 * 4) * n
    yield Kernel("relu by branch", "float64", n, moved, 21 * n, by_branch)


def softmax(rows: int, width: int) -> Kernel:
    """Five passes: maximum, difference, exponential, sum, quotient."""
    n = rows * width
    x = np.random.default_rng(0).standard_normal((rows, width))
    y = np.empty_like(x)

    def run() -> None:
        np.subtract(x, x.max(axis=1, keepdims=True), out=y)
        np.exp(y, out=y)
        np.divide(y, y.sum(axis=1, keepdims=True), out=y)

    moved = (1 + 2 + 2 + 1 + 2) * 8 * n
    return Kernel("softmax", "float64", 5 * n, moved, 16 * n, run)


def layer(batch: int, inputs: int, outputs: int) -> Kernel:
    """relu(x·W + b): a product, and two passes over its result."""
    x, w = np.ones((batch, inputs)), np.full((inputs, outputs), 1e-3)
    b, y = np.zeros(outputs), np.empty((batch, outputs))

    def run() -> None:
        np.matmul(x, w, out=y)
        np.add(y, b, out=y)
        np.maximum(y, 0, out=y)

    flop = 2 * batch * inputs * outputs + 2 * y.size
    moved = x.nbytes + w.nbytes + y.nbytes + 4 * y.nbytes
    return Kernel("mlp layer", "float64", flop, moved, x.nbytes + w.nbytes + y.nbytes, run)


def local_sum(n: int) -> Kernel:
    """What an allreduce computes: what came, added to what is here."""
    here, came = np.ones(n), np.zeros(n)
    name = f"local sum {8 * n >> 10} KiB"
    return Kernel(name, "float64", n, 24 * n, 16 * n, lambda: np.add(here, came, out=here))
