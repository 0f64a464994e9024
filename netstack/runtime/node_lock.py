"""One process a node: two of them on one log would destroy it.

The lock is the kernel's, on a file in the node's folder, and ends with the process, however it
ends. The file says who holds it.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Final

# A process that was just killed holds its lock until the kernel has cleared it away.
PATIENCE_S: Final = 1.0
RETRY_S: Final = 0.02


class NodeRunning(Exception):
    """Another process runs this node; the message names it."""


def lock_node(folder: Path) -> int:
    """Take the lock of the node in `folder`; the descriptor holds it. Raises NodeRunning."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    give_up = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > give_up:
                holder = os.pread(descriptor, 20, 0).decode(errors="replace") or "unknown"
                os.close(descriptor)
                raise NodeRunning(f"{folder.name} is running already, as pid {holder}") from None
        time.sleep(RETRY_S)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor
