"""Chunks from other servers: whoever is listed and answers, piece by piece, not too fast."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

from mapreduce.store.blocks import BLOCK_BYTES
from mapreduce.store.errors import ChunkLost
from mapreduce.store.messages import ReadPiece
from mapreduce.store.model import ChunkRecord
from netstack.rpc.client import RpcClient
from netstack.rpc.errors import RpcError, Unavailable
from netstack.rpc.node import RpcNode

if TYPE_CHECKING:
    from mapreduce.store.chunk_server import ChunkServer

# Bytes a call: long enough to keep the wire busy, short enough for others to come between.
PIECE_BYTES: Final = 16 * BLOCK_BYTES

# One piece from one server; a paused one costs this much once.
PIECE_S: Final = 4.0


class Fetcher:
    """Calls of one chunk server to the others."""

    def __init__(self, node: RpcNode, server: ChunkServer) -> None:
        self._node = node
        self._server = server
        self._clients: dict[str, tuple[Any, RpcClient]] = {}

    def __repr__(self) -> str:
        return f"<Fetcher of {self._server.runtime.node} clients={len(self._clients)}>"

    async def call(self, name: str, method: str, body: Any, timeout_s: float) -> Any:
        """Ask a server that lives, which may be this one; raises RpcError."""
        if name == self._server.runtime.node:
            return await self._server.ask_itself(method, body)
        record = self._server.servers.get(name)
        if record is None:
            raise Unavailable(f"{name} is not known here, or is dead")
        at = (record.host, record.port, record.service)
        known = self._clients.get(name)
        if known is None or known[0] != at:
            if known is not None:
                await known[1].close()
            client = self._node.client((record.host, record.port), record.service, name)
            known = self._clients[name] = (at, client)
        return await known[1].call(method, body, timeout_s=timeout_s, idempotent=True)

    async def pieces(
        self, record: ChunkRecord, bytes_per_s: int
    ) -> AsyncIterator[tuple[int, bytes]]:
        """(offset, bytes) of the whole chunk, each from the first that has it good; own copy too.

        Raises ChunkLost when nobody has one of them.
        """
        me = self._server.runtime.node
        others = [name for name in record.nodes if name != me and name in self._server.servers]
        self._server.runtime.rng.shuffle(others)
        for offset in range(0, record.length, PIECE_BYTES):
            length = min(PIECE_BYTES, record.length - offset)
            data = await self._piece(record, offset, length, others)
            yield offset, data
            await asyncio.sleep(length / bytes_per_s)

    async def _piece(
        self, record: ChunkRecord, offset: int, length: int, others: list[str]
    ) -> bytes:
        for name in [*others]:
            body = ReadPiece(record.chunk, record.version, offset, length)
            with contextlib.suppress(RpcError):
                data: bytes = await self.call(name, "chunk.read", body, PIECE_S)
                if len(data) == length:
                    return data
            # Others first from now on; it may have the next piece all the same.
            others.append(others.pop(others.index(name)))
        own = await self._server.own_piece(record, offset, length)
        if own is not None and len(own) == length:
            return own
        if length <= BLOCK_BYTES:
            raise ChunkLost(f"nobody has bytes {offset} to {offset + length} of {record.chunk}")
        # Nobody has all of it, but each of its blocks may be good somewhere.
        blocks = [
            await self._piece(record, at, min(BLOCK_BYTES, offset + length - at), others)
            for at in range(offset, offset + length, BLOCK_BYTES)
        ]
        return b"".join(blocks)
