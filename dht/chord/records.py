"""What one process keeps: records by key, newest stamp wins, in the order of the circle.

A record carries its version and who gave it; of two with the same version, made in two halves of a
ring that was cut, the greater tag wins everywhere alike. A deletion is a record too (value None),
kept until `expires`, so that an old copy cannot bring the key back.

Two stores compare a range by sixteen digests: the arc is cut into sixteen equal parts, and a part's
digest is the exclusive or of its records' hashes. Equal digests cost one small message; unequal
ones say which part to list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from sortedcontainers import SortedList

from dht.chord.ring import SIZE, key_id

PARTS: Final = 16

# What a record costs beside its key and value: its place in two indexes.
OVERHEAD_BYTES: Final = 200


class Record(NamedTuple):
    """One version of one key."""

    key: bytes
    value: bytes | None  # None: deleted
    version: int
    tag: str  # of the identifier that gave the version
    expires: float = 0.0  # wall seconds; 0: never

    @property
    def stamp(self) -> tuple[int, str]:
        """The newest has the greatest."""
        return self.version, self.tag

    @property
    def size(self) -> int:
        """Bytes that it counts for."""
        return len(self.key) + len(self.value or b"") + OVERHEAD_BYTES

    def alive(self, wall: float) -> bool:
        """Whether a reader sees it."""
        return self.value is not None and not self.expired(wall)

    def expired(self, wall: float) -> bool:
        """Whether its time is over."""
        return 0 < self.expires <= wall


class RecordStore:
    """The records of one process.

    Args:
        quota_bytes: beyond this `room_for` says no.
    """

    def __init__(self, quota_bytes: int) -> None:
        self.quota_bytes = quota_bytes
        self.used_bytes = 0
        self.changes = 0
        self._records: dict[bytes, Record] = {}
        self._order: SortedList[tuple[int, bytes]] = SortedList()
        self._digests: dict[tuple[int, int], tuple[int, list[bytes]]] = {}

    def __repr__(self) -> str:
        return f"<RecordStore {len(self)} records {self.used_bytes}/{self.quota_bytes} B>"

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records.values())

    def get(self, key: bytes) -> Record | None:
        """The record of a key, deletions and expired ones included."""
        return self._records.get(key)

    def newer(self, record: Record) -> bool:
        """Whether `record` would replace what is here."""
        mine = self._records.get(record.key)
        return mine is None or record.stamp > mine.stamp

    def room_for(self, record: Record) -> bool:
        """Whether the quota allows it."""
        mine = self._records.get(record.key)
        extra = record.size - (mine.size if mine is not None else 0)
        return extra <= 0 or self.used_bytes + extra <= self.quota_bytes

    def put(self, record: Record) -> bool:
        """Keep it if it is newer; returns whether it was."""
        mine = self._records.get(record.key)
        if mine is None:
            self._order.add((key_id(record.key), record.key))
        elif record.stamp <= mine.stamp:
            return False
        else:
            self.used_bytes -= mine.size
        self._records[record.key] = record
        self.used_bytes += record.size
        self.changes += 1
        return True

    def forget(self, key: bytes) -> None:
        """As if it had never been here; others may still have it."""
        record = self._records.pop(key, None)
        if record is not None:
            self._order.remove((key_id(key), key))
            self.used_bytes -= record.size
            self.changes += 1

    def over(self, wall: float) -> list[bytes]:
        """Keys whose time is over, deletions included."""
        return [r.key for r in self._records.values() if r.expired(wall)]

    # -- ranges (low, high]

    def within(self, low: int, high: int) -> Iterator[Record]:
        """The records of an arc; of all the circle if both ends are the same."""
        for first, last in arcs(low, high):
            for _, key in self._order.irange((first, b""), (last + 1, b""), (True, False)):
                yield self._records[key]

    def digest(self, low: int, high: int) -> list[bytes]:
        """One digest a part of the arc."""
        known = self._digests.get((low, high))
        if known is not None and known[0] == self.changes:
            return known[1]
        sums = [0] * PARTS
        for record in self.within(low, high):
            sums[part_of(key_id(record.key), low, high)] ^= _hash(record)
        found = [value.to_bytes(8, "big") for value in sums]
        if len(self._digests) > 4096:
            self._digests.clear()
        self._digests[low, high] = self.changes, found
        return found

    def listing(self, low: int, high: int, parts: Iterable[int]) -> list[tuple[bytes, int, str]]:
        """(key, version, tag) of the records of some parts of an arc."""
        wanted = set(parts)
        return [
            (record.key, record.version, record.tag)
            for record in self.within(low, high)
            if part_of(key_id(record.key), low, high) in wanted
        ]


def arcs(low: int, high: int) -> list[tuple[int, int]]:
    """(low, high] as inclusive intervals of numbers."""
    first = (low + 1) % SIZE
    if low == high:
        return [(0, SIZE - 1)]
    return [(first, high)] if first <= high else [(first, SIZE - 1), (0, high)]


def part_of(identifier: int, low: int, high: int) -> int:
    """Which sixteenth of the arc (low, high] an identifier lies in."""
    span = (high - low) % SIZE or SIZE
    return ((identifier - low - 1) % SIZE) * PARTS // span


def _hash(record: Record) -> int:
    stamp = f"{record.version}/{record.tag}/".encode()
    return int.from_bytes(hashlib.blake2b(stamp + record.key, digest_size=8).digest(), "big")
