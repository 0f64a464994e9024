"""What clients ask the store to do: the wire form, the limits, and errors that name the field.

    command     [session, sequence, done, retry, base, op]
    op          [PUT, key, value, lease, prev]            prev: answer with the previous pair
                [DELETE, key, range_end, prev]
                [TXN, compares, then, else]               RANGE, PUT, DELETE, TXN in each
                [COMPACT, revision]
                [LEASE_GRANT, id, ttl_s]
                [LEASE_REVOKE, id]
    compare     [target, operator, key, operand]          target: version, create, mod, value, lease
    RANGE       [RANGE, key, range_end, revision, limit, keys_only, count_only]

A range is [key, range_end): an empty range_end is the key alone, b"\\0" is everything from the
key on. A session is 16 random bytes of the client; (session, sequence) names a request for ever,
so a retried one is applied once; `done` is the sequence below which the client waits for nothing,
`base` an index that was applied before the session began (see sessions.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack

PUT, DELETE, TXN, COMPACT, LEASE_GRANT, LEASE_REVOKE, RANGE = range(7)

KEY_BYTES_MAX: Final = 4096
VALUE_BYTES_MAX: Final = 1024 * 1024
ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024  # keys and values in one answer
COMMAND_BYTES_MAX: Final = 2 * 1024 * 1024  # a transaction whole; etcd's is 1.5 MiB
TXN_OPS_MAX: Final = 128  # etcd's limit
TXN_OPS_TOTAL: Final = 512  # with nested ones, which are compared with each other
TXN_DEPTH_MAX: Final = 4
TTL_S_MAX: Final = 9_000_000_000  # etcd's
SESSION_BYTES: Final = 16

TARGETS: Final = ("version", "create", "mod", "value", "lease")
OPERATORS: Final = ("=", "!=", "<", ">")

EVERYTHING: Final = b"\0"


class BadCommand(ValueError):
    """A command that cannot be taken; the text names the field and the limit."""


def prefix_end(prefix: bytes) -> bytes:
    """The range_end that makes [prefix, range_end) all keys that begin with `prefix`."""
    stripped = prefix.rstrip(b"\xff")
    if not stripped:
        return EVERYTHING
    return stripped[:-1] + bytes([stripped[-1] + 1])


def in_range(key: bytes, begin: bytes, end: bytes) -> bool:
    """Whether `key` lies in [begin, end); see above for an empty `end` and for EVERYTHING."""
    if not end:
        return key == begin
    return key >= begin and (end == EVERYTHING or key < end)


def pack_command(
    session: bytes, sequence: int, done: int, *, retry: bool, base: int, op: Sequence[Any]
) -> bytes:
    """A command as it goes into the log."""
    packed: bytes = msgpack.packb([session, sequence, done, retry, base, op])
    return packed


def unpack_command(data: bytes) -> list[Any]:
    """The fields of a command that was checked before it was proposed."""
    fields: list[Any] = msgpack.unpackb(data)
    return fields


def check_command(data: Any) -> tuple[tuple[bytes, int], bool]:
    """Refuse what must not enter the log; raises BadCommand.

    Returns whose request it is, (session, sequence), and whether it is asked again.
    """
    if type(data) is not bytes:
        raise BadCommand("a command is bytes")
    if len(data) > COMMAND_BYTES_MAX:
        raise BadCommand(f"{len(data)} bytes are over the limit of {COMMAND_BYTES_MAX} a command")
    try:
        session, sequence, done, retry, base, op = msgpack.unpackb(data)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise BadCommand(f"not a command: {error}") from None
    if type(session) is not bytes or len(session) != SESSION_BYTES:
        raise BadCommand(f"session: expected {SESSION_BYTES} bytes")
    for name, value in (("sequence", sequence), ("done", done), ("base", base)):
        if type(value) is not int or not 0 <= value < 2**63:
            raise BadCommand(f"{name}: expected a number of 0 or more, got {value!r}")
    if type(retry) is not bool:
        raise BadCommand(f"retry: expected bool, got {retry!r}")
    check_op(op)
    return (session, sequence), retry


def check_op(op: Any) -> None:
    """Refuse an operation that makes no sense; raises BadCommand."""
    if not isinstance(op, list) or not op or type(op[0]) is not int:
        raise BadCommand("op: expected a list that begins with a number")
    checker = _CHECKS.get(op[0])
    if checker is None:
        raise BadCommand(f"op: there is no operation {op[0]}")
    try:
        checker(*op[1:])
    except TypeError:
        raise BadCommand(f"op: operation {op[0]} has other fields than {len(op) - 1}") from None


def check_key(key: Any, name: str = "key") -> None:
    """Raises BadCommand unless `key` can be one."""
    if type(key) is not bytes:
        raise BadCommand(f"{name}: expected bytes, got {type(key).__name__}")
    if not key:
        raise BadCommand(f"{name}: a key has at least one byte")
    if len(key) > KEY_BYTES_MAX:
        raise BadCommand(f"{name}: {len(key)} bytes are over the limit of {KEY_BYTES_MAX}")


def _check_int(value: Any, name: str, most: int = 2**63 - 1) -> None:
    if type(value) is not int or not 0 <= value <= most:
        raise BadCommand(f"{name}: expected a number from 0 to {most}, got {value!r}")


def _check_bool(value: Any, name: str) -> None:
    if type(value) is not bool:
        raise BadCommand(f"{name}: expected bool, got {value!r}")


def _check_end(range_end: Any) -> None:
    if type(range_end) is not bytes or len(range_end) > KEY_BYTES_MAX:
        raise BadCommand(f"range_end: expected at most {KEY_BYTES_MAX} bytes")


def _put(key: Any, value: Any, lease: Any, prev: Any) -> None:
    check_key(key)
    if type(value) is not bytes:
        raise BadCommand(f"value: expected bytes, got {type(value).__name__}")
    if len(value) > VALUE_BYTES_MAX:
        raise BadCommand(f"value: {len(value)} bytes are over the limit of {VALUE_BYTES_MAX}")
    _check_int(lease, "lease")
    _check_bool(prev, "prev")


def _delete(key: Any, range_end: Any, prev: Any) -> None:
    check_key(key)
    _check_end(range_end)
    _check_bool(prev, "prev")


def _range(
    key: Any, range_end: Any, revision: Any, limit: Any, keys_only: Any, count_only: Any
) -> None:
    check_key(key)
    _check_end(range_end)
    _check_int(revision, "revision")
    _check_int(limit, "limit")
    _check_bool(keys_only, "keys_only")
    _check_bool(count_only, "count_only")


def _txn(compares: Any, then: Any, otherwise: Any) -> None:
    _check_txn(compares, then, otherwise, 1)


@dataclass(slots=True)
class _Writes:
    """What a part of a transaction may write, and how many operations it has."""

    puts: set[bytes] = field(default_factory=set)
    deletes: list[tuple[bytes, bytes]] = field(default_factory=list)
    operations: int = 0

    def add(self, more: _Writes) -> None:
        """Join in what comes beside it; raises BadCommand if both would write a key."""
        for key in more.puts:
            if key in self.puts:
                raise BadCommand(f"txn: key {key!r} is put twice")
        for puts, deletes in ((self.puts, more.deletes), (more.puts, self.deletes)):
            for begin, end in deletes:
                for key in puts:
                    if in_range(key, begin, end):
                        raise BadCommand(f"txn: key {key!r} is put and deleted")
        self.beside(more)

    def beside(self, other: _Writes) -> None:
        """Join in the other branch, which never runs together with this one."""
        self.puts.update(other.puts)
        self.deletes.extend(other.deletes)
        self.operations += other.operations
        if self.operations > TXN_OPS_TOTAL:
            raise BadCommand(f"txn: more than {TXN_OPS_TOTAL} operations, nested ones included")


def _check_txn(compares: Any, then: Any, otherwise: Any, depth: int) -> _Writes:
    """What either branch may write. All of it shares a revision, so a key is written once."""
    if depth > TXN_DEPTH_MAX:
        raise BadCommand(f"txn: nested deeper than {TXN_DEPTH_MAX}")
    for name, items in (("compares", compares), ("then", then), ("else", otherwise)):
        if not isinstance(items, list):
            raise BadCommand(f"txn.{name}: expected a list")
        if len(items) > TXN_OPS_MAX:
            raise BadCommand(f"txn.{name}: {len(items)} are over the limit of {TXN_OPS_MAX}")
    for compare in compares:
        _check_compare(compare)
    either = _Writes()
    for branch in (then, otherwise):
        writes = _Writes()
        for op in branch:
            writes.add(_check_txn_op(op, depth))
        either.beside(writes)
    return either


def _check_compare(compare: Any) -> None:
    if not isinstance(compare, list) or len(compare) != 4:
        raise BadCommand("txn.compares: expected [target, operator, key, operand]")
    target, operator, key, operand = compare
    if target not in TARGETS:
        raise BadCommand(f"txn.compares: target {target!r} is not one of {', '.join(TARGETS)}")
    if operator not in OPERATORS:
        raise BadCommand(f"txn.compares: operator {operator!r} is not one of {OPERATORS}")
    check_key(key, "txn.compares.key")
    wanted = bytes if target == "value" else int
    if type(operand) is not wanted:
        raise BadCommand(f"txn.compares: {target} is compared with {wanted.__name__}")


def _check_txn_op(op: Any, depth: int) -> _Writes:
    allowed = (RANGE, PUT, DELETE, TXN)
    if not isinstance(op, list) or not op or type(op[0]) is not int or op[0] not in allowed:
        raise BadCommand("txn: only range, put, delete and txn may stand in a transaction")
    if op[0] == TXN:
        if len(op) != 4:
            raise BadCommand("txn: a nested one has compares, then and else")
        return _check_txn(op[1], op[2], op[3], depth + 1)
    check_op(op)
    if op[0] == PUT:
        return _Writes({op[1]}, [], 1)
    return _Writes(set(), [(op[1], op[2])] if op[0] == DELETE else [], 1)


def _compact(revision: Any) -> None:
    _check_int(revision, "revision")


def _lease_grant(lease_id: Any, ttl_s: Any) -> None:
    _check_int(lease_id, "lease id")
    _check_int(ttl_s, "ttl", TTL_S_MAX)
    if lease_id == 0 or ttl_s == 0:
        raise BadCommand("lease: id and ttl are 1 or more")


def _lease_revoke(lease_id: Any) -> None:
    _check_int(lease_id, "lease id")


_CHECKS: Final[dict[int, Any]] = {
    PUT: _put,
    DELETE: _delete,
    TXN: _txn,
    COMPACT: _compact,
    LEASE_GRANT: _lease_grant,
    LEASE_REVOKE: _lease_revoke,
    RANGE: _range,
}
