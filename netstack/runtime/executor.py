"""Blocking calls, one behind the other, off the event loop.

A hand-over to a thread and back costs 0.1 to 0.3 ms here, most of it waking up and waiting for the
interpreter; `run_in_executor` costs more. A sync of a good disk is not longer. So a call that
comes after a pause is made on the loop itself; calls that follow closely go to the thread: then
the loop goes on meanwhile, and the next batch gathers. A call that turns out slow keeps the next
off the loop for a hundred times as long, so the loop waits for a disk 1 % of its time at the most.
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

# A call that blocks the loop longer than this was slow; but one alone that is below TURN_S says
# little of the disk: another process may have had its turn on the processor meanwhile.
BRIEF_S: Final = 0.003
TURN_S: Final = 0.01

# After a slow call, this many times its duration without another on the loop.
ABSTINENCE: Final = 100

# A call is made on the loop only if the last one ended this long ago.
PAUSE_S: Final = 0.0004


class Executor(Protocol):
    """Runs blocking calls one behind the other."""

    def submit(self, function: Callable[[], Any], done: Done) -> None:
        """Run `function`, later; call `done` on the loop when it has returned or raised."""

    def close(self) -> None:
        """Run what was submitted, then end."""


class ThreadExecutor:
    """One thread, and the loop itself for what is brief; `brief=False`: never the loop."""

    def __init__(self, name: str, *, brief: bool = True) -> None:
        self._brief = brief
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Work] = deque()
        self._busy = False
        self._here: Work | None = None  # about to be made on the loop
        self._here_after = 0.0
        self._slow = False  # the last call that was made on the loop
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._worker = threading.Thread(target=self._run, name=name, daemon=True)
        self._worker.start()

    def __repr__(self) -> str:
        return f"<ThreadExecutor {self._worker.name} waiting={len(self._waiting)}>"

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
        self._worker.join()

    def _begin(self) -> None:
        self._busy = True
        work = self._waiting.popleft()
        if self._brief and time.perf_counter() > self._here_after:
            # Not at once: what the caller has queued for the network leaves first.
            self._here = work
            self._loop.call_soon(self._run_here)
        else:
            self._queue.put(work)

    def _run_here(self) -> None:
        work, self._here = self._here, None
        if work is not None:
            began = time.perf_counter()
            outcome = _call(work[0])
            self._finish(work[1], *outcome, time.perf_counter() - began)

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            outcome = _call(work[0])
            try:
                self._loop.call_soon_threadsafe(self._finish, work[1], *outcome, 0.0)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more

    def _finish(
        self, done: Done, result: Any, failure: BaseException | None, blocked_s: float
    ) -> None:
        pause_s = PAUSE_S
        if blocked_s:
            before, self._slow = self._slow, blocked_s >= BRIEF_S
            if self._slow and (before or blocked_s >= TURN_S):
                pause_s = ABSTINENCE * blocked_s
        self._here_after = max(self._here_after, time.perf_counter() + pause_s)
        self._busy = False
        if self._waiting:
            self._begin()
        done(result, failure)


def _call(function: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return function(), None
    except BaseException as error:
        return None, error
