"""Inputs of `ring bench mapreduce`: text of this machine, and records."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

import numpy as np

SOURCES: Final = (
    "/usr/share/doc",
    "/usr/share/common-licenses",
    "/usr/lib/python3",
    "/usr/lib/python3.11",
)

# Bytes about which the peers do not agree: what is a letter, what is white space, where a line
# ends. In their place stands a question mark, so that all must find the same words.
PLAIN: Final = bytes(b if 32 <= b < 127 or b in b"\t\n" else 63 for b in range(256))


def real_text(size: int) -> bytes:
    """Documentation and source of this machine, in an order of its own; repeated if too little."""
    files = sorted(
        path
        for folder in SOURCES
        for suffix in ("*.py", "*.txt", "*.html", "copyright", "README*", "[A-Z]*")
        for path in Path(folder).rglob(suffix)
        if path.is_file()
    )
    random.Random(1).shuffle(files)
    parts, total = [], 0
    while total < size and files:
        for path in files:
            try:
                data = path.read_bytes()
            except OSError:
                continue
            if b"\0" in data[:1000]:
                continue
            parts.append(data if data.endswith(b"\n") else data + b"\n")
            total += len(parts[-1])
            if total >= size:
                break
    return b"".join(parts)[:size].translate(PLAIN)


def write_records(path: Path, count: int, record_bytes: int) -> None:
    """Random records that are lines, too."""
    dice = np.random.default_rng(1)
    rows = dice.integers(33, 127, (count, record_bytes), np.uint8)
    rows[:, -1] = 10
    rows.tofile(path)
