"""The state machine: multi-version keys, transactions, leases (etcd's model).

    revision        counts the changes of the whole store; all that one command changes shares one
    create, mod     the revision at which a key's current life began, and of its last change
    version         changes in the current life; 1 after the first put, 0 once deleted

What the server calls:

    apply(index, command) -> answer      a committed command; deterministic
    range(...)                           a read, now or at an earlier revision
    watch(...)                           see watch.py
    freeze() -> Frozen                   a picture of now, which another thread may encode
    restore(data)                        become the state of a snapshot

Answers are lists that msgpack takes:

    [OK, revision, …]                    what follows depends on the operation (see the methods)
    [FAILED, code, text]                 nothing was changed; definite

Values are immutable bytes and versions immutable tuples. A key's history is a list that only
grows, and is replaced (never changed) by compaction: so a frozen picture is a list of (history,
length).
"""

from __future__ import annotations

import hashlib
import itertools
import operator
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

import msgpack
from sortedcontainers import SortedList

from raftd import commands as c
from raftd.model import KeyValue
from raftd.sessions import FORGOTTEN, UNKNOWN, Sessions
from raftd.space import LEASE_BYTES, VERSION_BYTES, Space, weight
from raftd.watch import Event, WatchHub

OK, FAILED = 0, 1

# History kept for watchers and reads of the past. Older revisions are compacted by themselves, at
# the same command on every node; etcd leaves that to the operator, who forgets it.
REVISIONS_KEPT: Final = 100_000

SNAPSHOT_VERSION: Final = 2

_COMPARE: Final = {"=": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt}


class Compacted(Exception):
    """The revision is gone; `compacted` is the newest that is."""

    def __init__(self, revision: int, compacted: int) -> None:
        super().__init__(f"revision {revision} was compacted; the oldest is {compacted + 1}")
        self.compacted = compacted


class FutureRevision(Exception):
    """The revision has not happened yet."""


