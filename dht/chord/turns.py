"""Whose turn it is: the writes of one key go one after the other, in the order in which they came.

A write that finds nobody before it begins at once, without a task; the next one waits until it has
ended, however it was begun.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """Keys that are in use, and who waits for each."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, deque[asyncio.Future[None]]] = {}

    def __repr__(self) -> str:
        return f"<Turns {len(self._waiting)} keys in use>"

    def take(self, key: bytes) -> bool:
        """Whether it is the caller's turn at once; then `end` is for the caller to call."""
        if key in self._waiting:
            return False
        self._waiting[key] = deque()
        return True

    async def wait(self, key: bytes) -> None:
        """Return when it is the caller's turn."""
        if self.take(key):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[key].append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.end(key)  # it had come, and nobody is there to take it
            raise

    def end(self, key: bytes) -> None:
        """The next one's turn; who was cancelled meanwhile has none."""
        waiting = self._waiting[key]
        while waiting:
            turn = waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._waiting[key]
