"""Bencode (BEP 3), strict: one value has one encoding, and everything else is refused.

    4:spam          bytes        i-3e          integer
    l4:spami1ee     list         d3:key5:valuee    dictionary, keys ascending by raw bytes

The parser keeps a stack of its own, so that `lll…` ends in an error and never in Python's
recursion limit; depth, number of values and digits of an integer are bounded before anything is
allocated for them. `spans` tells where each value lies: the info-hash is taken over the bytes as
they came, never over a decode and encode of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from dht.torrent.errors import Malformed

Value: TypeAlias = "int | bytes | list[Any] | dict[bytes, Any]"
Path: TypeAlias = "tuple[bytes | int, ...]"
Spans: TypeAlias = "dict[Path, tuple[int, int]]"

DEPTH_MAX: Final = 32  # a .torrent needs 5
VALUES_MAX: Final = 1_000_000  # a .torrent of 300,000 files
DIGITS_MAX: Final = 20  # of an integer: 64 bits and a sign; of a length, far more than fits

_E, _I, _L, _D, _COLON, _MINUS, _ZERO = b"eild:-0"
_DIGITS = frozenset(b"0123456789")


@dataclass(slots=True)
class _Frame:
    """A list or dictionary whose end has not come yet."""

    container: list[Any] | dict[bytes, Any]
    start: int
    key: bytes | None = None  # of a dictionary: read, its value is next
    last_key: bytes | None = None

    def place(self, value: Value, start: int) -> bool:
        """Put a value where it belongs; False if it was a key."""
        if isinstance(self.container, list):
            self.container.append(value)
            return True
        if self.key is None:
            if not isinstance(value, bytes):
                raise Malformed("a key must be a string", start)
            if self.last_key is not None and value <= self.last_key:
                twice = value == self.last_key
                raise Malformed("a key comes twice" if twice else "keys are out of order", start)
            self.key = self.last_key = value
            return False
        self.container[self.key] = value
        self.key = None
        return True

    def step(self) -> bytes | int:
        """How the value that is placed next is called in a path."""
        return len(self.container) if isinstance(self.container, list) else self.key or b""


def decode(data: bytes) -> Value:
    """The one value that `data` is; raises Malformed."""
    value, end = decode_prefix(data)
    if end != len(data):
        raise Malformed("something follows the value", end)
    return value


def decode_prefix(data: bytes) -> tuple[Value, int]:
    """The value at the front, and where it ends; raises Malformed."""
    return _parse(data, None)


def spans(data: bytes) -> Spans:
    """(start, end) of every value by its path: `spans(data)[b"info",]`; raises Malformed."""
    found: Spans = {}
    _, end = _parse(data, found)
    if end != len(data):
        raise Malformed("something follows the value", end)
    return found


def _parse(data: bytes, found: Spans | None) -> tuple[Value, int]:
    stack: list[_Frame] = []
    at = values = 0
    while True:
        if at >= len(data):
            raise Malformed("it ends too early", at)
        byte, start = data[at], at
        value: Value
        if byte in (_L, _D):
            if len(stack) == DEPTH_MAX:
                raise Malformed(f"nested deeper than {DEPTH_MAX}", at)
            stack.append(_Frame([] if byte == _L else {}, at))
            at += 1
            continue
        if byte == _E:
            if not stack:
                raise Malformed("an end without a beginning", at)
            frame = stack.pop()
            if frame.key is not None:
                raise Malformed("a key without a value", at)
            value, start, at = frame.container, frame.start, at + 1
        elif byte == _I:
            value, at = _integer(data, at)
        elif byte in _DIGITS:
            value, at = _string(data, at)
        else:
            raise Malformed(f"no value begins with {bytes([byte])!r}", at)
        values += 1
        if values > VALUES_MAX:
            raise Malformed(f"more than {VALUES_MAX} values", at)
        path = None if found is None else tuple(frame.step() for frame in stack)
        is_value = stack[-1].place(value, start) if stack else True
        if found is not None and path is not None and is_value:
            found[path] = (start, at)
        if not stack:
            return value, at


def _integer(data: bytes, at: int) -> tuple[int, int]:
    end = data.find(b"e", at + 1, at + 3 + DIGITS_MAX)
    if end < 0:
        raise Malformed("an integer without an end", at)
    digits = data[at + 1 : end]
    unsigned = digits[1:] if digits[:1] == b"-" else digits
    if not unsigned or not _DIGITS.issuperset(unsigned):
        raise Malformed("an integer needs digits", at)
    if unsigned[0] == _ZERO and digits != b"0":
        raise Malformed("an integer has no leading zeros and no -0", at)
    return int(digits), end + 1


def _string(data: bytes, at: int) -> tuple[bytes, int]:
    colon = data.find(b":", at, at + DIGITS_MAX + 1)
    digits = data[at:colon]
    if colon < 0 or not _DIGITS.issuperset(digits):
        raise Malformed("a string needs its length and a colon", at)
    if digits[0] == _ZERO and digits != b"0":
        raise Malformed("a length has no leading zeros", at)
    end = colon + 1 + int(digits)
    if end > len(data):
        raise Malformed("a string is longer than what is there", at)
    return bytes(data[colon + 1 : end]), end


def encode(value: Value) -> bytes:
    """The encoding of a value; raises TypeError for what bencode has no form for."""
    out: list[bytes] = []
    todo: list[Any] = [value]
    ends: Final = object()
    while todo:
        item = todo.pop()
        if item is ends:
            out.append(b"e")
        elif isinstance(item, bytes):
            out.append(b"%d:%b" % (len(item), item))
        elif isinstance(item, int) and not isinstance(item, bool):
            out.append(b"i%de" % item)
        elif isinstance(item, (list, tuple)):
            out.append(b"l")
            todo.append(ends)
            todo.extend(reversed(item))
        elif isinstance(item, dict):
            out.append(b"d")
            todo.append(ends)
            for key in sorted(item, reverse=True):
                if not isinstance(key, bytes):
                    raise TypeError(f"a key must be bytes, not {type(key).__name__}")
                todo += [item[key], key]
        else:
            raise TypeError(f"bencode has no form for {type(item).__name__}")
    return b"".join(out)
