"""Where the record of an elastic training run lives: in raftd, under one prefix a job.

    ddp/runs/JOB/record         the record, changed by compare-and-swap on its bytes
    ddp/runs/JOB/asked/NAME     who wants in; gone in the same transaction that lets him in

Any store that has `read`, `swap`, `ask` and `follow` would do; tests have one in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import msgpack

from ddp.training.elastic import Member, Record
from raftd.client import DELETE, PUT, ClientError, RaftClient, WatchBatch

# Between two tries to reach a store that is away.
PAUSE_S = 0.05

# A watch that says nothing for so long is begun anew, behind a read: a node that was killed says
# nothing either, and its connection ends only much later.
QUIET_S = 0.5

# Told whenever something has changed: the record, and who has asked.
News = Callable[["Record | None", list[Member]], None]


class RecordStore(Protocol):
    """What the shell needs."""

    async def read(self) -> Record | None:
        """The record; waits as long as the store is away."""

    async def swap(self, before: Record | None, after: Record) -> None:
        """Make it `after` if it is `before`. Whether it was so, or done, is for `read` to tell."""

    async def ask(self, member: Member) -> None:
        """Want in; waits as long as the store is away."""

    async def follow(self, news: News) -> None:
        """Tell what is there, and then every change, for ever."""


class RaftRecords:
    """RecordStore in raftd."""

    def __init__(self, client: RaftClient, job: str) -> None:
        self._client = client
        self._prefix = f"ddp/runs/{job}/".encode()
        self._record_key = self._prefix + b"record"
        self._asked = self._prefix + b"asked/"

    def __repr__(self) -> str:
        return f"<RaftRecords {self._prefix.decode()}>"

    async def read(self) -> Record | None:
        """See RecordStore."""
        while True:
            try:
                pair = await self._client.get(self._record_key)
                return decode_record(pair.value) if pair is not None else None
            except ClientError:
                await asyncio.sleep(PAUSE_S)

    async def swap(self, before: Record | None, after: Record) -> None:
        """See RecordStore."""
        if before is None:
            compare = ["version", "=", self._record_key, 0]
        else:
            compare = ["value", "=", self._record_key, encode_record(before)]
        known = {member.life for member in before.members} if before else set()
        let_in = [m.name for m in after.members if m.life not in known]
        done = [[DELETE, self._asked + name.encode(), b"", False] for name in let_in]
        put = [PUT, self._record_key, encode_record(after), 0, False]
        await self._client.txn([compare], [put, *done])

    async def ask(self, member: Member) -> None:
        """See RecordStore."""
        while True:
            try:
                await self._client.put(self._asked + member.name.encode(), encode_member(member))
                return
            except ClientError:
                await asyncio.sleep(PAUSE_S)

    async def follow(self, news: News) -> None:
        """See RecordStore."""
        while True:
            try:
                found = await self._client.range(self._prefix, prefix=True)
                pairs = {pair.key: pair.value for pair in found.pairs}
                self._tell(pairs, news)
                async for batch in self._changes(found.revision + 1):
                    for event in batch.events:
                        pairs[event.pair.key] = event.pair.value
                        if not event.pair.version:  # it was deleted
                            del pairs[event.pair.key]
                    self._tell(pairs, news)
            except ClientError:  # it is away, or has forgotten what we had not seen yet
                await asyncio.sleep(PAUSE_S)

    async def _changes(self, revision: int) -> AsyncIterator[WatchBatch]:
        """A watch that ends when it has been silent for QUIET_S: its node may be dead."""
        watch = self._client.watch(self._prefix, prefix=True, revision=revision)
        async with contextlib.aclosing(watch):
            with contextlib.suppress(TimeoutError):
                while True:
                    async with asyncio.timeout(QUIET_S):
                        batch = await anext(watch)
                    yield batch

    def _tell(self, pairs: dict[bytes, bytes], news: News) -> None:
        data = pairs.get(self._record_key)
        asked = [decode_member(v) for k, v in pairs.items() if k.startswith(self._asked)]
        news(decode_record(data) if data is not None else None, asked)


def encode_record(record: Record) -> bytes:
    """The same record gives the same bytes: they are what is compared."""
    members = [_fields(member) for member in record.members]
    data: bytes = msgpack.packb([record.epoch, record.step, members, record.decided_in])
    return data


def decode_record(data: bytes) -> Record:
    """Back from bytes."""
    epoch, step, members, decided_in = msgpack.unpackb(data)
    return Record(epoch, step, tuple(Member(*fields) for fields in members), decided_in)


def encode_member(member: Member) -> bytes:
    """A request to be let in."""
    data: bytes = msgpack.packb(_fields(member))
    return data


def decode_member(data: bytes) -> Member:
    """Back from bytes."""
    return Member(*msgpack.unpackb(data))


def _fields(member: Member) -> list[object]:
    return [member.name, member.life, member.host, member.port, member.healed, member.process]
