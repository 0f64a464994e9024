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
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from netstack.rpc.client import RpcClient
from netstack.rpc.errors import (
    BadRequest,
    Definite,
    Failed,
    Forbidden,
    Indefinite,
    Overloaded,
    RpcError,
    Unavailable,
)
from netstack.rpc.node import RpcNode
from netstack.runtime.config import ClusterConfig
from netstack.runtime.endpoint import Address
from netstack.runtime.runtime import RealRuntime
from netstack.transport.config import TransportConfig
from raftd import commands as c
from raftd.commands import DELETE, PUT, RANGE
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
from security import keystore

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

T = TypeVar("T")

SERVICE = "raft"

# One attempt's limit. It bounds how long a request can hang on a node that was paused.
ATTEMPT_S = 2.0
# Without any answer for this long, the other nodes are asked whether there is a new leader.
SUSPECT_S = 0.06
HELLO_S = 0.3
# Between attempts while there is no leader: an election takes 150 to 300 ms.
PAUSE_S = 0.01


class RaftClient:
    """One session with the store.

    Args:
        node: a started RpcNode to call from.
        members: name -> address of the nodes known at first; others are learnt.
    """

    def __init__(self, node: RpcNode, members: dict[str, Address]) -> None:
        self._node = node
        self._runtime = node.runtime
        self._now = node.runtime.clock.now
        self._clients = {name: node.client(at, SERVICE, name) for name, at in members.items()}
        self._leader: str | None = None
        self._term = 0
        self._base = 0
        self._session = node.runtime.entropy(c.SESSION_BYTES)
        self._sequence = 0
        self._open: dict[int, None] = {}
        self._finding: asyncio.Task[None] | None = None
        self._waiting = 0
        self._answered_at = 0.0
        self._watchdog: asyncio.TimerHandle | None = None
        self._turn = 0

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
        own = keystore.load_identity(cluster.home, identity)
        runtime = RealRuntime(identity, cluster.home / "nodes" / identity)
        node = RpcNode(runtime, own, service="client", config=TransportConfig(suite=cluster.suite))
        await node.start(("127.0.0.1", 0))
        members = {n.name: n.address for n in cluster.of_service(SERVICE)}
        client = cls(node, members)
        try:
            yield client
        finally:
            client.close()
            await node.close()
            runtime.close()

    def close(self) -> None:
        """Stop looking for leaders; the node is the caller's to close."""
        if self._watchdog is not None:
            self._watchdog.cancel()
        if self._finding is not None:
            self._finding.cancel()

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

        A connection that ends is replaced, and so is a node that has lost its leader; the watch
        goes on where it was. With `progress`, a batch without events says now and then up to which
        revision there was nothing. Raises Refused("compacted") when the history it needs is gone.
        """
        range_end = c.prefix_end(key) if prefix else range_end
        while True:
            client = await self._any_client()
            changes: list[WatchEvent] = []
            try:
                body = [key, range_end, revision]
                async for at, events, more in client.stream("kv.watch", body):
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

    async def leader(self, *, timeout_s: float = 5.0) -> str:
        """Who leads; raises NotReached."""
        deadline = self._now() + timeout_s
        while True:
            await self._find_leader()
            if self._leader is not None:
                return self._leader
            if self._now() > deadline:
                raise NotReached("no leader was found in time")
            await asyncio.sleep(PAUSE_S)

    # -- how requests get there

    async def _execute(self, op: list[Any], timeout_s: float) -> list[Any]:
        """A write, exactly once."""
        self._sequence += 1
        sequence = self._sequence
        self._open[sequence] = None
        sent_before = False

        def command() -> bytes:
            done = next(iter(self._open))
            return c.pack_command(
                self._session, sequence, done, retry=sent_before, base=self._base, op=op
            )

        try:
            deadline = self._now() + timeout_s
            while True:
                client = await self._leader_client(deadline, sent_before)
                try:
                    limit_s = min(ATTEMPT_S, deadline - self._now())
                    answer: list[Any] = await self._call(client, "kv.propose", command(), limit_s)
                except Indefinite:
                    sent_before = True
                    await self._move_on(None)
                except (Unavailable, Overloaded) as error:
                    await self._move_on(error)
                except Failed as error:
                    if sent_before and error.reason != "not-leader":
                        await self._move_on(error)  # an earlier attempt may still come about
                    else:
                        await self._not_leader(error)
                except Definite as error:
                    raise Refused(error.code, error.message) from None
                else:
                    if answer[0] == 0:
                        return answer
                    if answer[1] == "session-expired":
                        raise OutcomeUnknown(answer[2])
                    raise Refused(answer[1], answer[2])
        finally:
            del self._open[sequence]

    async def _ask_leader(
        self, method: str, body: Any, timeout_s: float, attempt_s: float = ATTEMPT_S
    ) -> Any:
        """A request that may be repeated."""
        deadline = self._now() + timeout_s
        while True:
            client = await self._leader_client(deadline, False)
            try:
                limit_s = min(attempt_s, deadline - self._now())
                return await self._call(client, method, body, limit_s)
            except (Indefinite, Unavailable, Overloaded) as error:
                await self._move_on(error)
            except Failed as error:
                await self._not_leader(error)
            except Definite as error:
                raise Refused(error.code, error.message) from None

    async def _ask_one(self, name: str, method: str, body: Any, timeout_s: float) -> Any:
        """A read of one node; raises NotReached for whatever keeps it from answering."""
        if name not in self._clients:
            raise NotReached(f"there is no node {name!r}")
        try:
            return await self._clients[name].call(method, body, timeout_s=timeout_s)
        except Failed as error:
            if error.reason == "not-leader":
                raise NotReached(str(error)) from None
            raise Refused(error.reason, error.message, error.details) from None
        except (BadRequest, Forbidden) as error:
            raise Refused(error.code, error.message) from None
        except RpcError as error:
            raise NotReached(str(error)) from None

    async def _call(self, client: RpcClient, method: str, body: Any, timeout_s: float) -> Any:
        self._waiting += 1
        if self._watchdog is None:
            self._answered_at = self._now()
            self._watch_leader()
        try:
            answer = await client.call(method, body, timeout_s=timeout_s)
            self._answered_at = self._now()
            return answer
        finally:
            self._waiting -= 1

    def _watch_leader(self) -> None:
        """While requests wait and nothing is answered, ask whether somebody else leads by now."""
        self._watchdog = None
        if not self._waiting:
            return
        if self._now() - self._answered_at > SUSPECT_S and self._finding is None:
            self._finding = asyncio.ensure_future(self._find_leader())
            self._finding.add_done_callback(self._found)
        loop = asyncio.get_running_loop()
        self._watchdog = loop.call_later(SUSPECT_S / 2, self._watch_leader)

    def _found(self, task: asyncio.Task[None]) -> None:
        self._finding = None

    async def _find_leader(self) -> None:
        """Ask all nodes; follow whoever knows the leader of the highest term."""

        async def hello(client: RpcClient) -> dict[str, Any] | None:
            try:
                answer = await client.call("kv.hello", None, timeout_s=HELLO_S)
            except RpcError:
                return None
            return answer if isinstance(answer, dict) else None

        asked = [asyncio.ensure_future(hello(client)) for client in self._clients.values()]
        try:
            for next_answer in asyncio.as_completed(asked):
                answer = await next_answer
                if answer is not None and self._learn(answer):
                    return
        finally:
            for task in asked:
                task.cancel()

    def _learn(self, answer: dict[str, Any]) -> bool:
        """Take in what a node says; True if it names a leader of a term as new as we know."""
        for name, (host, port) in (answer.get("members") or {}).items():
            if name not in self._clients:
                self._clients[name] = self._node.client((host, port), SERVICE, name)
        leader, term = answer.get("leader"), answer.get("term", 0)
        self._base = self._base or answer.get("applied", 0)
        if leader is None or term < self._term or leader not in self._clients:
            return False
        previous = self._leader
        newer = term > self._term
        self._leader, self._term = leader, term
        if newer and previous not in (None, leader):
            # What still waits for the old leader is sent to the new one: the request ids allow it.
            old = self._clients[str(previous)]
            self._runtime.spawn(old.drop_connection(), "leave the old leader")
        return True

    async def _leader_client(self, deadline: float, sent_before: bool) -> RpcClient:
        while True:
            if self._leader is not None and self._now() < deadline:
                return self._clients[self._leader]
            if self._now() >= deadline:
                if sent_before:
                    raise OutcomeUnknown("no answer in time; the request may have been applied")
                raise NotReached("no leader was reached in time")
            if self._finding is None:
                self._finding = asyncio.ensure_future(self._find_leader())
                self._finding.add_done_callback(self._found)
            await asyncio.wait([self._finding], timeout=max(0.0, deadline - self._now()))
            if self._leader is None:
                await asyncio.sleep(PAUSE_S)

    async def _any_client(self) -> RpcClient:
        """The leader's if it is known, else the nodes in turn: a watch may stand anywhere."""
        if self._leader is None:
            with contextlib.suppress(NotReached):
                await self.leader(timeout_s=1.0)
        if self._leader is not None:
            return self._clients[self._leader]
        self._turn += 1
        names = sorted(self._clients)
        return self._clients[names[self._turn % len(names)]]

    async def _move_on(self, error: RpcError | None) -> None:
        """An attempt failed: look again who leads, after a moment."""
        if not isinstance(error, Overloaded):
            self._leader = None
        await asyncio.sleep(PAUSE_S * (0.5 + self._runtime.rng.random()))

    async def _not_leader(self, error: Failed) -> None:
        if error.reason != "not-leader":
            raise Refused(error.reason, error.message, error.details) from None
        told = error.details if isinstance(error.details, dict) else {}
        self._leader = None
        if not self._learn(told):
            await asyncio.sleep(PAUSE_S)


