"""The client of the store: finds the leader, retries what is safe, and says what it does not know.

    async with RaftClient.connect(".ring/cluster.toml") as client:
        await client.put(b"greeting", b"hello")
        pair = await client.get(b"greeting")
        async for batch in client.watch(b"jobs/", prefix=True):
            ...

    with SyncRaftClient(".ring/cluster.toml") as client:      the same calls, without await
        client.put(b"greeting", b"hello")

Every write has a request id in a session of this client, so it is applied exactly once however
often it is sent: across lost replies, new leaders, snapshots and restarts. What can still go wrong
is one of three:

    Refused          the store said no (no such lease, a compacted revision); nothing changed
    NotReached       nobody who could decide was reached in time; nothing changed
    OutcomeUnknown   it was sent, and no answer came in time: it may have been applied
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

from netstack.rpc.caller import caller
from netstack.rpc.errors import (
    BadRequest,
    Failed,
    Forbidden,
    RpcError,
)
from netstack.runtime.config import ClusterConfig
from netstack.runtime.endpoint import Address
from netstack.runtime.synchronous import Synchronous
from raftd import commands as c
from raftd.commands import DELETE, PUT, RANGE
from raftd.leader_seeker import PAUSE_S, SERVICE, LeaderSeeker
from raftd.model import KeyValue
from raftd.results import (
    ClientError,
    DeleteResult,
    NotReached,
    OutcomeUnknown,
    PutResult,
    RangeResult,
    Refused,
    TxnResult,
    WatchBatch,
    WatchEvent,
)
from raftd.watch import SILENCE_S

__all__ = [
    "DELETE",
    "PUT",
    "RANGE",
    "ClientError",
    "DeleteResult",
    "KeyValue",
    "NotReached",
    "OutcomeUnknown",
    "PutResult",
    "RaftClient",
    "RangeResult",
    "Refused",
    "SyncRaftClient",
    "TxnResult",
    "WatchBatch",
    "WatchEvent",
]


class RaftClient(LeaderSeeker):
    """One session with the store.

    Args:
        node: a started RpcNode to call from.
        members: name -> address of the nodes known at first; others are learnt.
    """

    def __repr__(self) -> str:
        return f"<RaftClient leader={self._leader} open={len(self._open)}>"

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(
        cls, config: Path | str, *, identity: str = "cli"
    ) -> AsyncIterator[RaftClient]:
        """A client of the cluster whose file is `config`, under one of its identities.

        Raises ConfigError or KeystoreError. Does not wait for the cluster: the first call does.
        """
        cluster = ClusterConfig.load(Path(config))
        members = {n.name: n.address for n in cluster.of_service(SERVICE)}
        async with caller(cluster, identity) as node:
            client = cls(node, members)
            try:
                yield client
            finally:
                client.close()

    # -- writes

    async def put(
        self,
        key: bytes,
        value: bytes,
        *,
        lease: int = 0,
        previous: bool = False,
        timeout_s: float = 10.0,
    ) -> PutResult:
        """Set a key."""
        _, revision, old = await self._execute([c.PUT, key, value, lease, previous], timeout_s)
        return PutResult(revision, _pair(old))

    async def delete(
        self,
        key: bytes,
        range_end: bytes = b"",
        *,
        prefix: bool = False,
        previous: bool = False,
        timeout_s: float = 10.0,
    ) -> DeleteResult:
        """Delete a key, a range, or all keys with a prefix."""
        range_end = c.prefix_end(key) if prefix else range_end
        answer = await self._execute([c.DELETE, key, range_end, previous], timeout_s)
        return DeleteResult(answer[1], answer[2], [KeyValue._make(p) for p in answer[3]])

    async def txn(
        self,
        compares: Sequence[Sequence[Any]],
        then: Sequence[Sequence[Any]],
        otherwise: Sequence[Sequence[Any]] = (),
        *,
        timeout_s: float = 10.0,
    ) -> TxnResult:
        """Compare, then do the one or the other, atomically. See commands.py for the forms."""
        op = [c.TXN, *([list(item) for item in part] for part in (compares, then, otherwise))]
        _, revision, succeeded, answers = await self._execute(op, timeout_s)
        return TxnResult(revision, succeeded, answers)

    async def compare_and_swap(
        self, key: bytes, expected: bytes | None, value: bytes, *, timeout_s: float = 10.0
    ) -> bool:
        """Set `key` to `value` if it holds `expected` (None: if it is not there)."""
        target, operand = ("version", 0) if expected is None else ("value", expected)
        compare = [target, "=", key, operand]
        put = [c.PUT, key, value, 0, False]
        return (await self.txn([compare], [put], timeout_s=timeout_s)).succeeded

    async def compact(self, revision: int, *, timeout_s: float = 10.0) -> None:
        """Forget the history up to `revision`."""
        await self._execute([c.COMPACT, revision], timeout_s)

    async def lease_grant(self, ttl_s: int, lease_id: int = 0, *, timeout_s: float = 10.0) -> int:
        """A new lease; keys put under it vanish `ttl_s` seconds after the last keep-alive."""
        lease_id = lease_id or int.from_bytes(self._runtime.entropy(7), "big") | 1
        await self._execute([c.LEASE_GRANT, lease_id, ttl_s], timeout_s)
        return lease_id

    async def lease_revoke(self, lease_id: int, *, timeout_s: float = 10.0) -> int:
        """End a lease now; returns how many keys went with it."""
        answer = await self._execute([c.LEASE_REVOKE, lease_id], timeout_s)
        return int(answer[2])

    async def lease_keep_alive(self, lease_id: int, *, timeout_s: float = 5.0) -> int:
        """Give a lease its full time again; returns that time in seconds."""
        return int(await self._ask_leader("kv.lease_keep", lease_id, timeout_s))

    async def lease_ttl(
        self, lease_id: int, *, timeout_s: float = 5.0
    ) -> tuple[int, float, list[bytes]]:
        """(TTL, seconds left, keys) of a lease."""
        ttl_s, left_s, keys = await self._ask_leader("kv.lease_ttl", lease_id, timeout_s)
        return ttl_s, left_s, keys

    # -- reads

    async def get(
        self, key: bytes, *, at: str | None = None, timeout_s: float = 10.0
    ) -> KeyValue | None:
        """The pair, linearizably; None if there is none."""
        pairs = (await self.range(key, at=at, timeout_s=timeout_s)).pairs
        return pairs[0] if pairs else None

    async def range(
        self,
        key: bytes,
        range_end: bytes = b"",
        *,
        prefix: bool = False,
        revision: int = 0,
        limit: int = 0,
        keys_only: bool = False,
        count_only: bool = False,
        serializable: bool = False,
        at: str | None = None,
        timeout_s: float = 10.0,
    ) -> RangeResult:
        """Pairs of a key, a range or a prefix.

        Args:
            serializable: as the node that is asked has it, be it old.
            at: the node to ask, once; None: the leader, until it answers.
        """
        range_end = c.prefix_end(key) if prefix else range_end
        body = [key, range_end, revision, limit, keys_only, count_only, serializable]
        if at is None:
            answer = await self._ask_leader("kv.range", body, timeout_s)
        else:
            answer = await self._ask_one(at, "kv.range", body, timeout_s)
        if answer[2] and not count_only:
            await self._further_pages(body, answer, timeout_s)
        revision, pairs, more, count = answer
        return RangeResult(revision, [KeyValue._make(p) for p in pairs], more, count)

    async def _further_pages(self, body: list[Any], answer: list[Any], timeout_s: float) -> None:
        """What did not fit one message, as of the revision of the first: it becomes one answer."""
        _, range_end, revision, limit, *how = body
        at, pairs, _, count = answer
        while len(pairs) < (min(limit, count) if limit else count):
            after = pairs[-1][0] + b"\0"
            left = limit - len(pairs) if limit else 0
            page = [after, range_end, revision or at, left, *how]
            more = (await self._ask_leader("kv.range", page, timeout_s))[1]
            if not more:
                break
            pairs += more
        answer[2] = len(pairs) < count

    async def watch(
        self,
        key: bytes,
        range_end: bytes = b"",
        *,
        prefix: bool = False,
        revision: int = 0,
        progress: bool = False,
    ) -> AsyncGenerator[WatchBatch, None]:
        """Changes from `revision` on (0: from now), in order, each once, for ever.

        A connection that ends is replaced, and so is a node that is silent or has lost its leader;
        the watch goes on where it was. With `progress`, a batch without events says now and then
        up to which revision there was nothing. Raises Refused("compacted") when the history it
        needs is gone.
        """
        range_end = c.prefix_end(key) if prefix else range_end
        while True:
            client = await self._any_client()
            changes: list[WatchEvent] = []
            try:
                body = [key, range_end, revision]
                stream = client.stream("kv.watch", body, timeout_s=SILENCE_S)
                async for at, events, more in stream:
                    changes += [_event(pair, previous) for pair, previous in events]
                    if more:
                        continue  # a revision is handed over whole
                    begun, revision = revision, at + 1
                    if changes or (progress and begun):
                        yield WatchBatch(at, changes)
                        changes = []
            except Failed as error:
                raise Refused(error.reason, error.message, error.details) from None
            except (BadRequest, Forbidden) as error:
                raise Refused(error.code, error.message) from None
            except RpcError:
                self._leader = None
                await asyncio.sleep(PAUSE_S)

    # -- operators

    async def change_members(
        self,
        add: dict[str, Address] | None = None,
        remove: Sequence[str] = (),
        *,
        timeout_s: float = 60.0,
    ) -> list[str]:
        """Add nodes (learners until they have caught up), remove others; returns the voters."""
        body = {"add": {n: list(a) for n, a in (add or {}).items()}, "remove": list(remove)}
        answer = await self._ask_leader("raft.members", body, timeout_s, attempt_s=timeout_s)
        return list(answer["voters"])

    async def transfer_leadership(self, to: str, *, timeout_s: float = 5.0) -> None:
        """Have `to` lead."""
        await self._ask_leader("raft.transfer", to, timeout_s)
        self._leader = to


def _pair(fields: Any) -> KeyValue | None:
    return KeyValue._make(fields) if fields is not None else None


def _event(pair: Any, previous: Any) -> WatchEvent:
    return WatchEvent(KeyValue._make(pair), _pair(previous))


class SyncRaftClient(Synchronous[RaftClient]):
    """The same calls without await, from any thread."""

    def __init__(self, config: Path | str, *, identity: str = "cli") -> None:
        super().__init__(RaftClient.connect(config, identity=identity))

    def put(self, key: bytes, value: bytes, **options: Any) -> PutResult:
        """See RaftClient.put."""
        return self.run(self.asynchronous.put(key, value, **options))

    def get(self, key: bytes, **options: Any) -> KeyValue | None:
        """See RaftClient.get."""
        return self.run(self.asynchronous.get(key, **options))

    def range(self, key: bytes, range_end: bytes = b"", **options: Any) -> RangeResult:
        """See RaftClient.range."""
        return self.run(self.asynchronous.range(key, range_end, **options))

    def delete(self, key: bytes, range_end: bytes = b"", **options: Any) -> DeleteResult:
        """See RaftClient.delete."""
        return self.run(self.asynchronous.delete(key, range_end, **options))

    def txn(self, compares: Any, then: Any, otherwise: Any = (), **options: Any) -> TxnResult:
        """See RaftClient.txn."""
        return self.run(self.asynchronous.txn(compares, then, otherwise, **options))

    def compare_and_swap(
        self, key: bytes, expected: bytes | None, value: bytes, **options: Any
    ) -> bool:
        """See RaftClient.compare_and_swap."""
        return self.run(self.asynchronous.compare_and_swap(key, expected, value, **options))

    def compact(self, revision: int, **options: Any) -> None:
        """See RaftClient.compact."""
        self.run(self.asynchronous.compact(revision, **options))

    def lease_grant(self, ttl_s: int, **options: Any) -> int:
        """See RaftClient.lease_grant."""
        return self.run(self.asynchronous.lease_grant(ttl_s, **options))

    def lease_keep_alive(self, lease_id: int, **options: Any) -> int:
        """See RaftClient.lease_keep_alive."""
        return self.run(self.asynchronous.lease_keep_alive(lease_id, **options))

    def lease_revoke(self, lease_id: int, **options: Any) -> int:
        """See RaftClient.lease_revoke."""
        return self.run(self.asynchronous.lease_revoke(lease_id, **options))

    def watch(self, key: bytes, range_end: bytes = b"", **options: Any) -> Iterator[WatchBatch]:
        """See RaftClient.watch. Ends when the generator is closed."""
        batches = self.asynchronous.watch(key, range_end, **options)
        try:
            while True:
                yield self.run(anext(batches))
        finally:
            self.run(batches.aclose())
