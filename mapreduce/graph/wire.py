"""What goes between scheduler, workers and their children: functions and values as bytes.

    graph.work      stream   session -> lists of reports; the session lasts as long as the stream
    graph.submit    inline   [session, {hash: function}, [[name, steps, inputs, keep], …]]
                             inputs: [[name, [workers that have it]], …]; keep: send the value too
    graph.release   inline   [session, [names]]
    graph.fetch     unary    [session, name, offset] -> [size, data], or None
    graph.values    unary    [session, [names]] -> {name: bytes}, those that fit

    report          ["open"], ["done", name, size, [seconds a step], value or None],
                    ["copied", name], ["failed", name, traceback, exception],
                    ["killed", name, how], ["missing", name, input, [workers]]

A step is [name, hash of its function, bytes of (args, kwargs) with references in them].
"""

from __future__ import annotations

import hashlib
import pickle
from typing import Any, Final

import cloudpickle

from mapreduce.graph.graphs import Ref, Step, Task

SERVICE: Final = "graph"

# One answer of `graph.fetch`; a message has 8 MiB.
FETCH_BYTES: Final = 4 * 1024 * 1024

# What a task's functions and arguments may have together: they go in one message.
TASK_BYTES_MAX: Final = 4 * 1024 * 1024

# Values up to this size are sent with the report to who wants them.
INLINE_BYTES: Final = 64 * 1024

# Something is said on a session's stream at least this often, and who is silent for longer than
# the other is given up: a worker that was paused, or whose machine is gone. One that was killed
# is noticed when its connection ends.
ALIVE_S: Final = 0.5
SILENCE_S: Final = 3.0


class Functions:
    """Functions as bytes, each once, by the hash of these."""

    def __init__(self) -> None:
        self.bytes: dict[str, bytes] = {}
        self._known: dict[int, tuple[Any, str]] = {}

    def __repr__(self) -> str:
        return f"<Functions {len(self.bytes)}>"

    def add(self, function: Any) -> str:
        """Its hash."""
        known = self._known.get(id(function))
        if known is not None and known[0] is function:
            return known[1]
        data = cloudpickle.dumps(function)
        digest = hashlib.sha256(data).hexdigest()[:24]
        self.bytes[digest] = data
        self._known[id(function)] = (function, digest)
        return digest


def packed_steps(task: Task, functions: Functions) -> list[list[Any]]:
    """A task's steps as they go over the wire."""
    return [
        [step.name, functions.add(step.function), dumps((step.args, step.kwargs))]
        for step in task.steps
    ]


def unpacked_step(name: str, function: Any, data: bytes) -> Step:
    """The step again."""
    args, kwargs = pickle.loads(data)
    return Step(name, function, args, kwargs)


def dumps(value: Any) -> bytes:
    """Any value. The plain pickler names classes where the other process may not find them, so it
    gets only what has none; there it is many times as fast.
    """
    if _has_no_classes(value):
        return pickle.dumps(value, protocol=5)
    data: bytes = cloudpickle.dumps(value, protocol=5)
    return data


_PLAIN: Final = frozenset((int, float, str, bytes, bool, complex, type(None), Ref))

# Longer lists are not looked through: they cost the slower pickler little.
_LOOKED_MAX: Final = 64


def _has_no_classes(value: Any) -> bool:
    kind = type(value)
    if kind in _PLAIN:
        return True
    if kind in (list, tuple):
        return len(value) <= _LOOKED_MAX and all(map(_has_no_classes, value))
    if kind is dict:
        items = (item for pair in value.items() for item in pair)
        return len(value) <= _LOOKED_MAX and all(map(_has_no_classes, items))
    return False


def loads(data: bytes) -> Any:
    """The value again."""
    return pickle.loads(data)
