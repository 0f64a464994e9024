"""What the master's core wants done, in this order.

`Persist` must be durable before anything behind it that depends on it; the core holds that back
itself until it is told, so whoever executes these just does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mapreduce.messages import Orders


@dataclass(frozen=True, slots=True)
class Persist:
    """Make `records` durable (None: forget the key), then call persisted(sequence)."""

    sequence: int
    records: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Send:
    """Orders for a worker; may be lost."""

    worker: str
    orders: Orders


@dataclass(frozen=True, slots=True)
class Commit:
    """Rename what an attempt wrote, then call committed."""

    job_id: str
    kind: str
    index: int
    output: str
    temporary: str
    name: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Write the report beside the output and the mark, then call written."""

    job_id: str
    output: str
    report: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Abandon:
    """Clear away what attempts of a job left that failed."""

    output: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A job is over; whoever waits for it may know."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something for the log."""

    kind: str
    fields: dict[str, Any]


Output = Persist | Send | Commit | Finish | Abandon | Ended | Event
