"""Element types and the five ways to reduce them.

    type      float16 float32 float64 bfloat16 int32 int64 uint32 uint64
    op        sum mean min max product

Integers wrap around, so that a sum of masked values is exact in any order. bfloat16, which numpy
lacks, travels as uint16 holding the upper half of a float32; each addition is done in float32 and
rounded to nearest even. `mean` is `sum`, and one division at the end by those who contributed.

The order of operands is part of the result: `min(-0.0, 0.0)` is whichever comes first, and of two
NaNs one survives. So `combine` has a left and a right, and who calls it keeps them by rank.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ddp.errors import BadCall

Array = NDArray[Any]

TYPES: Final[dict[str, np.dtype[Any]]] = {
    "float16": np.dtype(np.float16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
    "bfloat16": np.dtype(np.uint16),
    "int32": np.dtype(np.int32),
    "int64": np.dtype(np.int64),
    "uint32": np.dtype(np.uint32),
    "uint64": np.dtype(np.uint64),
    "uint8": np.dtype(np.uint8),  # carried, never reduced: bytes of anything
}
_NAMES: Final = {dtype: name for name, dtype in TYPES.items() if name != "bfloat16"}
FLOATS: Final = ("float16", "float32", "float64", "bfloat16")
OPS: Final = ("sum", "mean", "min", "max", "product")

_UFUNCS: Final = {
    "sum": np.add,
    "mean": np.add,
    "min": np.minimum,
    "max": np.maximum,
    "product": np.multiply,
}


def type_of(array: Array, dtype: str | None = None) -> str:
    """The element type's name; `dtype` says "bfloat16" of a uint16 array. Raises BadCall."""
    if dtype is None and (found := _NAMES.get(array.dtype)) is not None:
        return found
    if dtype is None or TYPES.get(dtype) != array.dtype:
        known = ", ".join(TYPES)
        raise BadCall(f"no element type {dtype or ''} for {array.dtype}; there are {known}")
    return dtype


def check_reduction(op: str, dtype: str) -> None:
    """Raises BadCall unless `op` is defined on `dtype`."""
    if op not in OPS:
        raise BadCall(f"no reduction {op!r}; there are {', '.join(OPS)}")
    if dtype == "uint8":
        raise BadCall("uint8 is carried, not reduced; use uint32 or uint64 for a modular sum")
    if op == "mean" and dtype not in FLOATS:
        raise BadCall(f"a mean of {dtype} is no {dtype}: sum, and divide yourself")


def quiet() -> np.errstate:
    """Within it an overflow to inf is the answer, not an incident."""
    return np.errstate(all="ignore")


def combine(op: str, dtype: str, left: Array, right: Array, out: Array) -> None:
    """out = left ⊕ right, elementwise; `out` may be either of them."""
    with quiet():
        combiner(op, dtype)(left, right, out=out)


def combiner(op: str, dtype: str) -> Callable[..., object]:
    """`combine` of these, for whoever adds many times in one `quiet`."""
    reduce = _UFUNCS[op]
    if dtype != "bfloat16":
        return reduce

    def widened(left: Array, right: Array, *, out: Array) -> None:
        result = reduce(bfloat16_to_float32(left), bfloat16_to_float32(right))
        out[...] = float32_to_bfloat16(result)

    return widened


def divide(dtype: str, array: Array, by: int) -> None:
    """The last step of a mean, in place."""
    with quiet():
        if dtype == "bfloat16":
            array[...] = float32_to_bfloat16(bfloat16_to_float32(array) / np.float32(by))
        else:
            np.divide(array, array.dtype.type(by), out=array)


def bfloat16_to_float32(array: Array) -> NDArray[np.float32]:
    """Exact."""
    return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)


def float32_to_bfloat16(array: Array) -> NDArray[np.uint16]:
    """Rounded to nearest even; a NaN stays a (quiet) NaN, which rounding could make an infinity."""
    bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    quiet = (bits >> np.uint32(16)) | np.uint32(0x40)
    return np.where(np.isnan(array), quiet, rounded).astype(np.uint16)
