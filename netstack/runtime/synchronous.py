"""An asynchronous client for callers that do not await: it runs on a loop of its own, in a thread.

    class SyncRaftClient(Synchronous[RaftClient]):
        def get(self, key): return self.run(self.asynchronous.get(key))

Its calls may come from any thread. A process that forks has no such thread in the child: make a
new one there.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar

C = TypeVar("C")
T = TypeVar("T")


class Synchronous(Generic[C]):
    """One client, entered here and left by `close`.

    Args:
        context: makes the client; what it raises is raised here.
    """

    def __init__(self, context: AbstractAsyncContextManager[C]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._context = context
        try:
            self.asynchronous = self.run(context.__aenter__())
        except BaseException:
            self._stop_loop()
            raise

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.asynchronous!r}>"

    def __enter__(self: S) -> S:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, call: Awaitable[T]) -> T:
        """Await something of this client on its loop; its result, or its error raised."""

        async def run() -> T:
            return await call

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def close(self) -> None:
        """Leave the client, end the loop."""
        try:
            self.run(self._context.__aexit__(None, None, None))
        finally:
            self._stop_loop()

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


S = TypeVar("S", bound=Synchronous[Any])
