"""What a node has taken in and its disk has not: gathered until it becomes one Persist.

append, truncate, replace     the log changes in memory first
promise                       a message that may leave when all of that is durable
take                          the Persist of it; Raft numbers them, the disk keeps their order
durable                       what the finished ones held
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from raftd.log import Entry, HardState, SnapshotMeta
from raftd.outputs import Persist, Send


class Saved(NamedTuple):
    """What a Persist made durable."""

    sequence: int
    term: int
    vote: str | None
    last_index: int


class Unsaved:
    """Of one node, from one Persist to the next."""

    def __init__(self, term: int, vote: str | None) -> None:
        self._promises: list[Send] = []
        self._entries: list[Entry] = []
        self._truncate_from: int | None = None
        self._snapshot: tuple[SnapshotMeta, bytes] | None = None
        self._vote = (term, vote)  # as it was last given to the disk
        self._sequence = 0
        self._durable = 0
        self._under_way: deque[Saved] = deque()

    def __repr__(self) -> str:
        return f"<Unsaved entries={len(self._entries)} at the disk={len(self._under_way)}>"

    def promise(self, send: Send) -> None:
        """It leaves when everything up to now is durable."""
        self._promises.append(send)

    def append(self, entries: Sequence[Entry]) -> None:
        """The log has grown."""
        self._entries.extend(entries)

    def truncate(self, index: int) -> None:
        """The log has lost the entry at `index` and all behind it."""
        entries = self._entries
        if entries and entries[0].index < index:
            del entries[index - entries[0].index :]  # the disk has not seen what goes
        else:
            entries.clear()
            kept = self._truncate_from
            self._truncate_from = index if kept is None else min(kept, index)

    def replace(self, snapshot: tuple[SnapshotMeta, bytes]) -> None:
        """The log is replaced by a snapshot."""
        self._snapshot = snapshot
        self._entries, self._truncate_from = [], None

    def take(
        self, term: int, vote: str | None, commit: int, last_index: int
    ) -> tuple[Persist | None, list[Send]]:
        """What goes to the disk now, if anything does; and the promises that need not wait."""
        promises, self._promises = self._promises, []
        changed = (
            self._entries
            or (term, vote) != self._vote
            or self._truncate_from is not None
            or self._snapshot is not None
        )
        if not changed and (not promises or self._durable == self._sequence):
            return None, promises
        self._sequence += 1
        persist = Persist(
            self._sequence,
            self._snapshot,
            self._truncate_from,
            self._entries,
            HardState(term, vote, commit) if changed else None,
            tuple(promises),
        )
        self._under_way.append(Saved(self._sequence, term, vote, last_index))
        self._vote = (term, vote)
        self._entries, self._truncate_from, self._snapshot = [], None, None
        return persist, []

    def durable(self, sequence: int) -> list[Saved]:
        """The Persists up to `sequence` are on the disk: those that were not known to be."""
        self._durable = max(self._durable, sequence)
        finished = []
        while self._under_way and self._under_way[0].sequence <= sequence:
            finished.append(self._under_way.popleft())
        return finished
