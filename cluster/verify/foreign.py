"""Histories that others have recorded: Jepsen's edn and log lines, and operations as Porcupine's.

.edn     {:type :invoke, :process 0, :f :write, :value 3, :time 12345, :index 0}
         an event a line, or a vector of them; `time` is in nanoseconds. A `cas` that failed is
         one whose comparison did not hold, which is an answer; but where an :error is told, that
         is why it was not done, and nothing is known of what it was compared with
.log     INFO  jepsen.util - 0	:invoke	:write	3
         what Jepsen prints, and a column more for an :error; the order is all that is known of
         time
.jsonl   ours (history.py), or an operation a line with the field names of Porcupine:
         {"ClientId": 0, "Input": {"Op": "put", "Key": "x", "Value": "1"}, "Call": 1,
          "Output": {"Value": ""}, "Return": 5}
         times are whole numbers of any unit; without a Return nobody knows
else     whichever of these it begins like: Porcupine's own test data is edn in a .txt
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
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

LOG_LINE: Final = re.compile(r"INFO\s+jepsen\.util - (\S+)\t:(\w+)\t:(\S+)\t([^\t]*)(?:\t(.*))?")
# What is no token is taken whole, or the next one would be looked for within a comment.
_TOKEN: Final = re.compile(r'[\s,]+|;[^\n]*|("(?:\\.|[^"\\])*"|[\[\](){}]|#\{|[^\s,;\[\](){}"]+)')
_PAIRS: Final = {"[": "]", "(": ")", "{": "}", "#{": "}"}


def read_history(path: Path) -> list[Operation]:
    """The operations of a file in any of the forms; raises HistoryError, or OSError."""
    try:
        found = _READERS[_kind(path)](path)
    except UnicodeDecodeError:
        raise HistoryError(f"{path} is not text") from None
    if not found:
        raise HistoryError(f"{path}: there is no operation in it")
    return found


def _kind(path: Path) -> str:
    """By its name; or, if that says nothing, by its first line that is no comment."""
    if path.suffix in _READERS:
        return path.suffix
    with path.open(encoding="utf-8") as file:
        for line in file:
            text = line.strip()
            if text and not text.startswith(";"):
                if LOG_LINE.match(text):
                    return ".log"
                return ".edn" if re.match(r"[\[(#]|\{\s*(:|$)", text) else ".jsonl"
    return ".edn"


def _lines(path: Path) -> list[Operation]:
    events = list(read_events(path))
    if events and "ClientId" in events[0]:
        return operations(_calls_and_returns(events))
    return operations(events)


_READERS: Final[dict[str, Callable[[Path], list[Operation]]]] = {
    ".edn": lambda path: operations(_jepsen(_edn_events(path))),
    ".log": lambda path: operations(_log_events(path)),
    ".jsonl": _lines,
}


# -- Jepsen


def _jepsen(events: Iterator[Any]) -> Iterator[dict[str, Any]]:
    keyed: dict[int, bool] = {}  # of each process: whether what it asks has a key
    for number, event in enumerate(events, 1):
        if not isinstance(event, dict):
            raise HistoryError(f"event {number}: not a map: {event!r}")
        process, f, type_ = event.get("process"), event.get("f"), event.get("type")
        if type(process) is not int:
            continue  # the nemesis: what it did is no client's operation
        key, value = event.get("key"), event.get("value")
        if type_ == INVOKE:
            keyed[process] = _has_key(f, value)
        if keyed.get(process) and type(value) is list and len(value) == 2:
            key, value = value
        if f == "cas" and type_ != INVOKE:
            event = event | _compared(event)
            value = event["value"]
        elif f == "write" and type_ == OK:
            value = None
        time = event.get("time", number * 1_000_000_000)
        if type(time) not in (int, float):
            raise HistoryError(f"event {number}: time is a number of nanoseconds, not {time!r}")
        yield event | {"key": key, "value": value, "time": time / 1e9}


class _Set(list[Any]):
    """#{…}. One of two elements is no [key value]."""


