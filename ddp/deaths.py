"""Notices at once that a process of this host has died: by a descriptor of it, not its number.

A pid may be given to another process the next moment; a pidfd stays with the one it was opened
for, and becomes readable when that ends, whatever ended it.
"""

from __future__ import annotations

import contextlib
import os
import select


class Deaths:
    """The other ranks' processes."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._ranks: dict[int, int] = {}

    def __repr__(self) -> str:
        return f"<Deaths watching={sorted(self._ranks.values())}>"

    def watch(self, rank: int, pid: int) -> int | None:
        """Watch a process; its descriptor, or None if it is dead already."""
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        self._ranks[descriptor] = rank
        self._poll.register(descriptor, select.POLLIN)
        return descriptor

    def look(self) -> list[int]:
        """Ranks that have died since, each once."""
        found = []
        for descriptor, _ in self._poll.poll(0):
            found.append(self._ranks.pop(descriptor))
            self._poll.unregister(descriptor)
            os.close(descriptor)
        return found

    def descriptors(self) -> list[int]:
        """Of those who live."""
        return list(self._ranks)

    def close(self) -> None:
        """Watch no more."""
        for descriptor in self._ranks:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._ranks.clear()
