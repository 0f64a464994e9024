"""Times, chances and sizes as people write them: `20ms`, `10%`, `64M`."""

from __future__ import annotations

import math

from cluster.errors import Usage

UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


def seconds(text: str) -> float:
    """`20ms`, `1.5s` or `300us`; raises Usage for a number without unit."""
    for unit, factor in UNITS.items():
        if text.endswith(unit) and (unit != "s" or not text.endswith(("ms", "us"))):
            number = text.removesuffix(unit)
            try:
                value = float(number) * factor
            except ValueError:
                break
            if math.isfinite(value):
                return value
    raise Usage(f"{text!r} is not a time; write it with its unit, as in 20ms or 1.5s")


SIZES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def size_bytes(text: str) -> int:
    """`64M`, `512K` or `1000`; raises Usage."""
    factor = SIZES.get(text[-1:].upper(), 1)
    number = text if factor == 1 else text[:-1]
    if not number.isdecimal() or not int(number):
        raise Usage(f"{text!r} is not a size; write bytes, or 512K, 64M, 2G")
    return int(number) * factor


def probability(text: str) -> float:
    """`10%` or `0.1`; raises Usage."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise Usage(f"{text!r} is not a probability; write 0.1 or 10%")
    return value
