"""Where the master keeps what must outlive it: in the replicated store, or in a journal of its own.

    RaftState       the cluster has raft nodes: every write is a transaction that holds only while
                    this master's epoch is the latest, so an older one can change nothing any more
    JournalState    it has none: a file that grows, synced once a batch, written anew when it is
                    long; survives kill -9 and power cuts, not the loss of its disk

The paper's master wrote checkpoints periodically and lost what came after. Here each task that ends
is a record of a few hundred bytes, and records that come together are written together.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import Mapping
from typing import Any, Final, Protocol

import google_crc32c
import msgpack

from mapreduce.errors import MapReduceError
from netstack.runtime.executor import Executor
from netstack.runtime.runtime import Fatal, Runtime
from raftd.client import DELETE, PUT, NotReached, OutcomeUnknown, RaftClient

# Of one transaction of the store.
OPS_MAX: Final = 100
BATCH_BYTES_MAX: Final = 1024 * 1024
VALUE_BYTES_MAX: Final = 1_000_000

PREFIX: Final = b"mapreduce/"
EPOCH_KEY: Final = b"mapreduce-epoch"

JOURNAL: Final = "journal"
RECORD: Final = struct.Struct("<II")
# A journal that is longer, and four times longer than what it says, is written anew.
JOURNAL_BYTES_MAX: Final = 4 * 1024 * 1024

Records = Mapping[str, Any]


class TooLarge(MapReduceError):
    """A record does not fit the store; a job's description, most likely."""


class State(Protocol):
    """Durable records by key."""

    async def claim(self) -> tuple[int, dict[str, Any]]:
        """Begin a life: its epoch, larger than all before, and what the earlier ones wrote."""

    async def write(self, records: Records) -> None:
        """Make records durable, all or none; None deletes. Raises Fatal when this life is over."""

    def close(self) -> None:
        """Release what is held."""


def pack(value: Any) -> bytes:
    """A record as bytes; raises TooLarge."""
    data = zlib.compress(msgpack.packb(value), 1)
    if len(data) > VALUE_BYTES_MAX:
        raise TooLarge("the job's description is too large; raise split_bytes, or name fewer files")
    return data


def unpack(data: bytes) -> Any:
    """The record again."""
    return msgpack.unpackb(zlib.decompress(data), strict_map_key=False)


class RaftState:
    """In raftd, under `mapreduce/`."""

    def __init__(self, client: RaftClient) -> None:
        self._client = client
        self._epoch = b""

    def __repr__(self) -> str:
        return f"<RaftState epoch={self._epoch.decode()}>"

    async def claim(self) -> tuple[int, dict[str, Any]]:
        """See State. Waits for the store as long as it takes."""
        while True:
            try:
                found = await self._client.get(EPOCH_KEY)
                before = None if found is None else found.value
                mine = b"%d" % (int(before or b"0") + 1)
                if await self._client.compare_and_swap(EPOCH_KEY, before, mine):
                    self._epoch = mine
                    pairs = (await self._client.range(PREFIX, prefix=True)).pairs
                    break
            except (NotReached, OutcomeUnknown):
                continue  # asked again: a higher epoch than needed does no harm
        records = {p.key.removeprefix(PREFIX).decode(): unpack(p.value) for p in pairs}
        return int(mine), records

    async def write(self, records: Records) -> None:
        """See State."""
        batch: list[list[Any]] = []
        size = 0
        for key, value in records.items():
            name = PREFIX + key.encode()
            data = b"" if value is None else pack(value)
            if batch and (len(batch) >= OPS_MAX or size + len(data) > BATCH_BYTES_MAX):
                await self._commit(batch)
                batch, size = [], 0
            if value is None:
                batch.append([DELETE, name, b"", False])
            else:
                batch.append([PUT, name, data, 0, False])
            size += len(data)
        if batch:
            await self._commit(batch)

    async def _commit(self, batch: list[list[Any]]) -> None:
        while True:
            try:
                done = await self._client.txn([["value", "=", EPOCH_KEY, self._epoch]], batch)
            except (NotReached, OutcomeUnknown):
                continue  # the same records again change nothing
            if not done.succeeded:
                raise Fatal("another master has taken over: this one's epoch is past")
            return

    def close(self) -> None:
        """See State."""
        self._client.close()


class JournalState:
    """In one file of the node's disk: records behind one another, each with its checksum."""

    def __init__(self, runtime: Runtime) -> None:
        self._disk = runtime.disk
        self._executor: Executor = runtime.executor("journal")
        self._records: dict[str, bytes] = {}
        self._size = 0

    def __repr__(self) -> str:
        return f"<JournalState records={len(self._records)} bytes={self._size}>"

    async def claim(self) -> tuple[int, dict[str, Any]]:
        """See State. Raises Fatal."""
        try:
            return await self._claim()
        except OSError as error:
            raise Fatal(f"the journal cannot be written: {error}") from error

    async def _claim(self) -> tuple[int, dict[str, Any]]:
        await self._do(self._read)
        epoch = int(unpack(self._records.get("epoch", pack(0)))) + 1
        self._records["epoch"] = pack(epoch)
        await self._do(self._rewrite)
        found = {key: unpack(data) for key, data in self._records.items() if key != "epoch"}
        return epoch, found

    async def write(self, records: Records) -> None:
        """See State."""
        packed = {key: None if value is None else pack(value) for key, value in records.items()}
        try:
            await self._do(lambda: self._append(packed))
        except OSError as error:
            # What is in the file now is not known: only reading it again can tell.
            raise Fatal(f"the journal cannot be written: {error}") from error

    def _read(self) -> None:
        if not self._disk.exists(JOURNAL):
            return
        data, position = self._disk.read(JOURNAL), 0
        while position + RECORD.size <= len(data):
            length, crc = RECORD.unpack_from(data, position)
            body = data[position + RECORD.size : position + RECORD.size + length]
            if len(body) < length or google_crc32c.value(body) != crc:
                break  # the tail that a power cut tore: it was never acknowledged
            self._apply(msgpack.unpackb(body))
            position += RECORD.size + length

    def _apply(self, batch: Mapping[str, bytes | None]) -> None:
        for key, data in batch.items():
            if data is None:
                self._records.pop(key, None)
            else:
                self._records[key] = data

    def _append(self, batch: Mapping[str, bytes | None]) -> None:
        body = msgpack.packb(dict(batch))
        with self._disk.open(JOURNAL) as file:
            file.write_at(self._size, RECORD.pack(len(body), google_crc32c.value(body)) + body)
            file.sync()
        self._size += RECORD.size + len(body)
        self._apply(batch)
        held = sum(len(data) for data in self._records.values())
        if self._size > JOURNAL_BYTES_MAX and self._size > 4 * held:
            self._rewrite()

    def _rewrite(self) -> None:
        body = msgpack.packb(self._records)
        data = RECORD.pack(len(body), google_crc32c.value(body)) + body
        self._disk.replace(JOURNAL, data)
        self._size = len(data)

    async def _do(self, work: Any) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def ended(_: Any, error: BaseException | None) -> None:
            if not done.done():
                done.set_exception(error) if error else done.set_result(None)

        self._executor.submit(work, ended)
        await done

    def close(self) -> None:
        """See State."""
        self._executor.close()
