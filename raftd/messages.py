"""What Raft nodes say to each other. One-way, for each may be lost; the core copes.

On the wire a message is a list: its kind, then its fields in the order written here; entries are
lists of four. `unpack` checks every field, so nothing malformed reaches the core.
"""

from __future__ import annotations

from typing import Any, NamedTuple, get_type_hints

from raftd.log import COMMAND, CONFIG, NOOP, Entry
from raftd.membership import Membership


class VoteRequest(NamedTuple):
    """§5.2; `pre` asks whether an election could be won (dissertation §9.6)."""

    term: int
    last_index: int
    last_term: int
    pre: bool
    forced: bool  # by the leader's own wish: its lease does not forbid it (§4.2.3)


class VoteReply(NamedTuple):
    """The term is the request's if granted, the voter's own if not."""

    term: int
    granted: bool
    pre: bool


class AppendEntries(NamedTuple):
    """§5.3."""

    term: int
    prev_index: int
    prev_term: int
    commit: int
    entries: list[Entry]


class AppendReply(NamedTuple):
    """Accepted: everything up to `index` is durable here. Refused: try from the hints (§5.3)."""

    term: int
    accepted: bool
    index: int  # type: ignore[assignment]  # accepted: match index; refused: the prev_index that did not fit
    hint_index: int  # refused: the follower's log may agree up to here …
    hint_term: int  # … where its term is this


class Heartbeat(NamedTuple):
    """Keeps the leader in office; `context` numbers the rounds that confirm reads (§6.4)."""

    term: int
    commit: int
    context: int


class HeartbeatReply(NamedTuple):
    """The follower still follows; it has heard of this and all earlier contexts."""

    term: int
    context: int


class InstallSnapshot(NamedTuple):
    """One chunk of a snapshot (§7)."""

    term: int
    index: int  # type: ignore[assignment]
    last_term: int
    membership: bytes
    offset: int
    total: int
    data: bytes


class SnapshotReply(NamedTuple):
    """The next byte wanted of the snapshot at `index`; `total` when it is installed and durable."""

    term: int
    index: int  # type: ignore[assignment]
    offset: int


class TimeoutNow(NamedTuple):
    """Leadership transfer: hold an election at once (dissertation §3.10)."""

    term: int


class ReadIndex(NamedTuple):
    """A follower asks up to where it must have applied to answer a read."""

    term: int
    token: int


class ReadIndexReply(NamedTuple):
    """The answer; index 0: this node cannot say, ask again."""

    term: int
    token: int
    index: int  # type: ignore[assignment]


Message = (
    VoteRequest
    | VoteReply
    | AppendEntries
    | AppendReply
    | Heartbeat
    | HeartbeatReply
    | InstallSnapshot
    | SnapshotReply
    | TimeoutNow
    | ReadIndex
    | ReadIndexReply
)

KINDS: tuple[Any, ...] = (
    VoteRequest,
    VoteReply,
    AppendEntries,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    SnapshotReply,
    TimeoutNow,
    ReadIndex,
    ReadIndexReply,
)
_NUMBER = {kind: number for number, kind in enumerate(KINDS)}
# `entries` and `membership` are looked into on their own.
_TYPES: list[tuple[type | None, ...]] = [
    tuple(t if t in (int, bool, bytes) else None for t in get_type_hints(kind).values())
    for kind in KINDS
]


class Malformed(ValueError):
    """Not a message of this protocol; the text names the field."""


def pack(message: Message) -> list[Any]:
    """The message as msgpack takes it."""
    return [_NUMBER[type(message)], *message]


def unpack(fields: Any) -> Message:
    """The message that `fields` is; raises Malformed."""
    if not isinstance(fields, list) or not fields:
        raise Malformed("a message is a list")
    number, values = fields[0], fields[1:]
    if type(number) is not int or not 0 <= number < len(KINDS):
        shown = number if type(number) is int else type(number).__name__
        raise Malformed(f"no message of kind {shown}")
    kind, types = KINDS[number], _TYPES[number]
    if len(values) != len(types):
        raise Malformed(f"{kind.__name__} has {len(types)} fields, not {len(values)}")
    for value, wanted, name in zip(values, types, kind._fields, strict=True):
        if wanted is not None and type(value) is not wanted:
            found = type(value).__name__
            raise Malformed(f"{kind.__name__}.{name}: expected {wanted.__name__}, got {found}")
        if wanted is int and value < 0:
            raise Malformed(f"{kind.__name__}.{name}: {value} is negative")
    if kind is AppendEntries:
        values[4] = unpack_entries(values[4], values[1])
    elif kind is InstallSnapshot:
        _check_membership("InstallSnapshot.membership", values[3])
    message: Message = kind._make(values)
    return message


def unpack_entries(items: Any, prev_index: int) -> list[Entry]:
    """Entries that follow `prev_index` without a gap; raises Malformed."""
    if not isinstance(items, list):
        raise Malformed("AppendEntries.entries: expected a list")
    entries = []
    index = prev_index
    for item in items:
        index += 1
        try:
            entry = Entry._make(item)
        except TypeError:
            raise Malformed("AppendEntries.entries: an entry has four fields") from None
        if type(entry.index) is not int or entry.index != index or type(entry.data) is not bytes:
            raise Malformed(f"AppendEntries.entries: entry {index} is malformed")
        if type(entry.term) is not int or entry.term < 0:
            raise Malformed(f"AppendEntries.entries: entry {index} has no such term")
        if type(entry.kind) is not int or not COMMAND <= entry.kind <= NOOP:
            raise Malformed(f"AppendEntries.entries: entry {index} has no such kind")
        if entry.kind == CONFIG:
            _check_membership(f"AppendEntries.entries: entry {index}", entry.data)
        entries.append(entry)
    return entries


def _check_membership(where: str, data: bytes) -> None:
    try:
        Membership.unpack(data)
    except ValueError as error:
        raise Malformed(f"{where}: {error}") from None
