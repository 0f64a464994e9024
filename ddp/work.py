"""A call under way: what `Group.start` returns."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from ddp.errors import DdpError


class Work:
    """Ends once, with a result or an error; may be waited for from any thread."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.error: DdpError | None = None
        self._done = False
        self._event: threading.Event | None = None  # made by the first who has to wait
        self._result: Callable[[], Any] = lambda: None
        self._callbacks: list[Callable[[Work], None]] = []

    def __repr__(self) -> str:
        return f"<Work {self.what} {'ended' if self.done else 'open'}>"

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._done

    def wait(self) -> Any:
        """The result; raises the call's DdpError. A call has a time limit, so this ends."""
        while not self.waited(None):
            pass
        return self.result()

    def waited(self, timeout_s: float | None) -> bool:
        """Wait so long at most; whether it has ended."""
        if not self._done:
            event = self._event = self._event or threading.Event()
            # It may have ended between the look and the event: then nobody will set it.
            if not self._done:
                event.wait(0.1 if timeout_s is None else timeout_s)
        return self._done

    def result(self) -> Any:
        """The result of an ended call, or its error raised."""
        if self.error is not None:
            raise self.error
        return self._result()

    def then(self, callback: Callable[[Work], None]) -> None:
        """Call back with this work when it ends, from whichever thread ends it."""
        self._callbacks.append(callback)
        if self.done and callback in self._callbacks:
            self._callbacks.remove(callback)
            callback(self)

    def finally_give(self, result: Callable[[], Any]) -> Work:
        """What `wait` is to return; returns itself."""
        self._result = result
        return self

    def end(self, error: DdpError | None = None) -> None:
        """It is over."""
        if self._done:
            return
        self.error = error
        self._done = True
        if self._event is not None:
            self._event.set()
        while self._callbacks:
            self._callbacks.pop(0)(self)


def outcome(work: Work) -> asyncio.Future[Any]:
    """Its result, or its error raised, for a coroutine of the running loop."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle() -> None:
        if future.done():
            return
        if work.error is not None:
            future.set_exception(work.error)
        else:
            future.set_result(work.result())

    def ended(_: Work) -> None:
        loop.call_soon_threadsafe(settle)

    work.then(ended)
    return future
