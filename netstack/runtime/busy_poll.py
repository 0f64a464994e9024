"""Staying awake for a moment after work, because the next piece of it is often on its way.

A process that sleeps in epoll is woken 40 µs after its datagram came, with cold caches: more than
a small request takes to serve. A loop that looks again at once, for as long as an answer may take
to come back, has the next datagram when it arrives. A look that finds nothing gives the processor
to whoever else wants it, so what is spent is time that nobody had a use for; after SPIN_S of
silence it sleeps.

A turn of the loop takes 3 µs though there is nothing to do, and what comes in it waits. So an idle
one asks its socket itself a few times, which takes a third of that, before it goes round.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from typing import Final

# A request and its answer take 0.1 to 0.25 ms between two processes here; shorter gains nothing,
# longer burns power between the heartbeats of an idle cluster.
SPIN_S: Final = 0.0003

# Looks in a row within one turn: what else the loop serves, timers and threads, waits for 4 µs.
LOOKS: Final = 4


class BusyPoll:
    """Keeps an event loop from sleeping until `spin_s` after the last `stir`. 0: never.

    `look`, if given, takes what the socket has, as the loop's reader would, and says whether there
    was anything.
    """

    __slots__ = ("_always", "_at", "_idle", "_look", "_loop", "_spin_s", "_spinning")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        spin_s: float = SPIN_S,
        look: Callable[[], bool] | None = None,
    ) -> None:
        self._loop = loop
        self._look = look
        self._spin_s = spin_s
        self._at = 0.0  # when there was work
        self._idle = False  # since the last look
        self._spinning = False
        # A loop with a reader of this polls without waiting: it stays at its end. And what a look
        # finds is dealt with in the same turn; after a callback of `call_soon` it would be the
        # next, behind another poll.
        self._always, other = socket.socketpair()
        other.close()

    def __repr__(self) -> str:
        return f"<BusyPoll {'spinning' if self._spinning else 'asleep'} spin_s={self._spin_s}>"

    def stir(self) -> None:
        """There was work."""
        self._at = time.monotonic()
        self._idle = False
        if not self._spinning and self._spin_s > 0:
            self._spinning = True
            self._loop.add_reader(self._always.fileno(), self._spin)

    def stop(self) -> None:
        """Sleep from now on."""
        self._spin_s = 0.0
        self._sleep()
        self._always.close()

    def _sleep(self) -> None:
        if self._spinning:
            self._spinning = False
            self._loop.remove_reader(self._always.fileno())

    def _spin(self) -> None:
        if time.monotonic() >= self._at + self._spin_s:
            self._sleep()
        elif self._idle:
            self._wait()
        else:
            self._idle = True  # what is to be done comes first

    def _wait(self) -> None:
        """Give way, and look; until there is something, or it is the loop's turn."""
        look = self._look
        for _ in range(LOOKS if look is not None else 1):
            os.sched_yield()
            if look is not None and look():
                return
