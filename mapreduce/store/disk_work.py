"""Blocking calls of one disk, awaited: one thread, one call behind the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from netstack.runtime.runtime import Runtime

T = TypeVar("T")


class DiskWork:
    """The thread that does a disk's work."""

    def __init__(self, runtime: Runtime, name: str) -> None:
        self._runtime = runtime
        self._executor = runtime.executor(name, brief=False)

    def __repr__(self) -> str:
        return f"<DiskWork {self._executor!r}>"

    async def do(self, function: Callable[..., T], *arguments: Any) -> T:
        """Its result; it runs to its end even if nobody waits for it any more."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def done(result: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        self._executor.submit(lambda: function(*arguments), done)
        return await future

    def later(self, function: Callable[[], object]) -> None:
        """Do it behind all that was asked for; nobody waits, and an error in it is a bug."""

        def done(result: Any, error: BaseException | None) -> None:
            if error is not None:
                self._runtime.fatal(error, "disk work")

        self._executor.submit(function, done)

    def close(self) -> None:
        """When all that was asked for is done."""
        self._executor.close()
