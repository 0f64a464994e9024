"""`RING_QLOG=dir`: every connection of every daemon and command writes a file of qlog there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from netstack.transport.qlog import Trace

FOLDER_VARIABLE: Final = "RING_QLOG"

# Lines are handed to the kernel in pieces of this size.
BUFFER_BYTES: Final = 1 << 16


def open_trace(
    node: str, role: str, connection_id: int, now: Callable[[], float], wall: float
) -> tuple[Trace, Callable[[], None]] | None:
    """A trace named after the node, its role and the connection, and how to close it; or None."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return None
    Path(folder).mkdir(parents=True, exist_ok=True)
    path = Path(folder) / f"{node}-{role}-{connection_id:016x}.sqlog"
    file = path.open("w", buffering=BUFFER_BYTES, encoding="utf-8")
    return Trace(file.write, now, wall, title=path.stem, role=role), file.close
