"""What the tests of log and store share: a log on a disk that can be cut off, and commands."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

from netstack.runtime.disk import Disk
from netstack.runtime.memory_disk import MemoryStorage
from raftd import commands as c
from raftd.log import COMMAND, Entry, HardState, Restored, SnapshotMeta
from raftd.membership import Membership
from raftd.outputs import Persist
from raftd.store import Store
from raftd.wal import Wal

# Bytes a segment: a few records fill one.
SEGMENT = 1024

MEMBERS = Membership.of({"n1": ("127.0.0.1", 7401), "n2": ("127.0.0.1", 7402)})

# More calls of the disk than one append makes.
CALLS_MAX = 40


def meta(index: int, term: int = 1) -> SnapshotMeta:
    return SnapshotMeta(index, term, MEMBERS)


def state_at(index: int) -> bytes:
    return b"state at %d" % index


def entry(index: int, term: int = 1, data: bytes | None = None) -> Entry:
    return Entry(index, term, COMMAND, b"%d in %d " % (index, term) * 4 if data is None else data)


def entries(first: int, last: int, term: int = 1) -> list[Entry]:
    return [entry(index, term) for index in range(first, last + 1)]


def persist(
    added: list[Entry] | None = None,
    *,
    cut: int | None = None,
    snapshot: tuple[SnapshotMeta, bytes] | None = None,
    hard_state: HardState | None = None,
) -> Persist:
    return Persist(0, snapshot, cut, added or [], hard_state, ())


def failure(work: Callable[[], object]) -> int | None:
    """The errno with which it ended, if it did."""
    try:
        work()
    except OSError as error:
        return error.errno
    return None


class Contents(NamedTuple):
    """What a log holds, as a plain list that nothing can happen to."""

    hard_state: HardState = HardState()
    snapshot: SnapshotMeta | None = None
    entries: tuple[Entry, ...] = ()

    @property
    def last(self) -> int:
        base = self.snapshot.index if self.snapshot is not None else 0
        return self.entries[-1].index if self.entries else base

    def after(self, item: Persist) -> Contents:
        """With one Persist done, as its fields say."""
        snapshot, kept = self.snapshot, list(self.entries)
        if item.snapshot is not None:
            snapshot, kept = item.snapshot[0], []
        if item.truncate_from is not None:
            kept = [known for known in kept if known.index < item.truncate_from]
        return Contents(item.hard_state or self.hard_state, snapshot, (*kept, *item.entries))

    def with_snapshot(self, of: SnapshotMeta) -> Contents:
        """With one of its own, which lets go of the entries that it covers."""
        kept = tuple(known for known in self.entries if known.index > of.index)
        return self._replace(snapshot=of, entries=kept)


class Machine:
    """A disk, the log on it, and the ways to end the process that writes it."""

    def __init__(self, segment: int = SEGMENT) -> None:
        self.storage = MemoryStorage()
        self.disk = Disk(self.storage, lambda _: None)
        self.segment = segment
        self.wal, self.restored = Wal.open(self.disk, segment)

    def reopen(self) -> Restored:
        """A restart of the process."""
        self.wal.close()
        self.wal, self.restored = Wal.open(self.disk, self.segment)
        return self.restored

    def cut_off(self, seed: int) -> Restored:
        """The power goes; what was not synced is lost, or half of it is."""
        self.storage.crash(random.Random(seed))
        self.disk = Disk(self.storage, lambda _: None)
        return self.reopen()

    def append(self, *items: Persist) -> None:
        self.wal.append(items)

    def segments(self) -> list[str]:
        return [name for name in self.disk.list("wal") if name.endswith(".seg")]

    def flip(self, path: str, offset: int, bit: int = 0) -> None:
        with self.disk.open(path) as file:
            byte = file.read_at(offset, 1)[0]
            file.write_at(offset, bytes([byte ^ 1 << bit]))
            file.sync()


def contents(restored: Restored) -> Contents:
    if restored.snapshot is not None:
        assert restored.snapshot_data == state_at(restored.snapshot.index)
    return Contents(restored.hard_state, restored.snapshot, tuple(restored.entries))


class Applier:
    """A store, and a log that gives it commands at rising indexes."""

    def __init__(self, store: Store | None = None) -> None:
        self.store = Store() if store is None else store
        self.index = 0

    def __call__(self, *op: Any) -> list[Any]:
        """Apply an operation in a session of its own making; each call is a new request."""
        self.index += 1
        command = c.pack_command(
            bytes(16), self.index, self.index, retry=False, base=0, op=list(op)
        )
        c.check_command(command)
        return self.store.apply(self.index, command)

    def put(self, key: bytes, value: bytes = b"", lease: int = 0) -> list[Any]:
        return self(c.PUT, key, value, lease, False)

    def delete(self, key: bytes, range_end: bytes = b"") -> list[Any]:
        return self(c.DELETE, key, range_end, False)

    def txn(self, *then: list[Any]) -> list[Any]:
        return self(c.TXN, [], list(then), [])


def restored(store: Store, *, of: Store | None = None) -> Store:
    """The store that a snapshot of `store` makes, out of `of` if given."""
    other = Store() if of is None else of
    other.restore(store.freeze().encode())
    return other
