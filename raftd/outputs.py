"""What the core wants done, in the order in which it is returned.

    Persist     write to disk; what is in `then` may leave only when it is durable
    Send        may leave at once
    Apply       committed: hand to the state machine, in order
    Restore     replace the state machine by this snapshot

The shell calls `Raft.persisted(sequence)` when a Persist is durable. Persists are numbered and
made durable in order; several may be under way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from raftd.log import Entry, HardState, SnapshotMeta
from raftd.messages import Message


@dataclass(frozen=True, slots=True)
class Send:
    """A message for `to`."""

    to: str
    message: Message


@dataclass(frozen=True, slots=True)
class Persist:
    """One batch for the disk: all of it, or (after a crash) a prefix in this order."""

    sequence: int
    snapshot: tuple[SnapshotMeta, bytes] | None  # replaces all entries there are
    truncate_from: int | None  # drop this index and all behind it, before appending
    entries: list[Entry]
    hard_state: HardState | None
    then: tuple[Send, ...]  # promises: they leave when the batch is durable


@dataclass(frozen=True, slots=True)
class Apply:
    """Committed entries, contiguous with the last Apply."""

    entries: list[Entry]


@dataclass(frozen=True, slots=True)
class Restore:
    """The leader sent a snapshot; the state machine becomes it."""

    meta: SnapshotMeta
    data: bytes


@dataclass(frozen=True, slots=True)
class ReadReady:
    """The read may be served once `index` is applied."""

    token: int
    index: int


@dataclass(frozen=True, slots=True)
class ReadFailed:
    """The read cannot be confirmed here now; ask again."""

    token: int


@dataclass(frozen=True, slots=True)
class Emit:
    """Something worth an event."""

    kind: str
    fields: dict[str, Any] = field(default_factory=dict)


Output = Send | Persist | Apply | Restore | ReadReady | ReadFailed | Emit