def _pair(fields: Any) -> KeyValue | None:
    return KeyValue._make(fields) if fields is not None else None


def _event(pair: Any, previous: Any) -> WatchEvent:
    return WatchEvent(KeyValue._make(pair), _pair(previous))


class SyncRaftClient:
    """The same calls without await, from any thread: they run on a loop of their own."""

    def __init__(self, config: Path | str, *, identity: str = "cli") -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._context = RaftClient.connect(config, identity=identity)
        try:
            self._client = self._run(self._context.__aenter__())
        except BaseException:
            self._stop_loop()
            raise

    def __enter__(self) -> SyncRaftClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def put(self, key: bytes, value: bytes, **options: Any) -> PutResult:
        """See RaftClient.put."""
        return self._run(self._client.put(key, value, **options))

    def get(self, key: bytes, **options: Any) -> KeyValue | None:
        """See RaftClient.get."""
        return self._run(self._client.get(key, **options))

    def range(self, key: bytes, range_end: bytes = b"", **options: Any) -> RangeResult:
        """See RaftClient.range."""
        return self._run(self._client.range(key, range_end, **options))

    def delete(self, key: bytes, range_end: bytes = b"", **options: Any) -> DeleteResult:
        """See RaftClient.delete."""
        return self._run(self._client.delete(key, range_end, **options))

    def txn(self, compares: Any, then: Any, otherwise: Any = (), **options: Any) -> TxnResult:
        """See RaftClient.txn."""
        return self._run(self._client.txn(compares, then, otherwise, **options))

    def compare_and_swap(
        self, key: bytes, expected: bytes | None, value: bytes, **options: Any
    ) -> bool:
        """See RaftClient.compare_and_swap."""
        return self._run(self._client.compare_and_swap(key, expected, value, **options))

    def compact(self, revision: int, **options: Any) -> None:
        """See RaftClient.compact."""
        self._run(self._client.compact(revision, **options))

    def lease_grant(self, ttl_s: int, **options: Any) -> int:
        """See RaftClient.lease_grant."""
        return self._run(self._client.lease_grant(ttl_s, **options))

    def lease_keep_alive(self, lease_id: int, **options: Any) -> int:
        """See RaftClient.lease_keep_alive."""
        return self._run(self._client.lease_keep_alive(lease_id, **options))

    def lease_revoke(self, lease_id: int, **options: Any) -> int:
        """See RaftClient.lease_revoke."""
        return self._run(self._client.lease_revoke(lease_id, **options))

    def watch(self, key: bytes, range_end: bytes = b"", **options: Any) -> Iterator[WatchBatch]:
        """See RaftClient.watch. Ends when the generator is closed."""
        batches = self._client.watch(key, range_end, **options)
        try:
            while True:
                yield self._run(anext(batches))
        finally:
            self._run(batches.aclose())

    def close(self) -> None:
        """End the session."""
        self._run(self._context.__aexit__(None, None, None))
        self._stop_loop()

    def _run(self, call: Awaitable[T]) -> T:
        async def run() -> T:
            return await call

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
