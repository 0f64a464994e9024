"""What a correct system would answer if it did one thing after the other.

A model has an initial state and a step: `step(state, operation)` is the state after an operation
that answered as it did, or REFUSED if a correct system could not have answered so. An operation
of which nobody knows the answer (`result` is UNKNOWN) may have answered anything. States are
hashable values; `part` names what an operation touches, and parts are judged apart, because a
history is linearizable if and only if each of its objects' is (Herlihy and Wing 1990, §3.1).

    register      read -> v    write v    cas (old, new) -> done or not
    strings       put v    append v    get -> v, which is "" where nothing was put
    kv            put v -> revision    get -> (value, mod revision, version) or none    delete -> n
    set           add v    remove v    read -> all of them
    queue         enqueue v    dequeue -> v, or none if it is empty
    lock          acquire -> token, or none    release token -> done or not
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from cluster.verify.history import FAIL, OK, UNKNOWN, Operation


class _Refused:
    def __repr__(self) -> str:
        return "REFUSED"


REFUSED: Final = _Refused()

Step = Callable[[Any, Operation], Any]


@dataclass(frozen=True, slots=True)
class Model:
    """A sequential specification."""

    name: str
    initial: Any
    step: Step
    reads: frozenset[str]
    refusals: dict[str, Any]  # for what can be refused: the answer (or its first) that says so
    whole: bool = False  # one object, whatever the keys

    def idle(self, operation: Operation) -> bool:
        """Whether it changes nothing, whatever the state."""
        f, result = operation.f, operation.result
        if f in self.reads:
            return True
        if f not in self.refusals or result is UNKNOWN:
            return False
        first = result[0] if isinstance(result, tuple) else result
        return first is self.refusals[f]

    def tested(self, operations: Iterable[Operation]) -> bool:
        """Whether anybody was told of an object that somebody, before or beside, had changed.

        Args:
            operations: of one object, in the order of their calls.
        """
        changed: Operation | None = None
        for operation in operations:
            looked = operation.outcome == OK and (
                operation.f in self.reads or operation.f in self.refusals
            )
            if changed is not None and looked:
                return True
            if changed is None and operation.outcome != FAIL and not self.idle(operation):
                changed = operation
        return False

    def part(self, operation: Operation) -> Any:
        """The object that an operation touches."""
        return None if self.whole else operation.key


def _register(state: Any, op: Operation) -> Any:
    if op.f == "read":
        return state if op.result == state else REFUSED
    if op.f == "write":
        return op.value
    if op.f == "cas":
        old, new = op.value
        if op.result is UNKNOWN:
            return new if state == old else state
        if op.result is False:
            return state if state != old else REFUSED
        return new if state == old else REFUSED
    raise ValueError(f"a register knows read, write and cas, not {op.f!r}")


def _strings(state: str, op: Operation) -> Any:
    if op.f == "get":
        return state if (op.result or "") == state else REFUSED
    if op.f == "put":
        return op.value
    if op.f == "append":
        return state + op.value
    raise ValueError(f"a string knows get, put and append, not {op.f!r}")


@dataclass(frozen=True, slots=True)
class _Pair:
    """A key's value. `mod` is the revision of the last change, or less if nobody was told."""

    value: Any
    mod: int
    version: int  # 0: there is none
    told: bool = True


def _kv(state: _Pair, op: Operation) -> Any:
    unknown = op.result is UNKNOWN
    if op.f == "get":
        return _read_pair(state, op.result)
    if op.f == "put":
        return _changed(state, op.value, state.version + 1, None if unknown else op.result)
    if op.f == "delete":
        if unknown:
            return _changed(state, None, 0, None) if state.version else state
        deleted, revision = op.result
        if deleted != (state.version > 0):
            return REFUSED
        return _changed(state, None, 0, revision) if deleted else state
    if op.f == "cas":
        old, new = op.value
        holds = (state.value if state.version else None) == old
        if unknown:
            return _changed(state, new, state.version + 1, None) if holds else state
        done, revision = op.result
        if done != holds:
            return REFUSED
        return _changed(state, new, state.version + 1, revision) if done else state
    raise ValueError(f"a key knows get, put, delete and cas, not {op.f!r}")


def _changed(state: _Pair, value: Any, version: int, revision: int | None) -> Any:
    if revision is None:
        return _Pair(value, state.mod, version, told=False)
    return _Pair(value, revision, version) if revision > state.mod else REFUSED


def _read_pair(state: _Pair, result: Any) -> Any:
    if result is None:
        return state if not state.version else REFUSED
    value, mod, version = result
    if (value, version) != (state.value, state.version) or not state.version:
        return REFUSED
    if state.told:
        return state if mod == state.mod else REFUSED
    return _Pair(value, mod, version) if mod > state.mod else REFUSED


def _set(state: frozenset[Any], op: Operation) -> Any:
    if op.f == "add":
        return state | {op.value}
    if op.f == "remove":
        return state - {op.value}
    if op.f == "read":
        return state if state == frozenset(op.result) else REFUSED
    raise ValueError(f"a set knows add, remove and read, not {op.f!r}")


def _queue(state: tuple[Any, ...], op: Operation) -> Any:
    if op.f == "enqueue":
        return (*state, op.value)
    if op.f == "dequeue":
        if op.result is UNKNOWN:
            return state[1:]
        if op.result is None:
            return state if not state else REFUSED
        return state[1:] if state and state[0] == op.result else REFUSED
    raise ValueError(f"a queue knows enqueue and dequeue, not {op.f!r}")


def _lock(state: tuple[Any, int], op: Operation) -> Any:
    """`state`: the token of who holds it, or None, and the largest token that was ever given."""
    holder, last = state
    if op.f == "acquire":
        if op.result is UNKNOWN:
            return (UNKNOWN, last) if holder is None else state
        if op.result is None:
            return state if holder is not None else REFUSED
        return (op.result, op.result) if holder is None and op.result > last else REFUSED
    if op.f == "release":
        held = holder == op.value or (holder is UNKNOWN and op.value > last)
        if op.result is UNKNOWN:
            return (None, max(last, op.value)) if held else state
        if bool(op.result) != held:
            return REFUSED
        return (None, max(last, op.value)) if held else state
    raise ValueError(f"a lock knows acquire and release, not {op.f!r}")


MODELS: Final[dict[str, Model]] = {
    model.name: model
    for model in (
        Model("register", None, _register, frozenset({"read"}), {"cas": False}),
        Model("strings", "", _strings, frozenset({"get"}), {}),
        Model("kv", _Pair(None, 0, 0), _kv, frozenset({"get"}), {"cas": False, "delete": False}),
        Model("set", frozenset(), _set, frozenset({"read"}), {}),
        Model("queue", (), _queue, frozenset(), {"dequeue": None}),
        Model("lock", (None, 0), _lock, frozenset(), {"acquire": None, "release": False}),
    )
}
