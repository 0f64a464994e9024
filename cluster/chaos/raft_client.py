"""Our store as a campaign's client sees it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from contextlib import aclosing
from typing import TypeVar

from cluster.chaos.system import Change, Forgotten, Pair, Refused, Unsure
from raftd import client as rc

T = TypeVar("T")

# A request that takes longer is given up, and nobody knows what became of it.
TIMEOUT_S = 4.0
# Of one node that may be down.
ONE_NODE_S = 0.5


class RaftStore:
    """Requests of one session, in text. Implements chaos.system.Client.

    Every node accepts every read, so every other read goes to the nodes in turn: also to one that
    was leader a moment ago, or has never heard of what it is asked for.
    """

    def __init__(self, client: rc.RaftClient, nodes: Sequence[str]) -> None:
        self.raft = client
        self._turns = itertools.cycle([place for node in nodes for place in (None, node)])

    async def get(self, key: str) -> Pair | None:
        """See Client."""
        at = next(self._turns)
        timeout_s = TIMEOUT_S if at is None else ONE_NODE_S
        found = await _told(self.raft.get(key.encode(), at=at, timeout_s=timeout_s))
        return None if found is None else _pair(found)

    async def put(self, key: str, value: str) -> int:
        """See Client."""
        put = self.raft.put(key.encode(), value.encode(), timeout_s=TIMEOUT_S)
        return (await _told(put)).revision

    async def delete(self, key: str) -> tuple[bool, int]:
        """See Client."""
        done = await _told(self.raft.delete(key.encode(), timeout_s=TIMEOUT_S))
        return done.deleted > 0, done.revision

    async def swap(self, key: str, old: str | None, new: str) -> tuple[bool, int]:
        """See Client."""
        target, operand = ("version", 0) if old is None else ("value", old.encode())
        compare: list[object] = [target, "=", key.encode(), operand]
        return await self._txn([compare], [_put(key, new)])

    async def read(self, keys: Sequence[str]) -> dict[str, Pair | None]:
        """See Client."""
        reads: list[list[object]] = [
            [rc.RANGE, key.encode(), b"", 0, 0, False, False] for key in keys
        ]
        done = await _told(self.raft.txn([], reads, timeout_s=TIMEOUT_S))
        return {
            key: _pair(rc.KeyValue._make(pairs[0])) if pairs else None
            for key, (_, _, pairs, *_) in zip(keys, done.answers, strict=True)
        }

    async def commit(self, guards: Mapping[str, int], puts: Mapping[str, str]) -> tuple[bool, int]:
        """See Client."""
        compares = [["mod", "=", key.encode(), mod] for key, mod in guards.items()]
        return await self._txn(compares, [_put(key, value) for key, value in puts.items()])

    async def range(self, prefix: str) -> dict[str, Pair]:
        """See Client."""
        wanted = self.raft.range(prefix.encode(), prefix=True, timeout_s=TIMEOUT_S)
        return {pair.key.decode(): _pair(pair) for pair in (await _told(wanted)).pairs}

    async def watch(self, prefix: str, revision: int) -> AsyncGenerator[list[Change]]:
        """See Client."""
        batches = self.raft.watch(prefix.encode(), prefix=True, revision=revision)
        async with aclosing(batches):
            while True:
                try:
                    batch = await anext(batches)
                except rc.Refused as error:
                    if error.reason == "compacted":
                        raise Forgotten(error.details) from None
                    raise Refused(str(error)) from None
                yield [_change(pair) for pair, _ in batch.events]

    async def compact(self, revision: int) -> None:
        """See Client."""
        await _told(self.raft.compact(revision, timeout_s=TIMEOUT_S))

    async def grant(self, ttl_s: int) -> int:
        """See Client."""
        return await _told(self.raft.lease_grant(ttl_s, timeout_s=TIMEOUT_S))

    async def keep_alive(self, lease: int) -> None:
        """See Client."""
        await _told(self.raft.lease_keep_alive(lease, timeout_s=TIMEOUT_S))

    async def revoke(self, lease: int) -> None:
        """See Client."""
        await _told(self.raft.lease_revoke(lease, timeout_s=TIMEOUT_S))

    async def claim(self, key: str, value: str, lease: int) -> int | None:
        """See Client."""
        put = [rc.PUT, key.encode(), value.encode(), lease, False]
        done, revision = await self._txn([["version", "=", key.encode(), 0]], [put])
        return revision if done else None

    async def _txn(
        self, compares: list[list[object]], puts: list[list[object]]
    ) -> tuple[bool, int]:
        done = await _told(self.raft.txn(compares, puts, timeout_s=TIMEOUT_S))
        return done.succeeded, done.revision


def _put(key: str, value: str) -> list[object]:
    return [rc.PUT, key.encode(), value.encode(), 0, False]


def _change(pair: rc.KeyValue) -> Change:
    return Change(pair.mod, pair.key.decode(), pair.value.decode() if pair.version else None)


def _pair(found: rc.KeyValue) -> Pair:
    return Pair(found.value.decode(), found.mod, found.version)


async def _told(request: Awaitable[T]) -> T:
    try:
        return await request
    except rc.OutcomeUnknown as error:
        raise Unsure(str(error)) from None
    except (rc.NotReached, rc.Refused) as error:
        raise Refused(str(error)) from None
