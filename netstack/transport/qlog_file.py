"""`RING_QLOG=dir`: every connection of every daemon and command writes a file of qlog there.

A file is behind its connection by FLUSH_S at the most, and ends with a whole record: what a process
that was killed has left can be read, up to a moment before. A disk that is full or gone costs the
log, and no connection.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from netstack.runtime.runtime import Runtime
from netstack.transport.qlog import Trace

FOLDER_VARIABLE: Final = "RING_QLOG"

# Records wait so long for others to be handed to the kernel with: a system call a packet would
# cost more than the packet.
FLUSH_S: Final = 0.05

# And in pieces of at most about this size.
BUFFER_BYTES: Final = 1 << 16


class QlogFile:
    """A file that takes records, some at a time."""

    def __init__(self, runtime: Runtime, path: Path) -> None:
        """Raises OSError."""
        self._runtime = runtime
        self._path = path
        self._file = path.open("wb", buffering=0)
        self._records: list[str] = []
        self._waiting = 0  # characters
        self._flush_is_due = False

    def __repr__(self) -> str:
        return f"<QlogFile {self._path.name} waiting={self._waiting}>"

    def write(self, record: str) -> None:
        """Take a record; after `close` it is dropped."""
        if self._file.closed:
            return
        self._records.append(record)
        self._waiting += len(record)
        if self._waiting >= BUFFER_BYTES:
            self.flush()
        elif not self._flush_is_due:
            self._flush_is_due = True
            self._runtime.call_later_true(FLUSH_S, self._on_time)

    def flush(self) -> None:
        """Hand what waits to the kernel."""
        data = "".join(self._records).encode()
        self._records.clear()
        self._waiting = 0
        if self._file.closed:
            return
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            self._file.close()
            told = f"{self._path}: {error.strerror}"
            self._runtime.events.emit("transport.qlog_failed", error=told)

    def close(self) -> None:
        """Write the rest."""
        self.flush()
        self._file.close()

    def _on_time(self) -> None:
        self._flush_is_due = False
        self.flush()


def open_trace(
    runtime: Runtime, node: str, role: str, connection_id: int
) -> tuple[Trace, Callable[[], None]] | None:
    """A trace named after the node, its role and the connection, and how to close it; or None."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return None
    path = Path(folder) / f"{node}-{role}-{connection_id:016x}.sqlog"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = QlogFile(runtime, path)
    except OSError as error:
        runtime.events.emit("transport.qlog_failed", error=f"{path}: {error.strerror}")
        return None
    clock = runtime.clock
    trace = Trace(file.write, clock.now, clock.wall(), title=path.stem, role=role)
    return trace, file.close