def _has_key(f: Any, asked: Any) -> bool:
    """Whether what is asked is the [key value] of jepsen.independent.

    A read is asked with [key nil], and with nil where there are no keys; so its answer, which may
    be a list of two elements, need not be looked at. [a b] of a cas is what is compared.
    """
    if type(asked) is not list or len(asked) != 2:
        return False
    if f == "read":
        return asked[1] is None
    return f == "write" or (f == "cas" and isinstance(asked[1], list))


def _compared(event: dict[str, Any]) -> dict[str, Any]:
    """A compare-and-swap that failed without an error is an answer: it did not hold."""
    if event.get("type") == OK:
        return {"value": True}
    if event.get("type") != FAIL or event.get("error") is not None:
        return {"value": None}
    return {"type": OK, "value": False}


def _log_events(path: Path) -> Iterator[dict[str, Any]]:
    def events() -> Iterator[dict[str, Any]]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            match = LOG_LINE.match(line)
            if match is None:
                continue
            process, type_, f, value, error = match.groups()
            if not process.isdigit():
                continue
            time = number * 1_000_000_000
            value = parse_edn(value)
            if value == "timed-out":
                value = None
            event = {"type": type_, "process": int(process), "f": f, "value": value}
            yield event | {"time": time, "error": error}

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
    tokens = [match.group(1) for match in _TOKEN.finditer(text) if match.group(1)]
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
        try:
            return dict(zip(items[::2], items[1::2], strict=True)), at + 1
        except TypeError:
            raise HistoryError("edn: the key of a map is a collection") from None
    return _Set(items) if token == "#{" else items, at + 1


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

_Told = tuple[Any, str, Any, float, float | None, Any]
"""Who, asked what, with what; when, until when; and what the answer was."""

# Of a store of strings, as Porcupine's own: what is not there is "".
_OF_STRINGS: Final = ("put", "get", "append")

# Of any other values: a register.
_VERBS: Final = {"put": "write", "get": "read"}


def _calls_and_returns(lines: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Operations with both their times, as events in the order of time; calls first."""
    told = [_porcupine(line, number) for number, line in enumerate(lines, 1)]
    strings = _are_of_strings(told)
    verbs = {} if strings else _VERBS
    events: list[tuple[float, int, int, dict[str, Any]]] = []
    for number, (process, op, asked, called, returned, output) in enumerate(told):
        f = verbs.get(op, op)
        call = {"type": INVOKE, "process": process, "f": f, "key": asked.get("Key")}
        reads = f in ("read", "get")
        argument = None if reads else asked.get("Value")
        events.append((called, 0, number, call | {"value": argument}))
        if returned is not None:
            answer = output.get("Value") if reads else None
            events.append((returned, 1, number, call | {"type": OK, "value": answer}))
    for time, _, _, event in sorted(events, key=lambda item: item[:3]):
        yield event | {"time": time}


def _are_of_strings(told: list[_Told]) -> bool:
    """Whether they cannot be a register's: something is appended, or "" read of what is not there.

    A register that was never written to answers with nothing.
    """
    needed = False
    for _, f, asked, _, returned, output in told:
        value = output.get("Value") if f == "get" else asked.get("Value")
        absent = f == "get" and (value is None or value == "")
        if f not in _OF_STRINGS or not (absent or type(value) is str):
            return False
        needed = needed or f == "append" or (absent and returned is not None)
    return needed


def _porcupine(line: dict[str, Any], number: int) -> _Told:
    """Who asked for what, when; and when it returned, with what."""
    asked: Any = line.get("Input")
    called: Any = line.get("Call")
    returned, output = line.get("Return"), line.get("Output") or {}
    named = isinstance(asked, dict) and isinstance(asked.get("Op"), str)
    if not named or type(called) not in (int, float) or "ClientId" not in line:
        raise HistoryError(f"line {number}: needs ClientId, Input.Op and Call")
    if type(returned) not in (int, float, type(None)) or not isinstance(output, dict):
        raise HistoryError(f"line {number}: Return is a time, and Output a map")
    return line["ClientId"], asked["Op"], asked, called, returned, output
