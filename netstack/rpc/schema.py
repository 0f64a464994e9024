"""Messages with a checked shape: a dataclass on both sides, a msgpack map between them.

    @message
    class Put:
        key: bytes
        value: bytes
        lease: int = 0

    encode(Put(b"k", b"v"))                      -> {"key": b"k", "value": b"v", "lease": 0}
    decode(Put, {"key": "k", "value": b"v"})     -> BadRequest: Put.key: expected bytes, got str

Types that a field may have: bool, int, float, str, bytes, list[X], dict[str, X], X | None, another
message, or Any. A field without a default is required. Unknown fields are ignored, so that an older
service understands a newer caller. Integers are bounded to 64 bits by msgpack itself.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable
from typing import Any, Final, TypeVar, dataclass_transform

from netstack.rpc.errors import BadRequest

T = TypeVar("T")

Check = Callable[[Any, str], Any]
"""Returns the value in its decoded form, or raises BadRequest naming the path given."""

_MISSING = object()


@dataclass_transform(frozen_default=True)
def message(cls: type[T]) -> type[T]:
    """Make `cls` a frozen dataclass that `encode` and `decode` know."""
    return dataclasses.dataclass(frozen=True, slots=True)(cls)


_PLAIN: Final = frozenset((bytes, str, int, float, bool, type(None)))


def encode(value: Any) -> Any:
    """The msgpack-able form of a message, or of anything made of messages."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is list or kind is tuple:  # most bodies are, and most of their items are plain
        return [item if type(item) in _PLAIN else encode(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    if isinstance(value, dict):
        return {key: encode(item) for key, item in value.items()}
    return value


def decode(kind: type[T], value: Any) -> T:
    """`value` as a `kind`; raises BadRequest with the path of the field that does not fit."""
    return typing.cast("T", _check_for(kind)(value, kind.__name__))


_checks: dict[Any, Check] = {}


def _check_for(kind: Any) -> Check:
    check = _checks.get(kind)
    if check is None:
        check = _checks[kind] = _build(kind)
    return check


def _build(kind: Any) -> Check:
    if kind is Any:
        return lambda value, path: value
    origin = typing.get_origin(kind)
    arguments = typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _union(arguments)
    if origin is list:
        return _list(_check_for(arguments[0]))
    if origin is dict:
        return _dict(_check_for(arguments[1]))
    if dataclasses.is_dataclass(kind):
        return _record(kind)
    if kind in (bool, int, float, str, bytes):
        return _scalar(kind)
    raise TypeError(f"a message field cannot have the type {kind!r}")


def _wrong(path: str, expected: str, value: Any) -> BadRequest:
    return BadRequest(f"{path}: expected {expected}, got {type(value).__name__}")


def _scalar(kind: type) -> Check:
    def check(value: Any, path: str) -> Any:
        # bool is an int to Python and not to anybody who reads a schema
        if type(value) is kind:
            return value
        if kind is float and type(value) is int:
            return float(value)
        raise _wrong(path, kind.__name__, value)

    return check


def _union(arguments: tuple[Any, ...]) -> Check:
    others = [kind for kind in arguments if kind is not type(None)]
    if len(others) != 1 or len(others) == len(arguments):
        raise TypeError("a union in a message is `X | None`")
    inner = _check_for(others[0])
    return lambda value, path: None if value is None else inner(value, path)


def _list(inner: Check) -> Check:
    def check(value: Any, path: str) -> Any:
        if not isinstance(value, (list, tuple)):
            raise _wrong(path, "list", value)
        return [inner(item, f"{path}[{i}]") for i, item in enumerate(value)]

    return check


def _dict(inner: Check) -> Check:
    def check(value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            raise _wrong(path, "map", value)
        for key in value:
            if not isinstance(key, str):
                raise _wrong(f"{path} key", "str", key)
        return {key: inner(item, f"{path}.{key}") for key, item in value.items()}

    return check


def _record(kind: Any) -> Check:
    hints = typing.get_type_hints(kind)
    fields = [(f.name, _check_for(hints[f.name]), _default(f)) for f in dataclasses.fields(kind)]

    def check(value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            raise _wrong(path, "map", value)
        arguments = {}
        for name, inner, default in fields:
            item = value.get(name, _MISSING)
            if item is _MISSING:
                if default is _MISSING:
                    raise BadRequest(f"{path}.{name}: missing")
                continue
            arguments[name] = inner(item, f"{path}.{name}")
        return kind(**arguments)

    return check


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory
    return _MISSING
