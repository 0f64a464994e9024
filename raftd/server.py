"""The daemon's service: what clients, siblings and operators may ask of one node of the store.

    raft             notify   a sibling's message
    kv.propose       inline   a packed command (commands.py) -> its answer
    kv.range         inline   [key, range_end, revision, limit, keys_only, count_only, serializable]
                              -> [revision, pairs, more, count]
    kv.hello         inline   who leads, where, and which index is applied here
    kv.watch         stream   [key, range_end, revision] -> [revision, [[pair, previous], …]]
    kv.lease_keep    inline   lease id -> TTL; only the leader knows how much is left
    kv.lease_ttl     inline   lease id -> [TTL, remaining, keys]
    raft.members     unary    {"add": {name: [host, port]}, "remove": [names]} -> once committed
    raft.transfer    unary    name -> when it leads

Every node accepts every read; writes want the leader, and are told who it is: Failed("not-leader").
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from netstack.rpc.admin import offer_admin
from netstack.rpc.connection import RpcConnection
from netstack.rpc.errors import (
    BadRequest,
    Failed,
    Interrupted,
    Overloaded,
    RpcError,
    Unavailable,
    brief,
)
from netstack.rpc.node import RpcNode
from netstack.rpc.service import Call
from netstack.runtime.config import ClusterConfig
from netstack.runtime.endpoint import Address
from netstack.runtime.runtime import Runtime
from netstack.transport.config import TransportConfig
from raftd import commands as c
from raftd import errors as raft_errors
from raftd.config import RaftSettings
from raftd.replica import METHOD, DiskFull, LeadershipLost, Replica
from raftd.store import Compacted, FutureRevision
from raftd.watch import PROGRESS_S, Event, WatchCompacted
from security.identity import Identity

SERVICE = "raft"

# A sibling whose host was away is asked so often whether it is back: about two election time-outs.
PROBE_MAX_S = 0.5

# A heartbeat waits behind no more than this of what is under way to the same sibling: on a slow
# link a large value must not cost an election.
QUEUE_S_MAX = 0.03

# Expired leases are looked for this often while this node leads.
LEASE_TICK_S = 0.1

# A membership change waits this long for a newcomer to catch up.
MEMBERS_TIMEOUT_S = 30.0

# A transfer is over within an election timeout, or has failed.
TRANSFER_S = 1.0


class RaftService:
    """One node of the replicated store."""

    def __init__(self) -> None:
        self.replica: Replica
        self.node: RpcNode
        self._runtime: Runtime
        self._lease_sequence = 0
        self._linked: set[str] = set()  # members, by the log, when it was last looked at

    def __repr__(self) -> str:
        return f"<RaftService {self.replica!r}>"

    async def start(self, runtime: Runtime, identity: Identity, config: ClusterConfig) -> None:
        """Recover from the disk, bind, and join the siblings."""
        self._runtime = runtime
        settings = RaftSettings.of(config)
        me = config.node(runtime.node)
        transport = TransportConfig(
            suite=config.suite, probe_max_s=PROBE_MAX_S, queue_s_max=QUEUE_S_MAX
        )
        self.node = RpcNode(runtime, identity, service=SERVICE, config=transport)
        self.replica = Replica(runtime, settings, self._send, self._is_dead, self._is_sending)
        self.replica.on_membership = self._members_changed
        self._addresses = {n.name: n.address for n in config.of_service(SERVICE)}
        self._offer()
        await self.node.start(me.address)
        for name, address in self._addresses.items():
            if name != runtime.node:
                self.node.link(name, address, SERVICE)
        self._members_changed()
        self._lease_session = runtime.entropy(c.SESSION_BYTES)
        runtime.spawn(self._expire_leases(), "leases")

    def _offer(self) -> None:
        service = self.node.service
        service.add(METHOD, self._sibling, notify=True, allow={SERVICE})
        service.add("kv.propose", self._propose)
        service.add("kv.range", self._range)
        service.add("kv.hello", self._hello)
        service.add("kv.watch", self._watch)
        service.add("kv.lease_keep", self._lease_keep)
        service.add("kv.lease_ttl", self._lease_ttl)
        service.add("raft.members", self._members, allow={"client", "supervisor"})
        service.add("raft.transfer", self._transfer, allow={"client", "supervisor"})
        offer_admin(self.node, self)

    def _send(self, to: str, message: bytes, bulk: bool) -> None:
        link = self.node._links.get(to)
        if link is not None:
            link.notify(message, bulk=bulk)

    def _is_dead(self, name: str) -> bool:
        address = self._addresses.get(name)
        return address is not None and self.node.host.refuses(address)

    def _is_sending(self, name: str) -> bool:
        link = self.node._links.get(name)
        return link is not None and link.bulk_under_way

    def _sibling(self, body: Any, connection: RpcConnection) -> None:
        self.replica.receive(body, connection.peer_name)

    def _members_changed(self) -> None:
        """Have a link to everybody whom the log names, and to nobody who has left.

        A newcomer reads a past in which its leader may have left, and come back since: from whom it
        has the log it does not part.
        """
        core = self.replica.core
        members = core.membership.addresses
        for name, address in members.items():
            if name != self._runtime.node:
                self._addresses[name] = address
                self.node.link(name, address, SERVICE)
        left = self._linked - set(members) - {core.leader_name}
        for name in left:
            del self._addresses[name]
            self._runtime.spawn(self.node.unlink(name), f"unlink {name}")
        self._linked = (self._linked | set(members)) - left - {self._runtime.node}

    # -- keys

    def _propose(self, command: Any, call: Call) -> None:
        try:
            request, again = c.check_command(command)
        except c.BadCommand as error:
            raise BadRequest(str(error)) from None

        def answered(answer: list[Any] | None, error: Exception | None) -> None:
            if error is None:
                call.reply(answer)
            else:
                call.fail(self._as_rpc_error(error))

        self.replica.propose(command, answered, request, again=again)

    def _as_rpc_error(self, error: Exception) -> RpcError:
        if isinstance(error, raft_errors.NotLeader):
            return Failed("not-leader", str(error), self._whereabouts())
        if isinstance(error, DiskFull):
            return Failed("disk-full", str(error))
        if isinstance(error, raft_errors.Overloaded):
            return Overloaded(str(error))
        if isinstance(error, LeadershipLost):
            return Interrupted(str(error))
        return Interrupted(f"{type(error).__name__}: {error}")

    def _whereabouts(self) -> dict[str, Any]:
        core = self.replica.core
        leader = core.leader_name
        address = self._addresses.get(leader or "")
        return {
            "leader": leader,
            "address": list(address) if address else None,
            "term": core.term,
            "applied": self.replica.store.applied_index,
        }

    def _hello(self, body: Any, call: Call) -> None:
        members = self.replica.core.membership.addresses
        call.reply({**self._whereabouts(), "members": members})

    def _range(self, body: Any, call: Call) -> None:
        if not isinstance(body, list) or len(body) != 7:
            raise BadRequest("kv.range: expected seven fields")
        *fields, serializable = body
        if type(serializable) is not bool:
            raise BadRequest(f"serializable: expected bool, got {brief(serializable)}")
        try:
            c.check_op([c.RANGE, *fields])
        except c.BadCommand as error:
            raise BadRequest(str(error)) from None

        def ready(error: Exception | None) -> None:
            if error is not None:
                call.fail(self._as_rpc_error(error))
                return
            self._answer_range(fields, call)

        if serializable:
            ready(None)
        else:
            self.replica.read(ready)

    def _answer_range(self, fields: list[Any], call: Call) -> None:
        key, range_end, revision, limit, keys_only, count_only = fields
        store = self.replica.store
        try:
            pairs, more, count = store.range(
                key,
                range_end,
                revision,
                limit,
                keys_only=keys_only,
                count_only=count_only,
                bytes_max=c.ANSWER_BYTES_MAX,
            )
        except Compacted as error:
            call.fail(Failed("compacted", str(error), error.compacted))
        except FutureRevision as error:
            call.fail(Failed("future", str(error)))
        else:
            call.reply([store.revision, pairs, more, count])

    async def _watch(self, body: Any, call: Call) -> Any:
        try:
            key, range_end, revision = body
            c.check_op([c.RANGE, key, range_end, revision, 0, False, False])
        except (TypeError, ValueError) as error:
            raise BadRequest(f"kv.watch: {error}") from None
        wake = asyncio.Event()
        watches = self.replica.store.watches
        watcher = watches.add(key, range_end, revision, wake.set)
        try:
            # Where the watch stands: behind here nothing is missed.
            yield [revision - 1 if revision else self.replica.store.revision, [], False]
            while True:
                wake.clear()
                for batch in watcher.take():
                    for part, more in _parts(batch.events):
                        yield [batch.revision, part, more]
                try:
                    async with asyncio.timeout(PROGRESS_S):
                        await wake.wait()
                except TimeoutError:
                    if self.replica.core.leader_name is None:
                        raise Unavailable("no leader is known here: watch elsewhere") from None
                    yield [watcher.position, [], False]
        except WatchCompacted as error:
            raise Failed("compacted", str(error), error.revision) from None
        finally:
            watches.remove(watcher)

    # -- leases

    def _lease_keep(self, lease_id: Any, call: Call) -> None:
        replica = self.replica
        _check_lease(lease_id)
        if not replica.is_leader:
            raise self._as_rpc_error(raft_errors.NotLeader(replica.core.leader_name))

        def ready(error: Exception | None) -> None:
            ttl_s = replica.store.leases.get(lease_id)
            if error is not None:
                call.fail(self._as_rpc_error(error))
            elif ttl_s is None:
                call.fail(Failed("no-lease", f"lease {lease_id} does not exist"))
            elif replica.leases.keep(lease_id, ttl_s, self._runtime.clock.now()):
                call.reply(ttl_s)
            else:
                call.fail(Failed("no-lease", f"lease {lease_id} has run out"))

        # A deposed leader must not promise time that its successor does not know of.
        replica.read(ready)

    def _lease_ttl(self, lease_id: Any, call: Call) -> None:
        replica = self.replica
        _check_lease(lease_id)
        if not replica.is_leader:
            raise self._as_rpc_error(raft_errors.NotLeader(replica.core.leader_name))
        ttl_s = replica.store.leases.get(lease_id)
        if ttl_s is None:
            raise Failed("no-lease", f"lease {lease_id} does not exist")
        remaining = replica.leases.remaining(lease_id, self._runtime.clock.now())
        call.reply([ttl_s, remaining, replica.store.keys_of_lease(lease_id)])

    async def _expire_leases(self) -> None:
        while True:
            await asyncio.sleep(LEASE_TICK_S)
            if not self.replica.is_leader:
                continue
            for lease_id in self.replica.leases.take_expired(self._runtime.clock.now()):
                self._revoke(lease_id)

    def _revoke(self, lease_id: int) -> None:
        self._lease_sequence += 1
        command = c.pack_command(
            self._lease_session,
            self._lease_sequence,
            self._lease_sequence,
            retry=False,
            base=0,
            op=[c.LEASE_REVOKE, lease_id],
        )
        self._runtime.events.emit("lease.expired", lease=lease_id)

        def answered(_: list[Any] | None, error: Exception | None) -> None:
            if error is not None:
                self.replica.leases.not_revoked(lease_id, self._runtime.clock.now())

        self.replica.propose(command, answered)

    # -- operators

    async def _members(self, body: Any, call: Call) -> dict[str, Any]:
        """Add as learners, promote when caught up, remove: each step waits for the one before."""
        core = self.replica.core
        newcomers, gone = _changes(body)
        try:
            if newcomers:
                missing = {n: a for n, a in newcomers.items() if n not in core.membership.voters}
                if missing:
                    core.change_membership(core.membership.adding(missing), self._now())
                    self.replica.touch()
                    self._members_changed()
                await self._until(lambda: all(n in core.membership.voters for n in newcomers))
            leaving = [name for name in gone if name in core.membership.everyone]
            if leaving:
                core.change_membership(core.membership.removing(leaving), self._now())
                self.replica.touch()
            await self._until(lambda: True)
        except raft_errors.RaftError as error:
            raise self._membership_error(error) from None
        return {"voters": list(core.membership.voters)}

    def _membership_error(self, error: raft_errors.RaftError) -> RpcError:
        if isinstance(error, raft_errors.InvalidChange):
            return Failed("invalid-change", str(error))
        return self._as_rpc_error(error)

    async def _until(self, done: Callable[[], bool]) -> None:
        """Wait until `done()` and no membership change is under way."""
        core = self.replica.core

        def settled() -> bool:
            quiet = core.membership_index <= core.commit and not core.membership.joint
            return core.leading is None or (quiet and done())

        if not await self.replica.until(settled, MEMBERS_TIMEOUT_S):
            raise Interrupted("the membership change is still under way")
        if core.leading is None and core.membership.is_voter(core.name):
            raise Failed("not-leader", "leadership was lost meanwhile", self._whereabouts())

    async def _transfer(self, body: Any, call: Call) -> dict[str, Any]:
        core = self.replica.core
        try:
            core.transfer_leadership(str(body), self._now())
        except raft_errors.RaftError as error:
            raise self._membership_error(error) from None
        self.replica.touch()
        if not await self.replica.until(lambda: core.leader_name == body, TRANSFER_S):
            raise Unavailable(f"{body} did not take over in time")
        return self._whereabouts()

    def _now(self) -> float:
        return self._runtime.clock.now()

    # -- Administered

    def status(self) -> dict[str, Any]:
        """What `ring status` shows."""
        core, store = self.replica.core, self.replica.store
        return {
            "role": core.role,
            "term": core.term,
            "leader": core.leader_name,
            "commit": core.commit,
            "last": core.log.last_index,
            "snapshot": core.snapshot[0].index if core.snapshot else 0,
            "voters": list(core.membership.voters),
            "learners": list(core.membership.learners),
            "joint": core.membership.joint,
            "applied": store.applied_index,
            "revision": store.revision,
            "keys": len(store),
            "bytes": store.space.present,
            "lag": core.leading.lag if core.leading is not None else {},
            "disk_full": self.replica.disk_full,
            **self._trouble(),
        }

    def _trouble(self) -> dict[str, str]:
        core, me = self.replica.core, self._runtime.node
        if core.leader_name is not None and core.acknowledged > core.log.last_index:
            why = (
                f"it had acknowledged entries up to {core.acknowledged:,}, and after a restart"
                f" there are {core.log.last_index:,}: its disk forgets; try: ring repair {me}"
            )
            return {"trouble": "lost entries", "why": why}
        nearly_full = "nearly full: delete keys" if self.replica.store.space.is_short else ""
        return {"trouble": core.trouble or nearly_full}

    def metrics(self) -> dict[str, float]:
        """Counters and gauges."""
        core, store = self.replica.core, self.replica.store
        counted = {f"ring_raft_{name}_total": float(n) for name, n in self.replica.counters.items()}
        return {
            **counted,
            **self.replica.wal_metrics(),
            "ring_raft_term": float(core.term),
            "ring_raft_is_leader": float(self.replica.is_leader),
            "ring_raft_commit_index": float(core.commit),
            "ring_raft_applied_index": float(store.applied_index),
            "ring_raft_log_entries": float(len(core.log)),
            "ring_store_revision": float(store.revision),
            "ring_store_keys": float(len(store)),
            "ring_store_bytes": float(store.space.present),
            "ring_store_past_bytes": float(store.space.past),
            "ring_store_answer_bytes": float(store.sessions.bytes),
            "ring_store_watchers": float(len(store.watches)),
            "ring_store_sessions": float(len(store.sessions)),
        }

    def trust(self, identity: Identity) -> None:
        """The certificates have changed: a new one of this node, or one that was revoked."""
        self.node.trust(identity)

    async def drain(self) -> None:
        """Hand leadership to whoever is furthest, so that nobody waits for a time-out."""
        core = self.replica.core
        if len(core.membership.voters) > 1:
            self.replica.hand_over()
            await self.replica.until(lambda: core.leading is None, TRANSFER_S)

    async def stop(self) -> None:
        """Release socket and files."""
        await self.node.close()
        await self.replica.stop()


def _check_lease(lease_id: Any) -> None:
    if type(lease_id) is not int:
        raise BadRequest(f"a lease is a number, not {brief(lease_id)}")


def _changes(body: Any) -> tuple[dict[str, Address], list[str]]:
    """(who is to be added, who removed) of a raft.members; raises BadRequest."""
    if not isinstance(body, dict) or not set(body) <= {"add", "remove"}:
        raise BadRequest("raft.members: expected a map with add and remove")
    add, remove = body.get("add", {}), body.get("remove", [])
    if not isinstance(add, dict):
        raise BadRequest(f"add: expected a map of names to addresses, got {brief(add)}")
    for name, address in add.items():
        fits = isinstance(address, list) and list(map(type, address)) == [str, int]
        if type(name) is not str or not fits:
            raise BadRequest(f"add: expected name: [host, port], got {brief({name: address})}")
    if not isinstance(remove, list) or not all(type(name) is str for name in remove):
        raise BadRequest(f"remove: expected a list of names, got {brief(remove)}")
    return {name: (host, port) for name, (host, port) in add.items()}, remove


def _parts(events: list[Event]) -> Iterator[tuple[list[Event], bool]]:
    """The events of a revision in messages of a bounded size, and whether more follow."""
    part: list[Event] = []
    size = 0
    for event in events:
        for pair in event:
            size += len(pair.key) + len(pair.value) if pair is not None else 0
        if size > c.ANSWER_BYTES_MAX and part:
            yield part, True
            part, size = [], 0
        part.append(event)
    yield part, False
