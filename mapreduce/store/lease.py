"""The lease under which one caller writes: all its open files live as long as it does."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from mapreduce.store.errors import StoreError
from mapreduce.store.metadata import Metadata
from netstack.runtime.runtime import Runtime

# A caller that is silent for longer has died. Kept alive four times as often.
LEASE_S: Final = 30


class WriterLease:
    """One lease, taken when the first file is written, kept while the caller lives."""

    def __init__(self, runtime: Runtime, metadata: Metadata) -> None:
        self._runtime = runtime
        self._metadata = metadata
        self._taking = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None
        self.id = 0  # 0: none, or it has run out

    def __repr__(self) -> str:
        return f"<WriterLease {self.id or 'none'}>"

    async def take(self) -> int:
        """Its id; a new one if there is none that lives."""
        async with self._taking:
            if not self.id:
                self.id = await self._metadata.lease(LEASE_S)
                self._keeper = self._runtime.spawn(self._keep(), "writer's lease")
            return self.id

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(LEASE_S / 4)
            with contextlib.suppress(StoreError):
                if not await self._metadata.keep(self.id):
                    self.id = 0
                    return

    async def close(self) -> None:
        """End it: what is still open is given up."""
        if self._keeper is not None:
            self._keeper.cancel()
        if self.id:
            with contextlib.suppress(StoreError, TimeoutError):
                await asyncio.wait_for(self._metadata.end(self.id), 2.0)
            self.id = 0