class Store:
    """All keys, and everything else that is replicated."""

    def __init__(self, revisions_kept: int = REVISIONS_KEPT, space: Space | None = None) -> None:
        self.revision = 0
        self.compacted = 0
        self.applied_index = 0
        self.leases: dict[int, int] = {}  # id -> TTL in seconds
        self.watches = WatchHub(self)
        self.sessions = Sessions()
        self.space = space or Space()
        self._revisions_kept = revisions_kept
        self._histories: dict[bytes, list[KeyValue]] = {}
        self._keys: SortedList = SortedList()  # all that have a history
        self._live: SortedList = SortedList()  # those that exist now
        self._lease_keys: dict[int, dict[bytes, None]] = {}
        self._changes: list[Event] = []  # of the command being applied
        self.on_lease: Callable[[int, int], None] | None = None  # (id, TTL; 0: revoked)

    def __repr__(self) -> str:
        return (
            f"<Store keys={len(self._keys)} revision={self.revision} compacted={self.compacted} "
            f"applied={self.applied_index}>"
        )

    def __len__(self) -> int:
        """Keys that are held, deleted ones with a history included."""
        return len(self._keys)

    # -- writing

    def apply(self, index: int, command: bytes) -> list[Any]:
        """Apply a committed command once; a repeated one gets the answer it got."""
        session, sequence, done, retry, base, op = c.unpack_command(command)
        known = self.sessions.lookup(session, sequence, done, retry=retry, base=base, index=index)
        self.applied_index = index
        if known is FORGOTTEN:
            return [FAILED, "session-expired", "too old to tell whether this was applied before"]
        if known is not UNKNOWN:
            answer: list[Any] = known
            return answer
        answer = self._run(op)
        self.sessions.record(session, sequence, answer)
        return answer

    def advance(self, index: int) -> None:
        """An entry without a command was applied."""
        self.applied_index = index

    def _run(self, op: list[Any]) -> list[Any]:
        if self.space.is_short and not self.space.fits(self._growth(op)):
            return self._no_space()
        answer: list[Any] = _OPERATIONS[op[0]](self, *op[1:])
        if self._changes:
            changes, self._changes = self._changes, []
            self.revision += 1
            self.watches.publish(self.revision, changes)
            # A little at a time: all at once would hold up everything else for a while.
            if self.revision - self.compacted > self._revisions_kept * 1.01:
                self._compact_to(self.revision - self._revisions_kept)
            if self.space.excess:
                self._compact_to(self._revision_that_frees(self.space.excess))
        return answer

    def _growth(self, op: list[Any]) -> int:
        """Bytes that an operation adds to the present; of a transaction, what it puts does."""
        kind = op[0]
        if kind == c.PUT:
            old = self.get(op[1])
            return VERSION_BYTES + len(op[1]) + len(op[2]) - (weight(old) if old else 0)
        if kind == c.TXN:
            succeeded = all(self._holds(*compare) for compare in op[1])
            return sum(map(self._growth, op[2] if succeeded else op[3]))
        return LEASE_BYTES if kind == c.LEASE_GRANT else 0

    def _no_space(self) -> list[Any]:
        kib = self.space.present_max >> 10
        limit = f"{kib >> 10} MiB" if kib >= 1024 else f"{kib} KiB"
        why = f"the store is full: its pairs and leases may take {limit}; delete some of them first"
        return [FAILED, "no-space", why]

    def _put(self, key: bytes, value: bytes, lease: int, prev: bool) -> list[Any]:
        """-> [OK, revision, previous pair or None]"""
        if lease and lease not in self.leases:
            return [FAILED, "no-lease", f"lease {lease} does not exist"]
        revision = self.revision + 1
        history = self._histories.get(key)
        old = None
        if history is None:
            history = self._histories[key] = []
            self._keys.add(key)
        else:
            last = history[-1]
            old = last if last.version else None
        if old is None:
            new = KeyValue(key, value, revision, revision, 1, lease)
            self._live.add(key)
        else:
            new = KeyValue(key, value, old.create, revision, old.version + 1, lease)
            if old.lease and old.lease != lease:
                self._lease_keys[old.lease].pop(key, None)
        if lease:
            self._lease_keys.setdefault(lease, {})[key] = None
        history.append(new)
        self.space.replaced(old, new)
        self._changes.append(Event(new, old))
        return [OK, revision, old if prev else None]

    def _delete(self, key: bytes, range_end: bytes, prev: bool) -> list[Any]:
        """-> [OK, revision, how many, previous pairs]"""
        gone = list(self._pairs_in(key, range_end, 0))
        if prev and _bytes_of(gone) > c.ANSWER_BYTES_MAX:
            return _TOO_LARGE
        for old in gone:
            self._delete_one(old)
        revision = self.revision + 1 if gone or self._changes else self.revision
        return [OK, revision, len(gone), gone if prev else []]

    def _delete_one(self, old: KeyValue) -> None:
        tombstone = KeyValue(old.key, b"", 0, self.revision + 1, 0, 0)
        self._histories[old.key].append(tombstone)
        self._live.remove(old.key)
        self.space.replaced(old, tombstone)
        if old.lease:
            self._lease_keys.get(old.lease, {}).pop(old.key, None)
        self._changes.append(Event(tombstone, old))

    def _txn(self, compares: list[Any], then: list[Any], otherwise: list[Any]) -> list[Any]:
        """-> [OK, revision, succeeded, answers]; all changes share a revision, or none is made."""
        missing = self._missing_lease(then) or self._missing_lease(otherwise)
        if missing:
            return [FAILED, "no-lease", f"lease {missing} does not exist"]
        try:
            plan = self._plan(compares, then, otherwise)
        except (Compacted, FutureRevision) as error:
            return _not_readable(error)
        if self._answer_bytes(plan) > c.ANSWER_BYTES_MAX:
            return _TOO_LARGE
        return self._carry_out(plan)

    def _plan(self, compares: list[Any], then: list[Any], otherwise: list[Any]) -> _Plan:
        """Which branches are taken, all by the state before; raises what keeps it from a read."""
        succeeded = all(self._holds(*compare) for compare in compares)
        steps: list[Any] = []
        for op in then if succeeded else otherwise:
            if op[0] == c.RANGE:
                self._check_revision(op[3])
            steps.append(self._plan(*op[1:]) if op[0] == c.TXN else op)
        return _Plan(succeeded, steps)

    def _carry_out(self, plan: _Plan) -> list[Any]:
        answers = [
            self._carry_out(step)
            if isinstance(step, _Plan)
            else _OPERATIONS[step[0]](self, *step[1:])
            for step in plan.steps
        ]
        revision = self.revision + 1 if self._changes else self.revision
        return [OK, revision, plan.succeeded, answers]

    def _answer_bytes(self, plan: _Plan) -> int:
        """Of the pairs in its answer, by the state before."""
        size = 0
        for step in plan.steps:
            if isinstance(step, _Plan):
                size += self._answer_bytes(step)
            elif step[0] == c.PUT and step[4]:
                size += self._bytes_read(step[1])
            elif step[0] == c.DELETE and step[3]:
                size += self._bytes_read(step[1], step[2])
            elif step[0] == c.RANGE and not step[6]:
                size += self._bytes_read(*step[1:6])
            if size > c.ANSWER_BYTES_MAX:
                break  # it is too large, whatever follows
        return size

    def _bytes_read(
        self,
        key: bytes,
        range_end: bytes = b"",
        revision: int = 0,
        limit: int = 0,
        keys_only: bool = False,
    ) -> int:
        """Of the pairs that a range returns; not counted further than too many."""
        size = 0
        pairs = self._pairs_in(key, range_end, revision)
        for pair in itertools.islice(pairs, limit or None):
            size += len(pair.key) + (0 if keys_only else len(pair.value))
            if size > c.ANSWER_BYTES_MAX:
                break
        return size

    def _missing_lease(self, ops: list[Any]) -> int:
        for op in ops:
            if op[0] == c.PUT and op[3] and op[3] not in self.leases:
                return int(op[3])
            if op[0] == c.TXN and (
                missing := self._missing_lease(op[2]) or self._missing_lease(op[3])
            ):
                return missing
        return 0

    def _holds(self, target: str, op: str, key: bytes, operand: Any) -> bool:
        history = self._histories.get(key)
        current = history[-1] if history and history[-1].version else None
        if target == "value" and current is None:
            return False  # as in etcd: a key that is not there has no value to compare
        actual = getattr(current, target) if current is not None else 0
        return bool(_COMPARE[op](actual, operand))

    def _compact(self, revision: int) -> list[Any]:
        """-> [OK, revision]"""
        if revision <= self.compacted:
            return [FAILED, "compacted", f"revision {revision} was compacted already"]
        if revision > self.revision:
            return [FAILED, "future", f"revision {revision} has not happened yet"]
        self._compact_to(revision)
        return [OK, self.revision]

    def _compact_to(self, revision: int) -> None:
        """Forget what was overwritten or deleted at or before `revision`."""
        changed = {e.pair.key for _, events in self.watches.until(revision) for e in events}
        self.compacted = revision
        for key in sorted(changed):
            history = self._histories[key]
            keep = next((i for i, kv in enumerate(history) if kv.mod > revision), len(history))
            if keep and history[keep - 1].version:
                keep -= 1  # the version that is in force at `revision`
            self.space.past -= sum(map(weight, history[:keep]))
            if keep == len(history):
                del self._histories[key]
                self._keys.remove(key)
            elif keep:
                self._histories[key] = history[keep:]
        self.watches.compact(revision)

    def _revision_that_frees(self, nbytes: int) -> int:
        """The oldest one to which compaction gives that much room, or the newest there is."""
        freed = 0
        for revision, events in self.watches.since(self.compacted + 1):
            for pair, previous in events:
                freed += weight(previous) if previous is not None else 0
                freed += 0 if pair.version else weight(pair)
            if freed >= nbytes:
                return revision
        return self.revision

    def _lease_grant(self, lease_id: int, ttl_s: int) -> list[Any]:
        """-> [OK, revision, id, ttl]"""
        if lease_id in self.leases:
            return [FAILED, "lease-exists", f"lease {lease_id} exists already"]
        self.leases[lease_id] = ttl_s
        self.space.present += LEASE_BYTES
        if self.on_lease is not None:
            self.on_lease(lease_id, ttl_s)
        return [OK, self.revision, lease_id, ttl_s]

    def _lease_revoke(self, lease_id: int) -> list[Any]:
        """-> [OK, revision, how many keys went]"""
        if self.leases.pop(lease_id, None) is None:
            return [FAILED, "no-lease", f"lease {lease_id} does not exist"]
        self.space.present -= LEASE_BYTES
        if self.on_lease is not None:
            self.on_lease(lease_id, 0)
        keys = sorted(self._lease_keys.pop(lease_id, {}))
        for key in keys:
            self._delete_one(self._histories[key][-1])
        return [OK, self.revision + bool(keys), len(keys)]

    def _range_op(
        self,
        key: bytes,
        range_end: bytes,
        revision: int,
        limit: int,
        keys_only: bool,
        count_only: bool,
    ) -> list[Any]:
        """A read inside a transaction -> [OK, revision, pairs, more, count]"""
        try:
            pairs, more, count = self.range(
                key, range_end, revision, limit, keys_only=keys_only, count_only=count_only
            )
        except (Compacted, FutureRevision) as error:
            return _not_readable(error)
        return [OK, self.revision, pairs, more, count]

    # -- reading

    def get(self, key: bytes) -> KeyValue | None:
        """The current version of one key."""
        history = self._histories.get(key)
        return history[-1] if history and history[-1].version else None

    def range(
        self,
        key: bytes,
        range_end: bytes = b"",
        revision: int = 0,
        limit: int = 0,
        *,
        keys_only: bool = False,
        count_only: bool = False,
        bytes_max: int = 0,
    ) -> tuple[list[KeyValue], bool, int]:
        """(pairs, more, count) of [key, range_end) at `revision` (0: now), in the order of keys.

        `count` is of all that match; `more` says that `limit` or `bytes_max` (of keys and values; 0
        is no limit, and one pair is always returned) left some out. Takes as long as the pairs that
        are returned, and a count of the past as what has changed since. Raises Compacted or
        FutureRevision.
        """
        self._check_revision(revision)
        if revision == self.revision:
            revision = 0
        if not (range_end or revision or keys_only or count_only):
            pair = self.get(key)  # as nearly all reads are
            return ([pair], False, 1) if pair is not None else ([], False, 0)
        count = self._count(key, range_end, revision)
        if count_only:
            return [], False, count
        found: list[KeyValue] = []
        size = 0
        for kv in itertools.islice(self._pairs_in(key, range_end, revision), limit or None):
            kv = kv._replace(value=b"") if keys_only else kv
            size += len(kv.key) + len(kv.value)
            if bytes_max and size > bytes_max and found:
                break
            found.append(kv)
        return found, len(found) < count, count

    def _check_revision(self, revision: int) -> None:
        if revision > self.revision:
            raise FutureRevision(f"revision {revision} has not happened yet; it is {self.revision}")
        if revision and revision < self.compacted:
            raise Compacted(revision, self.compacted - 1)

    def _pairs_in(self, key: bytes, range_end: bytes, revision: int) -> Iterator[KeyValue]:
        """The pairs of a range, one after another as they are wanted."""
        histories = self._histories
        if not revision:
            for k in _within(self._live, key, range_end):
                yield histories[k][-1]
            return
        for k in _within(self._keys, key, range_end):
            pair = self._at(k, revision)
            if pair is not None:
                yield pair

    def _at(self, key: bytes, revision: int) -> KeyValue | None:
        """The pair at a revision of the past."""
        history = self._histories[key]
        position = bisect_right(history, revision, key=_mod_of)
        pair = history[position - 1] if position else None
        return pair if pair is not None and pair.version else None

    def _count(self, key: bytes, range_end: bytes, revision: int) -> int:
        """How many pairs a range has."""
        now = _how_many(self._live, key, range_end)
        if not revision:
            return now
        if _how_many(self._keys, key, range_end) <= self.revision - revision:
            return sum(1 for _ in self._pairs_in(key, range_end, revision))
        # The first change of a key since then tells whether it existed then.
        was: dict[bytes, bool] = {}
        for _, events in self.watches.since(revision + 1):
            for pair, previous in events:
                if c.in_range(pair.key, key, range_end):
                    was.setdefault(pair.key, previous is not None)
        return now + sum(was.values()) - sum(self.get(k) is not None for k in was)

    def keys_of_lease(self, lease_id: int) -> list[bytes]:
        """The keys that go when the lease does."""
        return sorted(self._lease_keys.get(lease_id, {}))

    def hash(self) -> str:
        """Of all current pairs and counters: equal on nodes that have applied the same."""
        digest = hashlib.sha256()
        for key in self._keys:
            digest.update(msgpack.packb(self._histories[key]))
        digest.update(msgpack.packb([self.revision, self.compacted, sorted(self.leases.items())]))
        return digest.hexdigest()[:16]

    # -- snapshots

    def freeze(self) -> Frozen:
        """A picture of now that later commands do not touch."""
        histories = [(h, len(h)) for h in (self._histories[key] for key in self._keys)]
        header = [
            SNAPSHOT_VERSION,
            self.revision,
            self.compacted,
            self.applied_index,
            sorted(self.leases.items()),
            len(histories),
        ]
        return Frozen(header, histories, msgpack.packb(self.sessions.dump()))

    def restore(self, data: bytes) -> None:
        """Become the state of a snapshot; watchers learn what they can no longer be told."""
        unpacker = msgpack.Unpacker(max_buffer_size=len(data) + 1, strict_map_key=False)
        unpacker.feed(data)
        version, *fields = unpacker.unpack()
        if version != SNAPSHOT_VERSION:
            raise ValueError(f"a snapshot of version {version} is not for this program")
        *counters, leases, count = fields
        sessions, *histories = unpacker
        if len(histories) != count:
            raise ValueError(f"a snapshot of {count} keys was cut short: it has {len(histories)}")
        self.revision, self.compacted, self.applied_index = counters
        self.leases = dict(leases)
        self.sessions.load(sessions)
        self._histories = {}
        self._lease_keys = {}
        self.space.present, self.space.past = LEASE_BYTES * len(self.leases), 0
        for history in histories:
            pairs = [KeyValue._make(fields) for fields in history]
            self._histories[pairs[0].key] = pairs
            for old, new in zip([None, *pairs], pairs, strict=False):
                self.space.replaced(old if old is not None and old.version else None, new)
            last = pairs[-1]
            if last.lease:
                self._lease_keys.setdefault(last.lease, {})[last.key] = None
        self._keys = SortedList(self._histories)
        self._live = SortedList(k for k, h in self._histories.items() if h[-1].version)
        self.watches.rebuild(self.all_versions())

    def all_versions(self) -> Iterator[Event]:
        """Every change that is still remembered, in no particular order."""
        for history in self._histories.values():
            previous = None
            for kv in history:
                yield Event(kv, previous)
                previous = kv if kv.version else None


