"""The healer: one chunk server, elected by a lease, carries out the plan of healing.py.

Two at a time, for a moment, do no harm: each step is one comparison of the metadata, or one clone
that its target adds to the record itself.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Final

from mapreduce.store import healing, model
from mapreduce.store.errors import StoreError
from mapreduce.store.fetch import Fetcher
from mapreduce.store.healing import Clone, Unlist
from mapreduce.store.messages import WhichChunk
from mapreduce.store.model import ChunkRecord
from netstack.rpc.errors import RpcError

if TYPE_CHECKING:
    from mapreduce.store.chunk_server import ChunkServer

# A clone is given this long, and as much more as its bytes take at the limited speed.
CLONE_S: Final = 15.0
VERIFY_S: Final = 15.0


class Healer:
    """What one server does while it is the healer."""

    def __init__(self, server: ChunkServer, fetcher: Fetcher) -> None:
        self._server = server
        self._fetcher = fetcher
        self._under_way: dict[tuple[str, str], asyncio.Task[None]] = {}

    def __repr__(self) -> str:
        return f"<Healer {self._server.runtime.node} clones={len(self._under_way)}>"

    def close(self) -> None:
        """Give up what is under way."""
        for task in self._under_way.values():
            task.cancel()

    async def heal(self, records: list[ChunkRecord]) -> None:
        """One look at everything; clones go on behind it."""
        server = self._server
        actions = healing.plan(records, server.servers, self._under_way, server.runtime.rng)
        for action in actions:
            if isinstance(action, Clone):
                self._begin(action)
            else:
                await self._unlist(action)
        for file in await server.metadata.abandoned():
            if await server.metadata.abandon(file, still_written=False):
                server.runtime.events.emit("file.abandoned", file=file)

    def _begin(self, action: Clone) -> None:
        key = (action.record.chunk, action.target)
        task = self._server.runtime.spawn(self._clone(action), f"clone {key[0]} to {key[1]}")
        self._under_way[key] = task
        task.add_done_callback(lambda _: self._under_way.pop(key, None))

    async def _clone(self, action: Clone) -> None:
        record = action.record
        body = WhichChunk(record.chunk, record.version, record.length)
        limit_s = CLONE_S + record.length / self._server.settings.clone_bytes_s
        try:
            await self._fetcher.call(action.target, "chunk.clone", body, limit_s)
        except RpcError as error:
            self._server.runtime.events.emit(
                "chunk.not_cloned", chunk=record.chunk, to=action.target, cause=str(error)
            )

    async def _unlist(self, action: Unlist) -> None:
        """Only if as many others as there should be have just checked theirs."""
        record = action.record
        body = WhichChunk(record.chunk, record.version, record.length)
        good = 0
        for name in action.holders:
            try:
                good += await self._fetcher.call(name, "chunk.verify", body, VERIFY_S) is True
            except RpcError:
                continue
        if good < record.replicas:
            return
        rest = model.packed_names(name for name in record.nodes if name != action.node)
        try:
            if await self._server.metadata.replace(record, dataclasses.replace(record, nodes=rest)):
                self._server.runtime.events.emit(
                    "chunk.unlisted", chunk=record.chunk, holder=action.node
                )
        except StoreError:
            return  # the next look decides anew
