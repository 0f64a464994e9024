"""Blocking calls, one behind the other, off the event loop.

A hand-over to a thread and back costs 50 to 100 µs, most of it waking up; `run_in_executor` costs
three times that. A sync of a good disk is not much longer. So calls that have been brief lately
are made on the loop itself while there are few of them, and by the thread as soon as they are
slow or many: then the loop goes on meanwhile, and the next batch gathers.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

Done = Callable[[Any, BaseException | None], None]
"""(result, None) or (None, error), on the event loop."""

Work = tuple[Callable[[], Any], Done]

# Calls longer than this are never made on the loop: it is what a heartbeat may be late.
BRIEF_S: Final = 0.0005

# Weight of the newest call in the average of their durations.
GAIN: Final = 0.2


class Executor(Protocol):
    """Runs blocking calls one behind the other."""

    def submit(self, function: Callable[[], Any], done: Done) -> None:
        """Run `function`, later; call `done` on the loop when it has returned or raised."""

    def close(self) -> None:
        """Run what was submitted, then end."""


class ThreadExecutor:
    """One thread, and the loop itself for what is brief."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Work] = deque()
        self._busy = False
        self._here: Work | None = None  # about to be made on the loop
        self._average_s = BRIEF_S  # not brief until it has shown to be
        self._ended_at = 0.0
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<ThreadExecutor {self._thread.name} average_s={self._average_s:.6f}>"

    def submit(self, function: Callable[[], Any], done: Done) -> None:
        """See Executor."""
        self._waiting.append((function, done))
        if not self._busy:
            self._begin()

    def close(self) -> None:
        """See Executor."""
        for work in (self._here, *self._waiting):
            if work is not None:
                self._queue.put(work)
        self._here = None
        self._waiting.clear()
        self._queue.put(None)
        self._thread.join()

    def _begin(self) -> None:
        self._busy = True
        work = self._waiting.popleft()
        rare = time.perf_counter() - self._ended_at > self._average_s
        if rare and self._average_s < BRIEF_S:
            # Not at once: what the caller has queued for the network leaves first.
            self._here = work
            self._loop.call_soon(self._run_here)
        else:
            self._queue.put(work)

    def _run_here(self) -> None:
        work, self._here = self._here, None
        if work is not None:
            self._finish(work[1], *_call(work[0]))

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            outcome = _call(work[0])
            try:
                self._loop.call_soon_threadsafe(self._finish, work[1], *outcome)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more

    def _finish(
        self, done: Done, result: Any, failure: BaseException | None, took_s: float
    ) -> None:
        self._average_s += GAIN * (took_s - self._average_s)
        self._ended_at = time.perf_counter()
        self._busy = False
        if self._waiting:
            self._begin()
        done(result, failure)


def _call(function: Callable[[], Any]) -> tuple[Any, BaseException | None, float]:
    began = time.perf_counter()
    try:
        result, failure = function(), None
    except BaseException as error:
        result, failure = None, error
    return result, failure, time.perf_counter() - began
