"""The write-ahead log: what Raft must not forget, in segments on a disk that may lose power.

    wal/00000000000000000001.seg     zero-filled beforehand, then overwritten in place
    record   magic:4  length:4  crc:4  salt:4  sequence:8  payload        padded to 8 bytes
    payload  msgpack [[reset, truncate_from, entries, hard_state], …]     one list a Persist

A batch of Persists is one record: one write, one sync. The CRC-32C covers salt, sequence and
payload; sequences count on through all segments, so a record of the past cannot pass for one of
now. The salt is the segment's, and no client knows it: a value that looks like a record is none.
Overwriting zeros syncs two to three times faster than growing a file, because no metadata changes
with it.

Opening reads until the first record that is not whole:

    nothing valid behind it     a torn tail, never reported durable: it is cut (a copy is kept)
    something valid behind it   a damaged middle: DamagedLog, and the node does not start

Each segment begins with a reset record that carries the hard state, so that older segments may be
deleted as soon as a snapshot covers their entries.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

import google_crc32c
import msgpack

from netstack.runtime.disk import Disk, DiskFile
from raftd.log import Entry, HardState, Restored
from raftd.outputs import Persist
from raftd.snapshot_store import load_newest, remove_older, save

MAGIC: Final = b"RWA1"
HEADER: Final = struct.Struct(">4sIIIQ")
SEED: Final = struct.Struct(">IQ")  # what the CRC begins with: salt and sequence
ALIGN: Final = 8

# Zero-filling takes 20 ms a segment here and stalls the log for as long; at 300 bytes a command a
# segment lasts 28,000 of them.
SEGMENT_BYTES: Final = 8 * 1024 * 1024
FOLDER: Final = "wal"

REMEDY: Final = (
    "what this node promised is lost. The others hold everything that was acknowledged; have it"
    " copied from them with `ring repair`, which takes this node out of the cluster and adds it"
    " again, empty"
)


class DamagedLog(Exception):
    """The log cannot be trusted; the message says where and what to do."""


def _no_time() -> float:
    """The clock of who asks for no durations."""
    return 0.0


class Wal:
    """The open log. Calls block; make them from one thread at a time."""

    def __init__(
        self,
        disk: Disk,
        segment_bytes: int = SEGMENT_BYTES,
        salt: int = 0,
        clock: Callable[[], float] = _no_time,
    ) -> None:
        self._disk = disk
        self._clock = clock
        self._segment_bytes = segment_bytes
        self._next_salt = salt  # of segments begun in this life
        self._salt = salt  # of the segment that is read or written
        self._file: DiskFile | None = None
        self._offset = 0
        self._sequence = 0
        self._hard_state = HardState()
        self._last_index = 0
        self._segments: dict[str, int] = {}  # name -> highest index among its entries
        self._name = ""  # of the segment being written
        self.syncs = 0  # of segments too, as they begin
        self.sync_s = 0.0  # all of them together
        self.bytes_written = 0  # of records

    def __repr__(self) -> str:
        return f"<Wal segments={len(self._segments)} sequence={self._sequence}>"

    @classmethod
    def open(
        cls,
        disk: Disk,
        segment_bytes: int = SEGMENT_BYTES,
        salt: int = 0,
        clock: Callable[[], float] = _no_time,
    ) -> tuple[Wal, Restored]:
        """Read what is there; raises DamagedLog or OSError.

        `salt`: 32 bits nobody can guess; `clock`: seconds, for how long syncs take.
        """
        wal = cls(disk, segment_bytes, salt, clock)
        restored = Restored()
        snapshot, damaged_index = load_newest(disk)
        if snapshot is not None:
            restored.snapshot, restored.snapshot_data = snapshot
        entries = wal._replay(restored)
        if wal._last_index < damaged_index:
            raise DamagedLog(f"the snapshot at index {damaged_index} is damaged; {REMEDY}")
        if restored.snapshot is not None and entries and not restored.entries:
            last, meta = entries[-1], restored.snapshot
            if (last.index, last.term) != (meta.index, meta.term):
                # The snapshot came without the record that says so: what is appended from now on
                # must not be taken for the end of the log that it replaced.
                wal._write(msgpack.packb([[meta.index, None, [], None]]))
        return wal, restored

    # -- writing

    def append(self, persists: Sequence[Persist]) -> None:
        """Make a batch durable: returns when it is. After an OSError nobody knows what is."""
        items: list[list[Any]] = []
        # What the log holds changes with the sync. A segment that begins before it must not tell of
        # a commit whose entries are not there yet: those that they replace would be applied.
        hard_state, last_index = self._hard_state, self._last_index
        for persist in persists:
            if persist.snapshot is not None:
                meta, data = persist.snapshot
                save(self._disk, meta, [data])
                last_index = meta.index
            hard_state = persist.hard_state or hard_state
            if persist.entries:
                last_index = persist.entries[-1].index
            items.append(
                [
                    persist.snapshot[0].index if persist.snapshot is not None else None,
                    persist.truncate_from,
                    persist.entries,
                    _pack_hard_state(persist.hard_state),
                ]
            )
        if any(item[0] is not None or item[1] or item[2] or item[3] for item in items):
            self._write(msgpack.packb(items))
            self._segments[self._name] = max(self._segments[self._name], last_index)
        self._hard_state, self._last_index = hard_state, last_index

    def _write(self, payload: bytes) -> None:
        record_bytes = _padded(HEADER.size + len(payload))
        if self._file is None or self._offset + record_bytes > self._segment_bytes:
            self._next_segment(record_bytes)
        assert self._file is not None
        # State changes only after the sync: a write that failed may be tried again as it was.
        failpoint = self._disk.failpoint
        failpoint("wal.append.before-write")
        self._file.write_at(self._offset, _record(self._salt, self._sequence + 1, payload))
        failpoint("wal.append.before-sync")
        self._sync(self._file)
        failpoint("wal.append.after-sync")
        self._sequence += 1
        self._offset += record_bytes
        self.bytes_written += record_bytes

    def _sync(self, file: DiskFile) -> None:
        began = self._clock()
        file.sync()
        self.sync_s += self._clock() - began
        self.syncs += 1

    def _next_segment(self, needed: int) -> None:
        """Prepare a segment beside the log, then put it in place: it exists whole or not at all."""
        salt = self._next_salt
        first = _record(salt, self._sequence + 1, msgpack.packb([self._reset_item()]))
        size = max(self._segment_bytes, len(first) + needed)
        name = f"{self._sequence + 1:020d}.seg"
        path = f"{FOLDER}/{name}"
        with self._disk.open(f"{path}.new") as fresh:
            fresh.truncate(0)
            fresh.write_at(0, first + bytes(size - len(first)))
            self._sync(fresh)
        failpoint = self._disk.failpoint
        failpoint("wal.segment.before-rename")
        self._disk.rename(f"{path}.new", path)
        failpoint("wal.segment.after-rename")
        if self._file is not None:
            self._file.close()
        self._file = self._disk.open(path)
        self._segments[name], self._name, self._salt = 0, name, salt
        self._sequence += 1
        self._offset = len(first)

    def _reset_item(self) -> list[Any]:
        """Opens a segment: the hard state so far; what follows does not need what came before."""
        return [None, None, [], _pack_hard_state(self._hard_state)]

    def forget_before(self, index: int) -> None:
        """A snapshot at `index` is on disk: delete what it makes superfluous."""
        remove_older(self._disk, index)
        self._remove_segments(index)

    def _remove_segments(self, index: int) -> None:
        """Delete the oldest segments while all their entries are in the snapshot."""
        failpoint = self._disk.failpoint
        for name in sorted(self._segments)[:-1]:
            if self._segments[name] > index:
                break
            self._disk.remove(f"{FOLDER}/{name}")
            failpoint("wal.segment.removed")
            del self._segments[name]

    def close(self) -> None:
        """Release the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    # -- reading

    def _replay(self, restored: Restored) -> list[Entry]:
        """Read all segments into `restored`; returns all entries, those in the snapshot too."""
        names = [n for n in self._disk.list(FOLDER) if n.endswith(".seg")]
        for leftover in [n for n in self._disk.list(FOLDER) if n.endswith(".new")]:
            self._disk.remove(f"{FOLDER}/{leftover}")
        entries: list[Entry] = []
        for position, name in enumerate(names):
            entries = self._replay_segment(name, entries, is_last=position == len(names) - 1)
        restored.hard_state = self._hard_state
        restored.entries = _behind_snapshot(entries, restored)
        self._last_index = entries[-1].index if entries else 0
        if restored.snapshot is not None:
            self._last_index = max(self._last_index, restored.snapshot.index)
        base = restored.snapshot.index if restored.snapshot is not None else 0
        if entries and not restored.entries and entries[0].index > base + 1:
            raise DamagedLog(f"entries before index {entries[0].index} are missing; {REMEDY}")
        return entries

    def _replay_segment(self, name: str, entries: list[Entry], *, is_last: bool) -> list[Entry]:
        path = f"{FOLDER}/{name}"
        data = self._disk.read(path)
        offset = 0
        top = 0
        first_of_log = self._sequence == 0
        self._salt = _salt_of(data)
        while (payload := self._valid_record(data, offset, first_of_log)) is not None:
            first_of_log = False
            for item in payload[0]:
                entries = self._apply_item(item, entries)
                top = max(top, entries[-1].index if entries else 0)
            offset += payload[1]
        self._segments[name] = top
        # Zeros alone may be the end; or a sector that was lost, with more of the log behind it. A
        # segment was put in place with its first record whole: that is never the torn tail.
        damaged = bool(data[offset:].strip(b"\0")) or not offset
        if not is_last or damaged:
            self._judge_end(path, data, offset, is_last=is_last)
        if is_last:
            self._file = self._disk.open(path)
            self._offset, self._name = offset, name
            if damaged:
                self._cut_tail(path, data, offset)
        return entries

    def _valid_record(
        self, data: bytes, offset: int, first_of_log: bool
    ) -> tuple[list[Any], int] | None:
        """(items, bytes taken) of the record at `offset`, if it is the next one and whole."""
        found = _parse(data, offset, self._salt)
        if found is None:
            return None
        sequence, payload, taken = found
        if sequence != self._sequence + 1 and not first_of_log:
            return None
        self._sequence = sequence
        return msgpack.unpackb(payload), taken

    def _apply_item(self, item: list[Any], entries: list[Entry]) -> list[Entry]:
        reset, truncate_from, added, hard_state = item
        if reset is not None:
            entries = []
        if truncate_from is not None:
            entries = [entry for entry in entries if entry.index < truncate_from]
        if added and entries and added[0][0] != entries[-1].index + 1:
            raise DamagedLog(
                f"entry {added[0][0]} follows entry {entries[-1].index} in the log; {REMEDY}"
            )
        entries += [Entry._make(fields) for fields in added]
        if hard_state is not None:
            self._hard_state = HardState(*hard_state)
        return entries

    def _judge_end(self, path: str, data: bytes, offset: int, *, is_last: bool) -> None:
        """The record at `offset` is not whole: is it the tail, or is something valid behind it?"""
        position = data.find(MAGIC, offset + 1)
        valid_behind = False
        while position >= 0 and not valid_behind:
            found = _parse(data, position, self._salt)
            valid_behind = found is not None and found[0] > self._sequence
            position = data.find(MAGIC, position + 1)
        names = [n for n in self._disk.list(FOLDER) if n.endswith(".seg")]
        following = [n for n in names if n > path.rpartition("/")[2]]
        next_begins = int(following[0].removesuffix(".seg")) if following else None
        if not offset or valid_behind or (not is_last and next_begins != self._sequence + 1):
            raise DamagedLog(f"{path} is damaged at byte {offset}; {REMEDY}")

    def _cut_tail(self, path: str, data: bytes, offset: int) -> None:
        """Zero what a torn write left, keeping a copy of it for whoever wants to look."""
        assert self._file is not None
        self._disk.replace(f"{FOLDER}/torn-tail", data[offset:].rstrip(b"\0"))
        self._file.write_at(offset, bytes(len(data) - offset))
        self._file.sync()


