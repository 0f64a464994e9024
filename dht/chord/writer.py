"""Group commit: while one batch is being synced, the next gathers; one write and one sync each.

A record is in memory, and so readable, only when it is durable; who submitted it is told then.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Sequence
from typing import Final

from dht.chord.journal import SHORTEN_BYTES, Item, Journal
from dht.chord.records import Record, RecordStore
from netstack.rpc.errors import Failed, Overloaded
from netstack.runtime.runtime import Runtime

# Records that may wait for the disk; the next are refused.
WAITING_MAX: Final = 65_536

# A batch has so many records at the most: a sync of more takes the time of several.
BATCH_MAX: Final = 4096

Done = Callable[[Exception | None], None]


class Writer:
    """Makes records durable, in the order in which they came."""

    def __init__(self, runtime: Runtime, journal: Journal, store: RecordStore) -> None:
        self._runtime = runtime
        self._journal = journal
        self._store = store
        self._executor = runtime.executor("dht log")
        self._waiting: list[tuple[Sequence[Item], Done]] = []
        self._count = 0
        self._busy = False
        self.batches = 0

    def __repr__(self) -> str:
        return f"<Writer waiting={self._count} {self._journal!r}>"

    @property
    def syncs(self) -> int:
        """Syncs so far."""
        return self._journal.syncs

    def submit(self, items: Sequence[Item], done: Done) -> None:
        """Keep these; `done(error)` on the loop. What is older than what is here is no work."""
        fresh = [i for i in items if isinstance(i, bytes) or self._store.newer(i)]
        if not fresh:
            done(None)
        elif self._count + len(fresh) > WAITING_MAX:
            done(Overloaded(f"{WAITING_MAX} records wait for the disk"))
        else:
            self._waiting.append((fresh, done))
            self._count += len(fresh)
            if not self._busy:
                self._begin()

    async def keep(self, items: Sequence[Item]) -> None:
        """The same, awaited; raises what went wrong."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.submit(items, settling(ended))
        await ended

    def close(self) -> None:
        """Write what waits, then release the file."""
        self._executor.close()
        self._journal.close()

    def _begin(self) -> None:
        self._busy = True
        batch: list[tuple[Sequence[Item], Done]] = []
        size = 0
        while self._waiting and size < BATCH_MAX:
            batch.append(self._waiting.pop(0))
            size += len(batch[-1][0])
        self._count -= size
        items = [item for part, _ in batch for item in part]

        def ended(_: object, error: BaseException | None) -> None:
            self._ended(batch, error)

        self._executor.submit(lambda: self._journal.append(items), ended)

    def _ended(self, batch: list[tuple[Sequence[Item], Done]], error: BaseException | None) -> None:
        refusal: Exception | None = None
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            refusal = Failed("disk-full", "the disk is full; nothing was kept")
        elif error is not None:
            # Nobody knows what is on the disk now: only a restart can tell.
            self._runtime.fatal(error, "dht log")
            return
        self.batches += 1
        for items, done in batch:
            if refusal is None:
                self._apply(items)
            done(refusal)
        if self._journal.size > 2 * self._store.used_bytes + SHORTEN_BYTES:
            records = list(self._store)
            self._executor.submit(lambda: self._journal.rewrite(records), self._rewritten)
        elif self._waiting:
            self._begin()
        else:
            self._busy = False

    def _apply(self, items: Sequence[Item]) -> None:
        for item in items:
            if isinstance(item, Record):
                self._store.put(item)
            else:
                self._store.forget(item)

    def _rewritten(self, _: object, error: BaseException | None) -> None:
        if error is not None and not (isinstance(error, OSError) and error.errno == errno.ENOSPC):
            self._runtime.fatal(error, "dht log")
            return
        self._busy = False
        if self._waiting:
            self._begin()


def settling(future: asyncio.Future[None]) -> Done:
    """A `done` that brings the future to its end."""

    def done(error: Exception | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

    return done
