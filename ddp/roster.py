"""The worker's side of membership: keeps its own entry alive, and the record right.

A worker that dies is taken off the list at once by whoever saw it die (`evict`); one that falls
silent, when its lease ends. A worker whose own lease has ended was given up: it goes on as
another life.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from ddp.card import Card
from ddp.errors import BadCall
from ddp.membership import ALIVE, PREFIX, RECORD, Member, Record, successor
from netstack.rpc.node import RpcNode
from netstack.runtime.endpoint import Address
from raftd.client import DELETE, ClientError, RaftClient, Refused

# Silence after which a worker is given up. Seconds, as raftd counts leases; long enough for an
# election.
LEASE_S: Final = 2
KEEP_S: Final = 0.4

# After a failure to reach raftd.
PAUSE_S: Final = 0.1
ASK_S: Final = 5.0

# Those who start together come in one epoch instead of one each.
SETTLE_S: Final = 0.05


class Roster:
    """See above.

    Args:
        on_record: called with each record, and the life of this worker at the time.
    """

    def __init__(
        self,
        node: RpcNode,
        raft: dict[str, Address],
        card: Card,
        on_record: Callable[[Record, str], None],
    ) -> None:
        self.record: Record | None = None
        self.alive: dict[str, Member] = {}
        self.life = ""
        self.reached = False
        self._card, self._on_record = card, on_record
        self._runtime = node.runtime
        self._client = RaftClient(node, raft)
        self._lease = 0
        self._renew_from = 0
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Roster {self._card.name} life={self.life} {self.record!r}>"

    def start(self) -> None:
        """Come alive, and follow what happens."""
        self._runtime.spawn(self._live(), "ddp lease")
        self._runtime.spawn(self._follow(), "ddp watch")
        self._runtime.spawn(self._keep_right(), "ddp record")

    def evict(self, member: Member) -> None:
        """That life is over; whoever comes under the name is another one."""
        self._runtime.spawn(self._evict(member), f"evict {member.name}")

    def renew(self, epoch: int) -> None:
        """The group of `epoch` is over though all live: begin another."""
        self._renew_from = epoch
        self._changed.set()

    async def leave(self) -> None:
        """Give up the entry in good order."""
        if self._lease:
            with contextlib.suppress(ClientError):
                await self._client.lease_revoke(self._lease, timeout_s=1.0)
        self._client.close()

    async def _live(self) -> None:
        while True:
            try:
                if not self._lease:
                    self.life = self._runtime.entropy(6).hex()
                    lease = await self._client.lease_grant(LEASE_S, timeout_s=ASK_S)
                    key = ALIVE + self._card.name.encode()
                    member = Member(self.life, self._card)
                    await self._client.put(key, member.encode(), lease=lease, timeout_s=ASK_S)
                    self._lease = lease
                await self._client.lease_keep_alive(self._lease, timeout_s=ASK_S)
                self.reached = True
                await asyncio.sleep(KEEP_S)
            except ClientError as error:
                self.reached = False
                if isinstance(error, Refused) and error.reason == "no-lease":
                    self._lease = 0  # given up: begin again as another
                await asyncio.sleep(PAUSE_S)

    async def _follow(self) -> None:
        while True:
            try:
                found = await self._client.range(PREFIX, prefix=True, timeout_s=ASK_S)
                self.alive.clear()
                for pair in found.pairs:
                    self._see(pair.key, pair.value)
                self._changed.set()
                revision = found.revision + 1
                async for batch in self._client.watch(PREFIX, prefix=True, revision=revision):
                    for event in batch.events:
                        self._see(event.pair.key, event.pair.value if event.pair.version else None)
                    self._changed.set()
            except ClientError:
                await asyncio.sleep(PAUSE_S)

    def _see(self, key: bytes, value: bytes | None) -> None:
        try:
            if key == RECORD and value is not None:
                record = Record.decode(value)
                if self.record is None or record.epoch > self.record.epoch:
                    self.record = record
                    self._on_record(record, self.life)
            elif key.startswith(ALIVE):
                name = key[len(ALIVE) :].decode()
                if value is None:
                    gone = self.alive.pop(name, None)
                    if gone is not None and gone.life == self.life:
                        self._lease = 0  # we were given up while we lived: another life
                else:
                    self.alive[name] = Member.decode(value)
        except (BadCall, UnicodeDecodeError) as error:
            self._runtime.events.emit(
                "ddp.bad_entry", key=key.decode(errors="replace"), cause=str(error)
            )

    async def _keep_right(self) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(SETTLE_S if self.record is None else 0)
            self._changed.clear()
            record = self.record
            renew = record is not None and record.epoch == self._renew_from
            wanted = successor(record, self.alive, renew=renew)
            if wanted is None:
                continue
            expected = None if record is None else record.encode()
            try:
                won = await self._client.compare_and_swap(
                    RECORD, expected, wanted.encode(), timeout_s=ASK_S
                )
            except ClientError:
                await asyncio.sleep(PAUSE_S)
                self._changed.set()
                continue
            if won:
                self._runtime.events.emit(
                    "ddp.epoch", epoch=wanted.epoch, members=[m.name for m in wanted.members]
                )

    async def _evict(self, member: Member) -> None:
        key = ALIVE + member.name.encode()
        # Who was given up itself while it slept must not give up those who have gone on without it.
        own = Member(self.life, self._card)
        compares = [
            ["value", "=", key, member.encode()],
            ["value", "=", ALIVE + own.name.encode(), own.encode()],
        ]
        with contextlib.suppress(ClientError):
            await self._client.txn(compares, [[DELETE, key, b"", False]], timeout_s=ASK_S)
