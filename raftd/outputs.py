"""What the core wants done, in the order in which it is returned.

    Persist     write to disk; what is in `then` may leave only when it is durable
    Send        may leave at once
    Apply       committed: hand to the state machine, in order
    Restore     replace the state machine by this snapshot
    Doubt       the leader is late: find out if its process is dead; Raft.leader_gone if it is

The shell calls `Raft.persisted(sequence)` when a Persist is durable. Persists are numbered and
made durable in order; several may be under way.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from raftd.log import Entry, HardState, SnapshotMeta
from raftd.messages import Message


class Send(NamedTuple):
    """A message for `to`."""

    to: str
    message: Message


class Persist(NamedTuple):
    """One batch for the disk: all of it, or (after a crash) a prefix in this order."""

    sequence: int
    snapshot: tuple[SnapshotMeta, bytes] | None  # replaces all entries there are
    truncate_from: int | None  # drop this index and all behind it, before appending
    entries: list[Entry]
    hard_state: HardState | None
    then: tuple[Send, ...]  # promises: they leave when the batch is durable


class Apply(NamedTuple):
    """Committed entries, contiguous with the last Apply."""

    entries: list[Entry]


class Restore(NamedTuple):
    """The leader sent a snapshot; the state machine becomes it."""

    meta: SnapshotMeta
    data: bytes


class ReadReady(NamedTuple):
    """The read may be served once `index` is applied."""

    token: int
    index: int  # type: ignore[assignment]


class ReadFailed(NamedTuple):
    """The read cannot be confirmed here now; ask again."""

    token: int


class Doubt(NamedTuple):
    """Nothing was heard of the leader for some heartbeats."""

    leader: str


class Emit(NamedTuple):
    """Something worth an event."""

    kind: str
    fields: dict[str, Any]


Output = Send | Persist | Apply | Restore | ReadReady | ReadFailed | Doubt | Emit
