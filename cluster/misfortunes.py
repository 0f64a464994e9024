"""What the supervisor can do to a daemon beyond ending it: be silent for it, slow it down, rot it.

    SilentPort   the port of a machine that is gone: taken, so that nothing is refused, and unread
    Strobe       SIGSTOP and SIGCONT in turn, fifty times a second: a node that gets part of a CPU
    damage       a bit, a file or all of the data of a node that is down (netstack.runtime.rot)

A killed process leaves a kernel that answers for it at once: port unreachable, connection reset.
A lost machine leaves silence, and only silence tries the timeouts.
"""

from __future__ import annotations

import asyncio
import random
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from netstack.runtime import rot
from netstack.runtime.endpoint import Address
from netstack.runtime.os_disk import OsStorage

# One turn of stopping and going on.
PERIOD_S: Final = 0.02

KEEP, PUT_BACK = "keep", "put-back"
DAMAGES: Final = (*rot.ROT, KEEP, PUT_BACK)


class SilentPort:
    """Holds a UDP port and reads nothing; a short queue, then the kernel drops."""

    def __init__(self, address: Address) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        self._socket.bind(address)

    def close(self) -> None:
        """The port is free again."""
        self._socket.close()


class Strobe:
    """Lets a process run for `share` of the time.

    Args:
        send: sends it a signal.
        share: of the time, above 0 and below 1.
    """

    def __init__(self, send: Callable[[int], None], share: float) -> None:
        if not 0 < share < 1:
            raise ValueError(f"a slow node runs for a share between 0 and 1, not {share!r}")
        self._send = send
        self.share = share
        self.turns = 0
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while True:
            self._send(signal.SIGSTOP)
            await asyncio.sleep(PERIOD_S * (1 - self.share))
            self._send(signal.SIGCONT)
            self.turns += 1
            await asyncio.sleep(PERIOD_S * self.share)

    def stop(self) -> None:
        """Full speed again."""
        self._task.cancel()
        self._send(signal.SIGCONT)


def damage(folder: Path, how: str, seed: int) -> str:
    """Damage the data of the node in `folder`; returns what was done. Raises ValueError.

    Args:
        folder: the node's; its files are in `data/`, a copy of them goes to `kept/`.
        how: one of DAMAGES.
        seed: decides which file, byte and bit.
    """
    data, kept = OsStorage(folder / "data"), OsStorage(folder / "kept")
    if how == KEEP:
        rot.put_back(kept, rot.keep(data))
        return f"a copy of its files is kept: {', '.join(kept.paths())}"
    if how == PUT_BACK:
        if not kept.paths():
            raise ValueError("no copy of this node's files is kept; keep one first")
        return rot.put_back(data, rot.keep(kept))
    if how not in rot.ROT:
        raise ValueError(f"there is no damage {how!r}; there is {', '.join(DAMAGES)}")
    return rot.ROT[how](data, random.Random(seed))
