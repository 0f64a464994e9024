"""Real sockets on real loops, for tests: each kind of endpoint on asyncio's loop and uvloop's."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from netstack.runtime.dgram_endpoint import DgramEndpoint
from netstack.runtime.endpoint import Address
from netstack.runtime.gso_endpoint import GsoEndpoint

KINDS = {"gso": GsoEndpoint, "dgram": DgramEndpoint}
LOOPS = {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}
LOCALHOST = "127.0.0.1"

# Nothing here takes a tenth of it, unless it hangs.
PATIENCE_S = 20.0


class Loop:
    """A loop of one sort to run scenes on; `errors` holds what callbacks raised."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._runner = asyncio.Runner(loop_factory=LOOPS[name])
        self.errors: list[BaseException | str] = []
        self._runner.get_loop().set_exception_handler(self._failed)

    def _failed(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.errors.append(context.get("exception") or context["message"])

    def run(self, scene: Coroutine[Any, Any, None]) -> None:
        async def patiently() -> None:
            async with asyncio.timeout(PATIENCE_S):
                await scene

        self._runner.run(patiently())

    def close(self) -> None:
        self._runner.close()


class Net(Loop):
    """A loop, and endpoints of one kind, closed at the end."""

    def __init__(self, kind: str, loop: str) -> None:
        super().__init__(loop)
        self.kind = kind
        self._bound: list[Any] = []

    async def bind(self, port: int = 0, host: str = LOCALHOST) -> Any:
        endpoint: Any = await KINDS[self.kind].bind((host, port))
        self._bound.append(endpoint)
        return endpoint

    def shut(self, endpoint: Any) -> None:
        self._bound.remove(endpoint)
        endpoint.close()

    async def pair(self) -> tuple[Any, Any, Inbox]:
        """Two endpoints, and what the second receives."""
        here, there = await self.bind(), await self.bind()
        return here, there, Inbox(there)

    def close(self) -> None:
        async def last() -> None:
            for endpoint in self._bound:
                endpoint.close()
            await turns(3)  # what a transport does after its close

        self.run(last())
        super().close()


class Inbox:
    """What an endpoint receives, in order."""

    def __init__(self, endpoint: Any) -> None:
        self.received: list[bytes] = []
        self.sources: list[Address] = []
        self.marks: list[int] = []
        self._news = asyncio.Event()
        endpoint.set_receiver(self)

    def __call__(self, datagrams: Any, source: Address, mark: int) -> None:
        self.received.extend(datagrams)
        self.marks.extend([mark] * len(datagrams))
        self.sources.extend([tuple(source)] * len(datagrams))
        self._news.set()

    async def until(self, count: int) -> list[bytes]:
        while len(self.received) < count:
            self._news.clear()
            await self._news.wait()
        return self.received


async def turns(count: int) -> None:
    """Let the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


def scene(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """An async test that is run on its `net` or `loop`, which must not have failed anywhere."""

    @functools.wraps(test)
    def run(*args: Any, **fixtures: Any) -> None:
        loop = fixtures.get("net") or fixtures["loop"]
        loop.run(test(*args, **fixtures))
        assert loop.errors == []

    return run


def nets() -> list[Any]:
    """(kind, loop) of every combination, for parametrize."""
    return [pytest.param((kind, loop), id=f"{kind}-{loop}") for kind in KINDS for loop in LOOPS]