def _padded(size: int) -> int:
    return (size + ALIGN - 1) // ALIGN * ALIGN


def _crc(salt: int, sequence: int, payload: bytes) -> int:
    crc: int = google_crc32c.extend(google_crc32c.value(SEED.pack(salt, sequence)), payload)
    return crc


def _record(salt: int, sequence: int, payload: bytes) -> bytes:
    crc = _crc(salt, sequence, payload)
    record = HEADER.pack(MAGIC, len(payload), crc, salt, sequence) + payload
    return record.ljust(_padded(len(record)), b"\0")


def _salt_of(data: bytes) -> int:
    """The salt of a segment: its first record has it."""
    return int(HEADER.unpack_from(data)[3]) if len(data) >= HEADER.size else 0


def _parse(data: bytes, offset: int, own_salt: int) -> tuple[int, bytes, int] | None:
    """(sequence, payload, bytes taken) of a whole record of this salt at `offset`, or None."""
    if offset + HEADER.size > len(data):
        return None
    magic, length, crc, salt, sequence = HEADER.unpack_from(data, offset)
    start = offset + HEADER.size
    if magic != MAGIC or salt != own_salt or start + length > len(data):
        return None
    payload = data[start : start + length]
    whole = crc == _crc(salt, sequence, payload)
    return (sequence, payload, _padded(HEADER.size + length)) if whole else None


def _pack_hard_state(state: HardState | None) -> list[Any] | None:
    return None if state is None else [state.term, state.vote, state.commit]


def _behind_snapshot(entries: list[Entry], restored: Restored) -> list[Entry]:
    """What follows the snapshot. A log that disagrees with it was about to be replaced (§7)."""
    meta = restored.snapshot
    if meta is None:
        return entries if not entries or entries[0].index == 1 else []
    for position, entry in enumerate(entries):
        if entry.index == meta.index:
            return entries[position + 1 :] if entry.term == meta.term else []
    return entries if entries and entries[0].index == meta.index + 1 else []
