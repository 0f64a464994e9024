"""Graphs as a person writes them: calls that are made later.

    @delayed
    def add(a, b): ...

    total = add(add(1, 2), 3)          a Delayed; nothing has run
    graph.compute(total)               6

The name of a call is made from what is called and with what, so the same call is the same task,
wherever it is written, and computed once.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import cloudpickle

from mapreduce.graph.graphs import Graph, Ref, Step, Task


class Delayed:
    """A value that does not exist yet: a name, and the tasks it takes."""

    __slots__ = ("_tasks", "name")

    def __init__(self, name: str, tasks: dict[str, Task]) -> None:
        self.name = name
        self._tasks = tasks

    def __repr__(self) -> str:
        return f"<Delayed {self.name} tasks={len(self._tasks)}>"

    @property
    def graph(self) -> Graph:
        """All that it takes."""
        return Graph(self._tasks)


def delayed(function: Callable[..., Any]) -> Callable[..., Delayed]:
    """The same function, to be run later and elsewhere; it must be pure."""

    @functools.wraps(function)
    def later(*args: Any, **kwargs: Any) -> Delayed:
        tasks: dict[str, Task] = {}
        plain = _plain(args, tasks)
        named = tuple(sorted((key, _plain(value, tasks)) for key, value in kwargs.items()))
        digest = hashlib.sha256(cloudpickle.dumps((function, plain, named))).hexdigest()[:16]
        name = f"{getattr(function, '__name__', 'call')}-{digest}"
        tasks[name] = Task.of(Step(name, function, plain, named))
        return Delayed(name, tasks)

    return later


def graph_of(values: Iterable[Delayed]) -> Graph:
    """One graph for several values."""
    tasks: dict[str, Task] = {}
    for value in values:
        tasks |= value._tasks
    return Graph(tasks)


def _plain(value: Any, tasks: dict[str, Task]) -> Any:
    """Arguments with a reference for each Delayed, whose tasks are collected."""
    if isinstance(value, Delayed):
        tasks |= value._tasks
        return Ref(value.name)
    if type(value) in (list, tuple):
        return type(value)(_plain(item, tasks) for item in value)
    if type(value) is dict:
        return {key: _plain(item, tasks) for key, item in value.items()}
    return value
