"""What branches cost where one instruction serves many lanes, counted exactly.

    if x > 0:  A        SIMD by mask      both sides are executed for all lanes; half is thrown away
    else:      B        SIMT              a warp executes a side only if one of its lanes wants it

A program is a tree of `Work`, `Branch` and `Loop`. `run` executes it for an array of lanes, warp
by warp, with a stack of masks as a GPU has it, and counts lane-slots: issued (every lane of a
warp, for every instruction that the warp issues) and useful (lanes that were active). Where lanes
of a warp agree, nothing is wasted: that is why sorted data runs faster.

The results are computed too: whatever the masks, each lane must get what a lane alone would get.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from ddp.training.autograd import Array

WARP: Final = 32
LOOPS_MAX: Final = 10_000

Function: TypeAlias = Callable[[Array], Array]


@dataclass(frozen=True, slots=True)
class Work:
    """`instructions` that turn x into f(x)."""

    instructions: int
    function: Function


@dataclass(frozen=True, slots=True)
class Branch:
    """One instruction that asks; then one side or the other."""

    condition: Function
    then: Program
    otherwise: Program = ()


@dataclass(frozen=True, slots=True)
class Loop:
    """While the condition holds for a lane, it goes on; the warp goes on for its last one."""

    condition: Function
    body: Program


Program: TypeAlias = "Sequence[Work | Branch | Loop]"


@dataclass(slots=True)
class Slots:
    """Lane-slots."""

    issued: int = 0
    useful: int = 0

    @property
    def waste(self) -> float:
        """The part of all issued slots that did nothing."""
        return 1 - self.useful / self.issued if self.issued else 0.0


def run(program: Program, x: Array, *, warp: int = WARP, simt: bool = True) -> tuple[Array, Slots]:
    """The program for each element of `x`, one a lane; the last warp may have idle lanes.

    simt: False: by mask. Then there are no jumps, and both sides of a branch are always executed.
    """
    lanes = -len(x) % warp
    padded = np.concatenate([x, np.zeros(lanes, x.dtype)]).reshape(-1, warp)
    active = np.arange(padded.size).reshape(padded.shape) < len(x)
    slots, results = Slots(), []
    for values, mask in zip(padded, active, strict=True):
        values = values.copy()
        _execute(program, values, mask, slots, simt)
        results.append(values)
    return np.concatenate(results)[: len(x)], slots


def _execute(program: Program, values: Array, mask: Array, slots: Slots, simt: bool) -> None:
    for part in program:
        if simt and not mask.any():
            return
        if isinstance(part, Work):
            _issue(slots, part.instructions, mask)
            values[mask] = part.function(values[mask])
        elif isinstance(part, Branch):
            taken = _ask(part.condition, values, mask, slots)
            _execute(part.then, values, taken, slots, simt)
            _execute(part.otherwise, values, mask & ~taken, slots, simt)
        else:
            going = mask
            for _ in range(LOOPS_MAX):
                going = _ask(part.condition, values, going, slots)
                if not going.any():
                    break
                _execute(part.body, values, going, slots, simt)
            else:
                raise ValueError(f"a lane is still in its loop after {LOOPS_MAX} rounds")


def _ask(condition: Function, values: Array, mask: Array, slots: Slots) -> Array:
    _issue(slots, 1, mask)
    taken = np.zeros_like(mask)
    taken[mask] = condition(values[mask])
    return taken


def _issue(slots: Slots, instructions: int, mask: Array) -> None:
    slots.issued += instructions * len(mask)
    slots.useful += instructions * int(mask.sum())


# The lecture's example: two sides of the same length, and half of the lanes want each.
BALANCED: Final[Program] = (
    Branch(
        lambda x: x > 0,
        (Work(50, lambda x: x * 2),),
        (Work(50, lambda x: -x),),
    ),
)
RELU: Final[Program] = (Branch(lambda x: x > 0, (), (Work(1, lambda x: x * 0),)),)


def cases(lanes: int = 4096, seed: int = 0) -> list[tuple[str, Slots]]:
    """What is shown: (what, slots)."""
    x = np.random.default_rng(seed).standard_normal(lanes)
    agree = np.repeat(np.sign(x[: lanes // WARP]), WARP)
    shown = []
    for name, program, data, simt in (
        ("two sides, by mask, any order", BALANCED, x, False),
        ("two sides, SIMT, any order", BALANCED, x, True),
        ("two sides, by mask, sorted", BALANCED, np.sort(x), False),
        ("two sides, SIMT, sorted", BALANCED, np.sort(x), True),
        ("two sides, SIMT, warps agree", BALANCED, agree, True),
        ("relu, SIMT, any order", RELU, x, True),
    ):
        shown.append((name, run(program, data, simt=simt)[1]))
    return shown
