"""A client's calls without await: they run on a loop of their own, in a thread of its own.

    class SyncStore(Synchronous[Store]):
        def get(self, key: bytes) -> bytes:
            return self.run(self.asynchronous.get(key))

    with SyncStore(Store.connect(config)) as store: ...

It may be used from any thread, several at once; the calls are then under way together.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager
from typing import Generic, Self, TypeVar

C = TypeVar("C")
T = TypeVar("T")


class Synchronous(Generic[C]):
    """The synchronous face of what `context` yields; raises what entering it does."""

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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the context, and end the thread."""
        try:
            self.run(self._context.__aexit__(None, None, None))
        finally:
            self._stop_loop()

    def run(self, call: Awaitable[T]) -> T:
        """Wait for something of the loop's."""

        async def run() -> T:
            return await call

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
