"""The workers' side of membership: the members are those that live, in one epoch after another.

A worker that dies is taken off the list at once by whoever saw it die (`evict`); one that falls
silent, when its lease ends. A worker that was given up goes on as another life. Whoever sees that
the living are others than the members writes the next record; of several who do, one wins, and the
others read what it wrote.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from ddp.card import Card
from ddp.membership import Member, Record, successor
from ddp.records import PAUSE_S, RaftRecords
from netstack.rpc.node import RpcNode
from netstack.runtime.endpoint import Address
from raftd.client import ClientError, RaftClient

GROUP: Final = "workers"

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
        self.life = ""
        self._card, self._on_record = card, on_record
        self._runtime = node.runtime
        client = RaftClient(node, raft)
        self._records = RaftRecords(node.runtime, client, GROUP)
        self._renew_from = 0
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Roster {self._card.name} life={self.life} {self.record!r}>"

    @property
    def reached(self) -> bool:
        """Whether raftd answered when last asked."""
        return self._records.reached

    def start(self) -> None:
        """Come alive, and follow what happens."""
        self._be_born()
        self._records.start(self._news, self._be_born)
        self._runtime.spawn(self._keep_right(), "ddp record")

    def evict(self, member: Member) -> None:
        """That life is over; whoever comes under the name is another one."""
        self._runtime.spawn(self._records.evict(member), f"evict {member.name}")

    def renew(self, epoch: int) -> None:
        """The group of `epoch` is over though all live: begin another."""
        self._renew_from = epoch
        self._changed.set()

    async def leave(self) -> None:
        """Give up the entry in good order."""
        await self._records.leave()

    def _be_born(self) -> None:
        self.life = self._runtime.entropy(6).hex()
        self._records.appear(Member(self._card.name, self.life, self._card))

    def _news(self, record: Record | None, alive: dict[str, Member]) -> None:
        if record is not None and (self.record is None or record.epoch > self.record.epoch):
            self.record = record
            self._on_record(record, self.life)
        self._changed.set()

    async def _keep_right(self) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(SETTLE_S if self.record is None else 0)
            self._changed.clear()
            record = self.record
            renew = record is not None and record.epoch == self._renew_from
            wanted = successor(record, self._records.alive, renew=renew)
            if wanted is None:
                continue
            try:
                won = await self._records.swap(record, wanted)
            except ClientError:
                await asyncio.sleep(PAUSE_S)
                self._changed.set()
                continue
            if won:
                self._runtime.events.emit(
                    "ddp.epoch", epoch=wanted.epoch, members=[m.name for m in wanted.members]
                )
