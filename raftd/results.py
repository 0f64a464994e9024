"""What the calls of the store return, and the three ways in which they fail."""

from __future__ import annotations

from typing import Any, NamedTuple

from raftd.model import KeyValue


class ClientError(Exception):
    """Base of what a caller may meet."""


class Refused(ClientError):
    """The store said no; nothing was changed. `reason` is its code."""

    def __init__(self, reason: str, message: str, details: Any = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.details = details


class NotReached(ClientError):
    """Nobody who could decide was reached in time; nothing was changed."""


class OutcomeUnknown(ClientError):
    """The request was sent and not answered: it may have been applied."""


class PutResult(NamedTuple):
    """The revision of the change, and the pair before it if that was asked for."""

    revision: int
    previous: KeyValue | None


class DeleteResult(NamedTuple):
    """How many keys went."""

    revision: int
    deleted: int
    previous: list[KeyValue]


class RangeResult(NamedTuple):
    """The pairs, whether the limit left some out, and how many there are in all."""

    revision: int
    pairs: list[KeyValue]
    more: bool
    count: int  # type: ignore[assignment]


class TxnResult(NamedTuple):
    """Which branch ran, and the answers of its operations."""

    revision: int
    succeeded: bool
    answers: list[Any]


class WatchEvent(NamedTuple):
    """One change. A deleted key has version 0."""

    pair: KeyValue
    previous: KeyValue | None


class WatchBatch(NamedTuple):
    """All changes of one revision in the watched range."""

    revision: int
    events: list[WatchEvent]
