"""One record on its way to those who should hold it: this process and the next along the list.

All are asked in the same turn of the loop. If all say yes, which is what happens all day, that is
found out by callback, and a write costs no task; what else there is to do is for who awaits it
(keeper.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from dht.chord.peers import Begun
from dht.chord.ring import Contact


class Copies:
    """The copies of one record that are under way.

    Args:
        owner: name of this process.
        own: done when the record is on its own disk.
        begun: the replicas that are asked.
        rest: who is asked if one of those is silent, in this order.
    """

    def __init__(
        self,
        owner: str,
        own: asyncio.Future[None],
        begun: Sequence[Begun],
        rest: Sequence[Contact],
    ) -> None:
        self.owner = owner
        self.own = own
        self.begun = begun
        self.rest = rest
        self._left = 1 + len(begun)
        self._over: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"<Copies of {self.owner}: {self._left} of {1 + len(self.begun)} not yet>"

    def when_over(self, call: Callable[[], None]) -> None:
        """Have `call` called once all of these are answered, or failed."""
        self._over = call
        self.own.add_done_callback(self._one)
        for copy in self.begun:
            copy.when_over(self._one)

    def _one(self, _: Any) -> None:
        self._left -= 1
        if self._left == 0 and self._over is not None:
            self._over()

    def holders(self) -> list[str] | None:
        """Who holds the record, if all do that were asked; else None, and it must be awaited."""
        own = self.own
        if not own.done() or own.cancelled() or own.exception() is not None:
            return None
        for copy in self.begun:
            if not copy.answered():
                return None
        return [self.owner, *(copy.to.name for copy in self.begun)]
