"""A counter of the multiply-adds that matrix products really do.

    with counting() as work:
        train one step
    work.flop                        2 × multiply-adds

A product of m × k with k × n is m·n sums of k products: m·k·n multiply-adds, or 2·m·k·n
operations (exactly 2·m·k·n − m·n, since k products need k − 1 additions; the lecture writes
(2k − 1)·m·B and then drops the 1). A layer of W = m·k parameters costs 2·W·B forward, 2·W·B for
dW and 2·W·B for dX: 6 × parameters × batch. What the rule leaves out is in `rule`'s terms.

Only matrix products are counted: additions of biases, activations and losses are of order
(parameters / width), and a test counts them too, number by number.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod


@dataclass(slots=True)
class Work:
    """What was done while it was counted, on this thread."""

    multiply_adds: int = 0
    products: int = 0

    @property
    def flop(self) -> int:
        """Floating-point operations: a multiplication and an addition each."""
        return 2 * self.multiply_adds


class _Active(threading.local):
    def __init__(self) -> None:
        self.works: list[Work] = []


_active = _Active()


@contextlib.contextmanager
def counting() -> Iterator[Work]:
    """Count the matrix products of this thread; may be nested."""
    work = Work()
    _active.works.append(work)
    try:
        yield work
    finally:
        _active.works.remove(work)


def count_matmul(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    """Called for each product, with the shapes of its operands."""
    if not _active.works:
        return
    batch = max(prod(left[:-2]), prod(right[:-2]))
    for work in _active.works:
        work.multiply_adds += batch * left[-2] * left[-1] * right[-1]
        work.products += 1


def rule(parameters: int, batch: int) -> int:
    """The lecture's estimate of one training step, in operations."""
    return 6 * parameters * batch
