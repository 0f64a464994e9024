"""The caller's side of a server stream: what has come of it, and a credit for more.

    items(connection, "kv.watch", body, timeout_s)     an async generator of the items, as they come

The service sends a window's worth unasked; each half of it that is taken is given back as CREDIT.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, Final

from netstack.rpc import frames
from netstack.rpc.errors import DeadlineExceeded, RpcError
from netstack.rpc.service import STREAM_WINDOW_ITEMS

if TYPE_CHECKING:
    from netstack.rpc.client import RpcClient
    from netstack.rpc.connection import RpcConnection

# A stream waits this long at the most for its connection.
CONNECT_S: Final = 5.0

END: Final = object()  # the item behind the last


class Incoming:
    """A queue that the credit window bounds."""

    __slots__ = ("_taken", "_wake", "items")

    def __init__(self) -> None:
        self.items: deque[Any] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._taken = 0

    def __repr__(self) -> str:
        return f"<Incoming waiting={len(self.items)} taken={self._taken}>"

    def put(self, item: Any) -> None:
        """An item has come, END, or the RpcError that ends the stream."""
        self.items.append(item)
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def next(self, timeout_s: float) -> Any:
        """The next item, or END; raises the stream's RpcError, or DeadlineExceeded."""
        if not self.items:
            self._wake = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._wake
            except TimeoutError:
                raise DeadlineExceeded("no item in time") from None
        item = self.items.popleft()
        if isinstance(item, RpcError):
            raise item
        return item

    def consumed(self) -> bool:
        """Count an item taken; True each time that half a window has been."""
        self._taken += 1
        return self._taken % (STREAM_WINDOW_ITEMS // 2) == 0


async def items(
    connection: RpcConnection, method: str, body: Any, timeout_s: float
) -> AsyncGenerator[Any, None]:
    """Call a method that streams: its items, as they come; `timeout_s` bounds each wait."""
    if connection.congested:
        await connection.wait_for_room(timeout_s)
    id_, incoming = connection.begin_stream(method, body)
    complete = False
    try:
        while (item := await incoming.next(timeout_s)) is not END:
            if incoming.consumed():
                connection.send((frames.CREDIT, id_, STREAM_WINDOW_ITEMS // 2))
            yield item
        complete = True
    except RpcError as error:
        complete = not isinstance(error, DeadlineExceeded)
        raise
    finally:
        connection.end_stream(id_, cancel=not complete)


async def dialled_items(
    client: RpcClient, method: str, body: Any, timeout_s: float
) -> AsyncGenerator[Any, None]:
    """`items`, once the client is connected; raises Unavailable."""
    client.begins()
    try:
        connection = await client.connect(min(timeout_s, CONNECT_S))
        async with contextlib.aclosing(items(connection, method, body, timeout_s)) as found:
            async for item in found:
                yield item
    finally:
        client.ends()