class Frozen:
    """A picture of a store. `encode` only reads what does not change any more."""

    def __init__(
        self, header: list[Any], histories: list[tuple[list[KeyValue], int]], sessions: bytes
    ) -> None:
        self._header = header
        self._histories = histories
        self._sessions = sessions

    def parts(self) -> Iterator[bytes]:
        """The snapshot's bytes, a key at a time."""
        packer = msgpack.Packer()
        yield packer.pack(self._header)
        yield self._sessions
        for history, length in self._histories:
            yield packer.pack(history[:length])

    def encode(self) -> bytes:
        """The snapshot's bytes."""
        return b"".join(self.parts())


def _within(keys: SortedList, key: bytes, range_end: bytes) -> Iterator[bytes]:
    """Those of [key, range_end), one after another."""
    if not range_end:
        return iter((key,) if key in keys else ())
    if range_end == c.EVERYTHING:
        return iter(keys.irange(key))
    return iter(keys.irange(key, range_end, inclusive=(True, False)))


def _how_many(keys: SortedList, key: bytes, range_end: bytes) -> int:
    """The number of those."""
    if not range_end:
        return int(key in keys)
    end = len(keys) if range_end == c.EVERYTHING else keys.bisect_left(range_end)
    return max(0, int(end) - int(keys.bisect_left(key)))


def _mod_of(kv: KeyValue) -> int:
    return kv.mod


class _Plan(NamedTuple):
    """A transaction whose branches are decided: operations, and plans of those within it."""

    succeeded: bool
    steps: list[Any]


_TOO_LARGE: Final = [
    FAILED,
    "too-large",
    f"the answer would be over {c.ANSWER_BYTES_MAX} bytes; nothing was changed: ask for less",
]


def _bytes_of(pairs: Iterable[KeyValue]) -> int:
    return sum(len(pair.key) + len(pair.value) for pair in pairs)


def _not_readable(error: Compacted | FutureRevision) -> list[Any]:
    return [FAILED, "compacted" if isinstance(error, Compacted) else "future", str(error)]


_OPERATIONS: Final[dict[int, Any]] = {
    c.PUT: Store._put,
    c.DELETE: Store._delete,
    c.TXN: Store._txn,
    c.COMPACT: Store._compact,
    c.LEASE_GRANT: Store._lease_grant,
    c.LEASE_REVOKE: Store._lease_revoke,
    c.RANGE: Store._range_op,
}
