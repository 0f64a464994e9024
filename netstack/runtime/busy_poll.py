"""Staying awake for a moment after work, because the next piece of it is often on its way.

A process that sleeps in epoll is woken 40 µs after its datagram came, with cold caches: more than
a small request takes to serve. A loop that looks again at once, for as long as an answer may take
to come back, has the next datagram when it arrives. A look that finds nothing gives the processor
to whoever else wants it, so what is spent is time that nobody had a use for; after SPIN_S of
silence it sleeps.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Final

# A request and its answer take 0.1 to 0.25 ms between two processes here; shorter gains nothing,
# longer burns power between the heartbeats of an idle cluster.
SPIN_S: Final = 0.0003


class BusyPoll:
    """Keeps an event loop from sleeping until `spin_s` after the last `stir`. 0: never."""

    __slots__ = ("_at", "_idle", "_loop", "_spin_s", "_spinning")

    def __init__(self, loop: asyncio.AbstractEventLoop, spin_s: float = SPIN_S) -> None:
        self._loop = loop
        self._spin_s = spin_s
        self._at = 0.0  # when there was work
        self._idle = False  # since the last look
        self._spinning = False

    def __repr__(self) -> str:
        return f"<BusyPoll {'spinning' if self._spinning else 'asleep'} spin_s={self._spin_s}>"

    def stir(self) -> None:
        """There was work."""
        self._at = time.monotonic()
        self._idle = False
        if not self._spinning and self._spin_s > 0:
            self._spinning = True
            self._loop.call_soon(self._spin)

    def stop(self) -> None:
        """Sleep from now on."""
        self._spin_s = 0.0

    def _spin(self) -> None:
        # A loop with a callback in its queue polls without waiting.
        if time.monotonic() < self._at + self._spin_s:
            # With work, what is to be done is in the loop's queue behind this: it comes first.
            if self._idle:
                os.sched_yield()
            self._idle = True
            self._loop.call_soon(self._spin)
        else:
            self._spinning = False
