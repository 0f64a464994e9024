"""An asyncio event loop whose time is virtual: it never waits, it jumps to the next timer.

It is asyncio's own loop with two parts replaced: the clock, and the selector, whose
`select(timeout)` advances the clock by `timeout` instead of sleeping. Callbacks run in the order
in which they are due, so the same program gives the same history. A loop with nothing to run and
no timer can never go on: it raises Deadlock instead of hanging.

Each callback belongs to the *life* in whose context it was scheduled (one life of one simulated
process). When a life has ended its callbacks do not run any more, not even to clean up: that is
what kill -9 means. While it is paused they wait, in order: that is what SIGSTOP means.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any


class Deadlock(RuntimeError):
    """Every task waits for something that nothing is going to do."""


class Life:
    """One life of one simulated process: running, paused or over."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.over = False
        self.held: list[tuple[Callable[..., Any], tuple[Any, ...], contextvars.Context]] | None
        self.held = None
        self.context = contextvars.copy_context()
        self.context.run(_life.set, self)

    def __repr__(self) -> str:
        state = "over" if self.over else "running" if self.held is None else "paused"
        return f"<Life of {self.node} {state}>"


_life: contextvars.ContextVar[Life | None] = contextvars.ContextVar("life", default=None)


def current_life() -> Life | None:
    """The life on whose behalf the running code runs."""
    return _life.get()


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

    def __init__(self) -> None:
        super().__init__()
        self._selector = _VirtualSelector()
        # asyncio rounds timers to the clock's resolution; ours is exact.
        self._clock_resolution = 1e-9
        self._silent = False

    def __repr__(self) -> str:
        return f"<VirtualLoop t={self._selector.now:.6f}>"

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._selector.now

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """As asyncio's, on behalf of the current life (or that of `context`)."""
        if self._silent:
            return asyncio.Handle(callback, args, self, context)
        life = _life.get() if context is None else context.get(_life)
        if life is None:
            return super().call_soon(callback, *args, context=context)
        return super().call_soon(self._run_for, life, callback, args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio's, on behalf of the current life (or that of `context`)."""
        life = _life.get() if context is None else context.get(_life)
        if life is None:
            return super().call_at(when, callback, *args, context=context)
        return super().call_at(when, self._run_for, life, callback, args, context=context)

    @staticmethod
    def _run_for(life: Life, callback: Any, args: tuple[Any, ...]) -> None:
        if life.over:
            return
        if life.held is not None:
            life.held.append((callback, args, contextvars.copy_context()))
            return
        callback(*args)

    def resume(self, life: Life) -> None:
        """Let a paused life go on; what it missed runs now, in order."""
        held, life.held = life.held or [], None
        for callback, args, context in held:
            self.call_soon(callback, *args, context=context)

    def silence(self) -> None:
        """Run nothing any more, whatever is scheduled: the world has ended."""
        self._silent = True

    def _process_events(self, event_list: list[Any]) -> None:
        """No file descriptors, no events."""

    def _write_to_self(self) -> None:
        """Nobody sleeps, nobody has to be woken."""

    def close(self) -> None:
        """Release the loop."""
        super().close()
        self._selector.close()
