"""The event log: one typed line for each thing that happened, for people and checkers alike.

    {"v":1, "seq":17, "wall":1764000000.123, "mono":12.345678, "node":"n2", "kind":"raft.role",
     "role":"leader", "term":4, "cause":"votes 2/3"}

`seq` counts without gaps within one life of a node; a life begins with `node.start`. Kinds are
`<part>.<what>`; fields are JSON values, and what JSON has no word for is text. Lines are gathered
and written at most FLUSH_S late, so an event costs microseconds; kill -9 may take the last ones
with it. Where lines had to be dropped stands one `events.dropped`, with their count.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from netstack.runtime.clock import Clock

SCHEMA_VERSION = 1
FLUSH_S = 0.05

# Lines that may wait for a sink that fails; the oldest are dropped and counted.
WAITING_MAX = 10_000

_encode = json.JSONEncoder(separators=(",", ":"), default=str, allow_nan=False).encode


class Sink(Protocol):
    """Where lines go: a file opened for appending text, or a list in a simulation."""

    def write(self, text: str, /) -> object:
        """Take all of the text; after an error, it is given again."""


class EventLog:
    """Writes the events of one life of one node."""

    def __init__(
        self,
        node: str,
        clock: Clock,
        sink: Sink,
        schedule: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._node = node
        self._clock = clock
        self._sink = sink
        self._schedule = schedule
        self._waiting: deque[str] = deque(maxlen=WAITING_MAX)
        self._scheduled = False
        self._sequence = 0
        self._written = 0  # of the sequence
        self.subscribers: list[Callable[[str, dict[str, Any]], None]] = []

    def __repr__(self) -> str:
        return f"<EventLog {self._node} seq={self._sequence}>"

    def emit(self, kind: str, cause: str | None = None, **fields: Any) -> None:
        """Record that `kind` happened; `cause` says why, in a few words."""
        self._waiting.append(self._line(self._sequence, kind, cause, fields))
        self._sequence += 1
        if not self._scheduled:
            self._scheduled = True
            self._schedule(FLUSH_S, self.flush)
        for subscriber in self.subscribers:
            subscriber(kind, fields)

    def _line(self, sequence: int, kind: str, cause: str | None, fields: dict[str, Any]) -> str:
        clock = self._clock
        event: dict[str, Any] = {
            "v": SCHEMA_VERSION,
            "seq": sequence,
            "wall": round(clock.wall(), 6),
            "mono": round(clock.now(), 6),
            "node": self._node,
            "kind": kind,
        }
        for name, value in fields.items():
            event.setdefault(name, value)  # the head stands, whatever a field is called
        if cause is not None:
            event["cause"] = cause
        try:
            return _encode(event)
        except ValueError:  # NaN or an infinity, somewhere in it
            return _encode(json.loads(json.dumps(event, default=str), parse_constant=str))

    def flush(self) -> None:
        """Write what waits."""
        self._scheduled = False
        if self._waiting:
            lines = list(self._waiting)
            first = self._sequence - len(lines)
            if dropped := first - self._written:
                lines.insert(0, self._line(first - 1, "events.dropped", None, {"lines": dropped}))
            self._sink.write("\n".join(lines) + "\n")
            self._waiting.clear()  # not before: what was not written is tried again
            self._written = self._sequence


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a log, skipping a last line that kill -9 cut short."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                yield event
