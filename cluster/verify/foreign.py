"""Histories that others have recorded: Jepsen's edn and log lines, and operations as Porcupine's.

.edn     {:type :invoke, :process 0, :f :write, :value 3, :time 12345, :index 0}
         an event a line, or a vector of them; `time` is in nanoseconds
.log     INFO  jepsen.util - 0	:invoke	:write	3
         what Jepsen prints; the order is all that is known of time, and a `cas` that failed
         is one whose comparison did not hold
.jsonl   ours (history.py), or an operation a line with the field names of Porcupine:
         {"ClientId": 0, "Input": {"Op": "put", "Key": "x", "Value": "1"}, "Call": 1,
          "Output": {"Value": ""}, "Return": 5}
         times are whole numbers of any unit; without a Return nobody knows
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from cluster.verify.history import (
    FAIL,
    INFO,
    INVOKE,
    OK,
    HistoryError,
    Operation,
    operations,
    read_events,
)

LOG_LINE: Final = re.compile(r"INFO\s+jepsen\.util - (\S+)\t:(\w+)\t:(\S+)\t(.*)")
_TOKEN: Final = re.compile(
    r'[\s,]*(?:;[^\n]*\s*)*("(?:\\.|[^"\\])*"|[\[\](){}]|#\{|[^\s,\[\](){}"]+)'
)
_PAIRS: Final = {"[": "]", "(": ")", "{": "}", "#{": "}"}


def read_history(path: Path) -> list[Operation]:
    """The operations of a file in any of the forms; raises HistoryError, or OSError."""
    if path.suffix == ".edn":
        return operations(_jepsen(_edn_events(path)))
    if path.suffix == ".log":
        return operations(_log_events(path))
    events = list(read_events(path))
    if events and "ClientId" in events[0]:
        return operations(_calls_and_returns(events))
    return operations(events)


# -- Jepsen


def _jepsen(events: Iterator[Any]) -> Iterator[dict[str, Any]]:
    for number, event in enumerate(events, 1):
        if not isinstance(event, dict):
            raise HistoryError(f"event {number}: not a map: {event!r}")
        if not isinstance(event.get("process"), int):
            continue  # the nemesis: what it did is no client's operation
        key, value = event.get("key"), event.get("value")
        if isinstance(value, list) and len(value) == 2 and _has_key(event["f"], value):
            key, value = value
        if event["f"] == "cas" and event["type"] != INVOKE:
            event = event | _compared(event["type"])
            value = event["value"]
        elif event["f"] == "write" and event["type"] == OK:
            value = None
        time = event.get("time", number * 1_000_000_000) / 1e9
        yield event | {"key": key, "value": value, "time": time}


def _has_key(f: str, pair: list[Any]) -> bool:
    """Whether [a b] is the [key value] of jepsen.independent, and not what is compared."""
    return f in ("read", "write") or (f == "cas" and isinstance(pair[1], list))


def _compared(type_: str) -> dict[str, Any]:
    """A compare-and-swap that failed is an answer: the comparison did not hold."""
    if type_ == INFO:
        return {"value": None}
    return {"type": OK, "value": type_ == OK}


def _log_events(path: Path) -> Iterator[dict[str, Any]]:
    def events() -> Iterator[dict[str, Any]]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            match = LOG_LINE.match(line)
            if match is None:
                continue
            process, type_, f, value = match.groups()
            if not process.isdigit():
                continue
            time = number * 1_000_000_000
            value = parse_edn(value)
            if value == "timed-out":
                value = None
            yield {"type": type_, "process": int(process), "f": f, "value": value, "time": time}

    for event in _jepsen(events()):
        # A read without an answer is told as a failure, and says nothing either way.
        yield event | {"type": FAIL} if event["f"] == "read" and event["type"] == INFO else event


def _edn_events(path: Path) -> Iterator[Any]:
    for form in _forms(path.read_text(encoding="utf-8")):
        if isinstance(form, list):
            yield from form
        else:
            yield form


def parse_edn(text: str) -> Any:
    """One form of edn: keywords and symbols become strings, nil None, vectors and lists lists."""
    forms = list(_forms(text))
    if len(forms) != 1:
        raise HistoryError(f"not one form of edn: {text[:80]!r}")
    return forms[0]


def _forms(text: str) -> Iterator[Any]:
    tokens = [match.group(1) for match in _TOKEN.finditer(text)]
    at = 0
    while at < len(tokens):
        if tokens[at].startswith("#") and tokens[at] != "#{":
            at += 1  # a tag, as in #jepsen.history.Op{…}: the map behind it is what counts
            continue
        form, at = _form(tokens, at)
        yield form


def _form(tokens: list[str], at: int) -> tuple[Any, int]:
    token = tokens[at]
    if token not in _PAIRS:
        if token in "])}":
            raise HistoryError(f"edn: {token} closes nothing")
        return _atom(token), at + 1
    end, at, items = _PAIRS[token], at + 1, []
    while at < len(tokens) and tokens[at] != end:
        if tokens[at].startswith("#") and tokens[at] != "#{":
            at += 1
            continue
        item, at = _form(tokens, at)
        items.append(item)
    if at == len(tokens):
        raise HistoryError(f"edn: {token} is not closed")
    if token == "{":
        if len(items) % 2:
            raise HistoryError("edn: a map has a key without a value")
        return dict(zip(items[::2], items[1::2], strict=True)), at + 1
    return items, at + 1


def _atom(token: str) -> Any:
    if token.startswith('"'):
        return json.loads(token)
    if token in ("nil", "true", "false"):
        return {"nil": None, "true": True, "false": False}[token]
    for kind in (int, float):
        try:
            return kind(token.rstrip("NM") if token[0].isdigit() or token[0] == "-" else token)
        except ValueError:
            continue
    return token.removeprefix(":")


# -- operations as Porcupine's

_VERBS: Final = {
    "put": "write",
    "write": "write",
    "get": "read",
    "read": "read",
    "append": "append",
}


def _calls_and_returns(lines: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Operations with both their times, as events in the order of time; calls first."""
    events: list[tuple[float, int, int, dict[str, Any]]] = []
    for number, line in enumerate(lines):
        try:
            asked, called = line["Input"], line["Call"]
            f = asked["Op"]
        except (KeyError, TypeError):
            raise HistoryError(f"line {number + 1}: needs ClientId, Input.Op and Call") from None
        f = _VERBS.get(f, f)
        process, key = line["ClientId"], asked.get("Key")
        call = {"type": INVOKE, "process": process, "f": f, "key": key}
        argument = None if f == "read" else asked.get("Value")
        events.append((called, 0, number, call | {"value": argument}))
        returned = line.get("Return")
        if returned is not None:
            answer = (line.get("Output") or {}).get("Value") if f == "read" else None
            events.append((returned, 1, number, call | {"type": OK, "value": answer}))
    for time, _, _, event in sorted(events, key=lambda item: item[:3]):
        yield event | {"time": time}
