"""Inputs whose reduction is known to the last bit, in any order of additions (as nccl-tests do).

Elements are small integers made from a hash of seed, rank and place: their sums are exact in
every type, bfloat16 with its eight bits included. For products they are powers of two. So a
difference of one bit is a fault of ours, never of rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddp.elements import TYPES, Array, divide, float32_to_bfloat16

# Bits of a significand, the hidden one included: whole numbers up to 2^bits are exact.
_EXACT_BITS = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}


def inputs(dtype: str, op: str, count: int, rank: int, ranks: int, seed: int = 0) -> Array:
    """What `rank` contributes."""
    return _as(dtype, _whole(dtype, op, count, rank, ranks, seed), op)


def expected(
    dtype: str, op: str, count: int, contributors: list[int], ranks: int, seed: int = 0
) -> Array:
    """What every rank must have afterwards."""
    parts = [_whole(dtype, op, count, rank, ranks, seed) for rank in contributors]
    if op == "min":
        return _as(dtype, np.minimum.reduce(parts), op)
    if op == "max":
        return _as(dtype, np.maximum.reduce(parts), op)
    total = _as(dtype, np.add.reduce(parts), op)  # of a product, these are exponents
    if op == "mean":
        divide(dtype, total, len(contributors))
    return total


def wrong(found: Array, wanted: Array) -> int:
    """How many elements differ in any bit."""
    width = f"u{wanted.dtype.itemsize}"
    return int(np.count_nonzero(found.view(width) != wanted.view(width)))


def _whole(dtype: str, op: str, count: int, rank: int, ranks: int, seed: int) -> NDArray[np.int64]:
    mixed = np.arange(count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed += np.uint64((seed * 1_000_003 + rank * 7919 + 1) & 0xFFFFFFFF)
    mixed ^= mixed >> np.uint64(31)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(29)
    if op == "product":
        # Exponents -1, 0, 1; for integers 0 and 1, since there are no halves.
        low, high = (0, 1) if dtype not in _EXACT_BITS else (-1, 1)
    else:
        most = min(64, (1 << _EXACT_BITS.get(dtype, 31)) // max(ranks, 1) - 1)
        low, high = (0 if dtype.startswith("uint") else -max(most, 1)), max(most, 1)
    return (mixed % np.uint64(high - low + 1)).astype(np.int64) + low


def _as(dtype: str, whole: NDArray[Any], op: str) -> Array:
    if op == "product":
        if dtype in _EXACT_BITS:
            whole = np.exp2(whole.astype(np.float64))
        else:
            whole = np.left_shift(np.ones_like(whole, np.uint64), whole.astype(np.uint64))
    if dtype == "bfloat16":
        return float32_to_bfloat16(whole.astype(np.float32))
    return whole.astype(TYPES[dtype])
