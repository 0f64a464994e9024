"""What clients asked, what they were told, and when: the only evidence that a verdict rests on.

A history is a file of JSON lines, an event a line, in the order in which they happened:

    {"type": "invoke", "process": 3, "f": "write", "key": "x", "value": 5, "time": 0.120}
    {"type": "ok",     "process": 3, "f": "write", "key": "x", "value": null, "time": 0.124}

    process   who asks; has one operation under way at a time
    f, key    what is asked of what; `value` is the argument
    ok        it was done; `value` is the answer
    fail      it was not done, and never will be
    info      nobody knows; a process that got this is never heard of again
    time      seconds, from any one clock of all processes

The same words as Jepsen's, so that a reader of one can read the other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

OK, FAIL, INFO, INVOKE = "ok", "fail", "info", "invoke"
TYPES: Final = (INVOKE, OK, FAIL, INFO)


class _Unknown:
    """What nobody was told."""

    def __repr__(self) -> str:
        return "?"


UNKNOWN: Final = _Unknown()


class HistoryError(ValueError):
    """The file is no history; the sentence says where and why."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that a client asked for. `result` is UNKNOWN unless the outcome is ok."""

    index: int  # in the order of the calls
    process: Any
    f: str
    key: Any
    value: Any
    outcome: str
    result: Any
    called: float
    returned: float  # infinite if nobody knows whether it was done

    def __repr__(self) -> str:
        key = "" if self.key is None else f" {self.key}"
        value = "" if self.value is None else f" {self.value!r}"
        answer = f" -> {self.result!r}" if self.outcome == OK else f" {self.outcome}"
        return f"<{self.index} p{self.process} {self.f}{key}{value}{answer}>"


def operations(events: Iterable[dict[str, Any]]) -> list[Operation]:
    """Calls joined with what came of them; one without an end is `info`. Raises HistoryError."""
    open_: dict[Any, tuple[int, dict[str, Any]]] = {}
    gone: set[Any] = set()
    found: list[tuple[int, dict[str, Any], dict[str, Any] | None]] = []
    last = -math.inf
    for number, event in enumerate(events, 1):
        kind, process, time = _checked(event, number)
        if time < last:
            raise HistoryError(f"event {number}: time goes back from {last} to {time}")
        last = time
        if kind == INVOKE:
            if process in gone:
                raise HistoryError(f"event {number}: process {process!r} asks after an info")
            if process in open_:
                raise HistoryError(f"event {number}: process {process!r} asks twice at once")
            open_[process] = (len(found), event)
            found.append((number, event, None))
            continue
        if process not in open_:
            raise HistoryError(
                f"event {number}: {kind} for process {process!r}, which asked nothing"
            )
        at, call = open_.pop(process)
        if call["f"] != event.get("f", call["f"]):
            raise HistoryError(f"event {number}: {event['f']} answers {call['f']}")
        found[at] = (number, call, event)
        if kind == INFO:
            gone.add(process)
    return [_operation(index, call, end) for index, (_, call, end) in enumerate(found)]


def _checked(event: dict[str, Any], number: int) -> tuple[str, Any, float]:
    try:
        kind, process, time = event["type"], event["process"], event["time"]
        event["f"]
    except (KeyError, TypeError):
        raise HistoryError(
            f"event {number}: needs type, process, f and time, not {event!r}"
        ) from None
    if not isinstance(process, int | str):
        raise HistoryError(f"event {number}: process is a number or a name, not {process!r}")
    if not isinstance(event["f"], str):
        raise HistoryError(f"event {number}: f is a word, not {event['f']!r}")
    if kind not in TYPES:
        raise HistoryError(f"event {number}: type is one of {', '.join(TYPES)}, not {kind!r}")
    if type(time) not in (int, float) or not math.isfinite(time):
        raise HistoryError(f"event {number}: time is a number of seconds, not {time!r}")
    return kind, process, time


def _operation(index: int, call: dict[str, Any], end: dict[str, Any] | None) -> Operation:
    outcome = INFO if end is None else end["type"]
    return Operation(
        index,
        call["process"],
        call["f"],
        _frozen(call.get("key")),
        _frozen(call.get("value")),
        outcome,
        _frozen(end.get("value")) if end is not None and outcome == OK else UNKNOWN,
        call["time"],
        math.inf if end is None or outcome == INFO else end["time"],
    )


def _frozen(value: Any) -> Any:
    """Lists become tuples, so that answers can be states and states can be looked up."""
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, dict):
        pairs = ((key, _frozen(item)) for key, item in value.items())
        return tuple(sorted(pairs, key=lambda pair: str(pair[0])))
    return value


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a file of JSON lines; raises HistoryError."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                event = json.loads(line)
            except ValueError as error:
                raise HistoryError(f"{path}, line {number}: not JSON ({error})") from None
            if not isinstance(event, dict):
                raise HistoryError(f"{path}, line {number}: not an event: {line.strip()[:80]}")
            yield event


class Recorder:
    """Writes a history into a file while it happens. Time never goes back, whatever the clock."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._last = 0.0
        self.counts = dict.fromkeys(TYPES, 0)

    def event(
        self, type_: str, process: Any, f: str, time: float, *, key: Any = None, value: Any = None
    ) -> None:
        """One more."""
        self._last = max(self._last, time)
        event = {"type": type_, "process": process, "f": f, "key": key, "value": value}
        self._file.write(json.dumps(event | {"time": round(self._last, 9)}) + "\n")
        self.counts[type_] += 1
