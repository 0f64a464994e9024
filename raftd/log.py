"""The replicated log, as one node holds it in memory, and what of it outlives a restart.

    index    1 … snapshot.index          in the snapshot only
             snapshot.index+1 … last      entries, contiguous

The log remembers the term of the snapshot's last entry, so that the consistency check of §5.3
works at its edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from raftd.membership import Membership

COMMAND, CONFIG, NOOP = range(3)


class Entry(NamedTuple):
    """One entry of the log; `data` is the command, or a packed Membership, or empty."""

    index: int  # type: ignore[assignment]
    term: int
    kind: int
    data: bytes


@dataclass(frozen=True, slots=True)
class HardState:
    """What must be on disk before a message that depends on it leaves (paper, figure 2)."""

    term: int = 0
    vote: str | None = None
    commit: int = 0  # a hint: it only spares a restarted node the wait for its leader


@dataclass(frozen=True, slots=True)
class SnapshotMeta:
    """Up to where a snapshot reaches, and who was a member there."""

    index: int
    term: int
    membership: Membership


@dataclass(slots=True)
class Restored:
    """What a node finds on its disk when it starts."""

    hard_state: HardState = field(default_factory=HardState)
    entries: list[Entry] = field(default_factory=list)
    snapshot: SnapshotMeta | None = None
    snapshot_data: bytes = b""


EMPTY: Final[tuple[Entry, ...]] = ()


class RaftLog:
    """Entries after the snapshot, in order."""

    __slots__ = ("_entries", "snapshot_index", "snapshot_term")

    def __init__(
        self, entries: Sequence[Entry] = (), snapshot_index: int = 0, snapshot_term: int = 0
    ) -> None:
        self._entries = list(entries)
        self.snapshot_index = snapshot_index
        self.snapshot_term = snapshot_term
        if self._entries and self._entries[0].index != snapshot_index + 1:
            raise ValueError(
                f"the log begins at {self._entries[0].index}, its snapshot ends at {snapshot_index}"
            )

    def __repr__(self) -> str:
        return f"<RaftLog {self.snapshot_index + 1}..{self.last_index} last_term={self.last_term}>"

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def first_index(self) -> int:
        """The lowest index whose entry is held."""
        return self.snapshot_index + 1

    @property
    def last_index(self) -> int:
        """The highest index."""
        return self.snapshot_index + len(self._entries)

    @property
    def last_term(self) -> int:
        """The term of the last entry."""
        return self._entries[-1].term if self._entries else self.snapshot_term

    def term_at(self, index: int) -> int | None:
        """The term of the entry at `index`; None if it is compacted or not there yet."""
        position = index - self.snapshot_index - 1
        if 0 <= position < len(self._entries):
            return self._entries[position].term
        return self.snapshot_term if index == self.snapshot_index else None

    def slice(self, first: int, last: int) -> list[Entry]:
        """Entries first..last, both included."""
        base = self.snapshot_index + 1
        return self._entries[first - base : last - base + 1]

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries behind the last."""
        assert not entries or entries[0].index == self.last_index + 1, "a gap in the log"
        self._entries.extend(entries)

    def truncate_from(self, index: int) -> None:
        """Drop the entry at `index` and all behind it."""
        assert index > self.snapshot_index, "a snapshot cannot be truncated"
        del self._entries[index - self.snapshot_index - 1 :]

    def compact(self, index: int, term: int) -> None:
        """Entries up to `index` are in a snapshot: drop them."""
        kept = max(0, self.last_index - index)
        self._entries = self._entries[len(self._entries) - kept :] if kept else []
        self.snapshot_index, self.snapshot_term = index, term

    def back_from(self, index: int, count: int, nbytes: int) -> int:
        """Where the last entries up to `index` begin that are at most so many, and so large."""
        position = index - self.snapshot_index
        lowest = max(0, position - count)
        while position > lowest and nbytes >= (size := len(self._entries[position - 1].data)):
            nbytes -= size
            position -= 1
        return self.snapshot_index + position

    def last_at_or_below(self, index: int, term: int) -> int:
        """The highest index <= `index` whose term is <= `term`; at least the snapshot's."""
        index = min(index, self.last_index)
        position = index - self.snapshot_index - 1
        while position >= 0 and self._entries[position].term > term:
            position -= 1
        return self.snapshot_index + 1 + position

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a candidate's log is at least as up-to-date as this one (§5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)
