"""An asyncio event loop whose time is virtual: it never waits, it jumps to the next timer.

It is asyncio's own loop with two parts replaced: the clock, and the selector, whose
`select(timeout)` advances the clock by `timeout` instead of sleeping. Callbacks run in the order
in which they are due, and in which they were asked for if they are due together, so the same
program gives the same history. A loop with nothing to run and no timer can never go on: it raises
Deadlock instead of hanging.

Each callback belongs to the *life* in whose context it was scheduled (one life of one simulated
process). When a life has ended its callbacks do not run any more, not even to clean up: that is
what kill -9 means. While it is paused they wait, in order: that is what SIGSTOP means.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
from collections import deque
from typing import Any


class Deadlock(RuntimeError):
    """Every task waits for something that nothing is going to do."""


class Life:
    """One life of one simulated process: running, paused or over."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.over = False
        self.held: list[asyncio.Handle] | None = None  # while it is paused: what was due
        self.context = contextvars.copy_context()
        self.context.run(_life.set, self)

    def __repr__(self) -> str:
        state = "over" if self.over else "running" if self.held is None else "paused"
        return f"<Life of {self.node} {state}>"


_life: contextvars.ContextVar[Life | None] = contextvars.ContextVar("life", default=None)


def current_life() -> Life | None:
    """The life on whose behalf the running code runs."""
    return _life.get()


class _Handle(asyncio.Handle):
    """A callback that runs only if its life does."""

    __slots__ = ()

    def _run(self) -> None:
        life = self._context.get(_life)  # type: ignore[attr-defined]
        if life is None:
            super()._run()
        elif life.held is not None:
            life.held.append(self)
        elif not life.over:
            super()._run()


class _Timer(_Handle, asyncio.TimerHandle):
    """A numbered timer: a heap keeps no order among equals, so there are none."""

    __slots__ = ("number",)
    number: int
    _when: float
    _scheduled: bool

    def __lt__(self, other: _Timer) -> bool:  # type: ignore[override]
        return (self._when, self.number) < (other._when, other.number)


class _VirtualSelector:
    """Waits by moving the clock."""

    def __init__(self) -> None:
        self.now = 0.0

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Deadlock("all tasks wait and no timer is set")
        if timeout > 0:
            self.now += timeout
        return []

    def close(self) -> None:
        pass


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs coroutines in virtual time, starting at 0."""

    # asyncio's own queues: what runs next, and what is due later (a heap).
    _ready: deque[asyncio.Handle]
    _scheduled: list[_Timer]

    def __init__(self) -> None:
        super().__init__()
        self._selector = _VirtualSelector()
        # asyncio rounds timers to the clock's resolution; ours is exact.
        self._clock_resolution = 1e-9
        self._numbers = itertools.count()

    def __repr__(self) -> str:
        return f"<VirtualLoop t={self._selector.now:.6f}>"

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._selector.now

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio's, on behalf of the current life (or that of `context`)."""
        self._check_closed()  # type: ignore[attr-defined]
        timer = _Timer(when, callback, args, self, context)
        timer.number = next(self._numbers)
        timer._scheduled = True
        heapq.heappush(self._scheduled, timer)
        return timer

    def _call_soon(
        self, callback: Any, args: tuple[Any, ...], context: contextvars.Context | None
    ) -> asyncio.Handle:
        # What asyncio's own call_soon and call_soon_threadsafe are made of.
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def resume(self, life: Life) -> None:
        """Let a paused life go on; what it missed runs now, in order, before what is due."""
        held, life.held = life.held or [], None
        self._ready.extendleft(reversed(held))

    def silence(self) -> None:
        """Run nothing any more, whatever is scheduled: the world has ended."""
        self._ready = deque(maxlen=0)

    def _process_events(self, event_list: list[Any]) -> None:
        """No file descriptors, no events."""

    def _write_to_self(self) -> None:
        """Nobody sleeps, nobody has to be woken."""

    def close(self) -> None:
        """Release the loop."""
        super().close()
        self._selector.close()
