"""A group's record in raftd, and one's own entry among those that live (membership.py).

    records = RaftRecords(runtime, client, "workers")
    records.start(news, given_up)           news(record, alive): what is there, then every change
    records.appear(member)                  be among the living, for as long as this process is
    await records.swap(before, after)       the only way to change the record
    await records.evict(member)             that life is over

An entry is under a lease, so it ends with its owner, at once where somebody has seen him die and
takes it away, otherwise when the lease does. Who was put out of the record is taken off the living
in the same transaction: he comes back as another life, or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from ddp.errors import BadCall
from ddp.membership import Member, Record
from netstack.runtime.runtime import Runtime
from raftd.client import DELETE, PUT, ClientError, RaftClient, Refused, WatchBatch

PREFIX: Final = b"ddp/groups/"

# Silence after which an entry ends. Seconds, as raftd counts leases; long enough for an election.
LEASE_S: Final = 2
KEEP_S: Final = 0.4

# Between two tries to reach a store that is away.
PAUSE_S: Final = 0.05
ASK_S: Final = 5.0

# A watch that says nothing for so long is begun anew, behind a read: a node that was killed says
# nothing either, and its connection ends only much later.
QUIET_S: Final = 0.5

# Told whenever something has changed: the record, and who lives, by name.
News = Callable[["Record | None", dict[str, Member]], None]


class RaftRecords:
    """See above. `group` is its name."""

    def __init__(self, runtime: Runtime, client: RaftClient, group: str) -> None:
        self.reached = False  # whether raftd answered when last asked
        self.alive: dict[str, Member] = {}
        self._runtime, self._client = runtime, client
        self._prefix = PREFIX + group.encode() + b"/"
        self._record_key, self._alive_keys = self._prefix + b"record", self._prefix + b"alive/"
        self._record: Record | None = None
        self._me: Member | None = None
        self._shown: Member | None = None  # what is there under our name, as far as we know
        self._shown_at = 0  # since this revision
        self._lease = 0
        self._stirred = asyncio.Event()
        self._given_up: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        return f"<RaftRecords {self._prefix.decode()} {self._record!r}>"

    def start(self, news: News, given_up: Callable[[], None]) -> None:
        """Follow from now on.

        given_up: told when our own entry is gone although we live; it may `appear` again.
        """
        self._given_up = given_up
        self._runtime.spawn(self._keep(), "ddp lease")
        self._runtime.spawn(self._follow(news), "ddp watch")

    async def leave(self) -> None:
        """Give up the entry in good order."""
        self._me = self._shown = None
        self._given_up = lambda: None  # from here on that is as it should be
        if self._lease:
            with contextlib.suppress(ClientError):
                await self._client.lease_revoke(self._lease, timeout_s=1.0)
        self._client.close()

    # -- the record

    async def read(self) -> Record | None:
        """The record; waits as long as the store is away."""
        while True:
            try:
                pair = await self._client.get(self._record_key, timeout_s=ASK_S)
                return Record.decode(pair.value) if pair is not None else None
            except ClientError:
                await asyncio.sleep(PAUSE_S)

    async def swap(self, before: Record | None, after: Record) -> bool:
        """Make it `after` if it is `before`; whether it was so. Raises ClientError: unknown."""
        if before is None:
            compares: list[Any] = [["version", "=", self._record_key, 0]]
        else:
            compares = [["value", "=", self._record_key, before.encode()]]
        changes: list[Any] = [[PUT, self._record_key, after.encode(), 0, False]]
        for member in before.members if before is not None else ():
            if after.rank(member.life) is None and self._lives(member):
                key = self._alive_keys + member.name.encode()
                compares.append(["value", "=", key, self.alive[member.name].encode()])
                changes.append([DELETE, key, b"", False])
        return (await self._client.txn(compares, changes, timeout_s=ASK_S)).succeeded

    def _lives(self, member: Member) -> bool:
        """Whether the entry of its name is of this life, and not of the next."""
        found = self.alive.get(member.name)
        return found is not None and found.life == member.life

    # -- the living

    def appear(self, member: Member) -> None:
        """Be there as `member`, instead of what was there under the name."""
        self._me, self._shown = member, None
        self._stirred.set()

    async def evict(self, member: Member) -> None:
        """That life is over; whoever comes under the name is another one."""
        key = self._alive_keys + member.name.encode()
        compares = [["value", "=", key, member.encode()]]
        if (me := self._me) is not None:
            # Who was given up itself while it slept must not give up those who went on without it.
            own = self._alive_keys + me.name.encode()
            compares.append(["value", "=", own, me.encode()])
        with contextlib.suppress(ClientError):
            await self._client.txn(compares, [[DELETE, key, b"", False]], timeout_s=ASK_S)

    async def _keep(self) -> None:
        while True:
            self._stirred.clear()
            try:
                if self._me is not None:
                    await self._show(self._me)
                    self.reached = True
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(KEEP_S):
                        await self._stirred.wait()
            except ClientError as error:
                self.reached = False
                if isinstance(error, Refused) and error.reason == "no-lease":
                    self._lease, self._shown = 0, None
                    self._given_up()
                await asyncio.sleep(PAUSE_S)

    async def _show(self, me: Member) -> None:
        """Our entry, if it is not there yet; and a lease that goes on."""
        if not self._lease:
            self._lease = await self._client.lease_grant(LEASE_S, timeout_s=ASK_S)
        if self._shown != me:
            key = self._alive_keys + me.name.encode()
            put = await self._client.put(key, me.encode(), lease=self._lease, timeout_s=ASK_S)
            self._shown, self._shown_at = me, put.revision
        else:
            await self._client.lease_keep_alive(self._lease, timeout_s=ASK_S)

    # -- news

    async def _follow(self, news: News) -> None:
        while True:
            try:
                found = await self._client.range(self._prefix, prefix=True, timeout_s=ASK_S)
                self.alive.clear()
                for pair in found.pairs:
                    self._see(pair.key, pair.value)
                self._look_for_ours(found.revision)
                news(self._record, dict(self.alive))
                async for batch in self._changes(found.revision + 1):
                    for event in batch.events:
                        pair = event.pair
                        self._see(pair.key, pair.value if pair.version else None)
                        self._look_for_ours(pair.mod)
                    news(self._record, dict(self.alive))
            except ClientError:  # it is away, or has forgotten what we had not seen yet
                await asyncio.sleep(PAUSE_S)

    async def _changes(self, revision: int) -> AsyncIterator[WatchBatch]:
        """A watch that ends when it has been silent for QUIET_S: its node may be dead."""
        watch = self._client.watch(self._prefix, prefix=True, revision=revision)
        async with contextlib.aclosing(watch):
            with contextlib.suppress(TimeoutError, StopAsyncIteration):
                while True:
                    async with asyncio.timeout(QUIET_S):
                        batch = await anext(watch)
                    yield batch

    def _see(self, key: bytes, value: bytes | None) -> None:
        try:
            if key == self._record_key and value is not None:
                record = Record.decode(value)
                if self._record is None or record.age > self._record.age:
                    self._record = record
            elif key.startswith(self._alive_keys):
                self._see_entry(key[len(self._alive_keys) :].decode(), value)
        except (BadCall, UnicodeDecodeError) as error:
            self._runtime.events.emit(
                "ddp.bad_entry", key=key.decode(errors="replace"), cause=str(error)
            )

    def _see_entry(self, name: str, value: bytes | None) -> None:
        if value is not None:
            self.alive[name] = Member.decode(value)
        else:
            self.alive.pop(name, None)

    def _look_for_ours(self, revision: int) -> None:
        """What we have shown must still be there at `revision`, or we were given up while we live.

        What was so before we showed it is no news.
        """
        shown = self._shown
        if shown is None or revision < self._shown_at or self.alive.get(shown.name) == shown:
            return
        self._shown = None
        self._given_up()
