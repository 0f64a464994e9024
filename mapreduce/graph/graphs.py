"""What is to be computed: tasks by name, and what each needs of the others.

    Graph.of({"x": 1, "y": (add, "x", 10), "z": (sum, ["x", "y"])})         as Dask writes it
    Graph.of_delayed([delayed(add)(1, 10)])                                 as a person does

A task is a chain of steps (one, before fusion): a function and its arguments, in which a `Ref`
stands for the value of another task. Functions must be pure: a task may run more than once, and
anywhere. Names are the identity of values: the same name is the same value, computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mapreduce.graph.errors import CycleFound, UnknownTask


@dataclass(frozen=True, slots=True)
class Ref:
    """In arguments: the value of the task `name`."""

    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """In arguments: the value of a call, which is made with the task."""

    function: Callable[..., Any]
    args: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One call."""

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """Steps that run one behind the other in one place; only the last one's value leaves it.

    name: of the last step.
    inputs: names of other tasks whose values the steps need.
    """

    name: str
    steps: tuple[Step, ...]
    inputs: tuple[str, ...]

    @classmethod
    def of(cls, step: Step) -> Task:
        """A task of one step."""
        found = dict.fromkeys(ref.name for ref in refs((step.args, step.kwargs)))
        return cls(step.name, (step,), tuple(found))


class Graph:
    """Tasks by name; every input is there, and no task waits for itself."""

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        self.tasks = dict(tasks)
        for task in self.tasks.values():
            for name in task.inputs:
                if name not in self.tasks:
                    raise UnknownTask(f"{task.name} needs {name!r}, which is not in the graph")
        refuse_cycles({name: task.inputs for name, task in self.tasks.items()})

    def __repr__(self) -> str:
        return f"<Graph tasks={len(self.tasks)}>"

    @classmethod
    def of(cls, dsk: Mapping[Any, Any]) -> Graph:
        """A Dask graph: a map of keys to literals, keys, tuples that begin with a function, or
        lists of them; tasks of Dask's own classes too. Raises CycleFound, UnknownTask.
        """
        if hasattr(dsk, "__dask_graph__"):
            dsk = dsk.__dask_graph__()  # a collection's, or an expression of newer ones
        names = _names(dsk)
        tasks = {}
        for key, value in dsk.items():
            tasks[names[key]] = Task.of(_step(names[key], value, names))
        return cls(tasks)

    def culled(self, wanted: Iterable[str]) -> Graph:
        """Only what `wanted` needs; raises UnknownTask."""
        needed: dict[str, Task] = {}
        stack = list(wanted)
        while stack:
            name = stack.pop()
            if name in needed:
                continue
            if name not in self.tasks:
                raise UnknownTask(f"there is no task {name!r}")
            needed[name] = self.tasks[name]
            stack += self.tasks[name].inputs
        return Graph({name: task for name, task in self.tasks.items() if name in needed})

    def sinks(self) -> list[str]:
        """Those that nobody needs."""
        used = {name for task in self.tasks.values() for name in task.inputs}
        return [name for name in self.tasks if name not in used]


def key_name(key: Hashable) -> str:
    """The name of a Dask key: itself if it is text, else what it looks like."""
    return key if isinstance(key, str) else repr(key)


def refs(value: Any) -> Iterator[Ref]:
    """The references in arguments, however deep in lists, tuples and maps."""
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from refs(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from refs(item)
    elif isinstance(value, Call):
        yield from refs(value.args)


def filled(value: Any, values: Mapping[str, Any]) -> Any:
    """Arguments with the values in the places of their references."""
    if isinstance(value, Ref):
        return values[value.name]
    if type(value) in (list, tuple):
        return type(value)(filled(item, values) for item in value)
    if type(value) is dict:
        return {key: filled(item, values) for key, item in value.items()}
    if isinstance(value, Call):
        return value.function(*filled(value.args, values))
    return value


def run_step(step: Step, values: Mapping[str, Any]) -> Any:
    """The value of one step."""
    kwargs = {name: filled(value, values) for name, value in step.kwargs}
    return step.function(*filled(step.args, values), **kwargs)


def evaluate(graph: Graph, wanted: Sequence[str]) -> list[Any]:
    """All of it here, one task behind the other: what the rest must agree with."""
    values: dict[str, Any] = {}
    for name in in_order({name: task.inputs for name, task in graph.tasks.items()}):
        inner = {needed: values[needed] for needed in graph.tasks[name].inputs}
        for step in graph.tasks[name].steps:
            inner[step.name] = run_step(step, inner)
        values[name] = inner[name]
    return [values[name] for name in wanted]


def refuse_cycles(inputs: Mapping[str, Sequence[str]]) -> None:
    """Raises CycleFound, and shows one."""
    in_order(inputs)


def in_order(inputs: Mapping[str, Sequence[str]]) -> list[str]:
    """Names so that each comes after its inputs, depth first: what was begun is finished soon."""
    done: dict[str, None] = {}
    on_path: dict[str, None] = {}
    for root in inputs:
        stack = [(root, iter(inputs[root]))] if root not in done else []
        on_path = dict.fromkeys([root] if stack else [])
        while stack:
            name, rest = stack[-1]
            for needed in rest:
                if needed in on_path:
                    path = [*on_path]
                    circle = [*path[path.index(needed) :], needed]
                    raise CycleFound("these wait for one another: " + " → ".join(circle))
                if needed not in done:
                    stack.append((needed, iter(inputs[needed])))
                    on_path[needed] = None
                    break
            else:
                stack.pop()
                del on_path[name]
                done[name] = None
    return list(done)


# -- Dask's forms


def _names(dsk: Mapping[Any, Any]) -> dict[Any, str]:
    names: dict[Any, str] = {}
    taken: dict[str, Any] = {}
    for key in dsk:
        name = key_name(key)
        if name in taken:
            raise ValueError(f"the keys {key!r} and {taken[name]!r} look the same")
        taken[name] = key
        names[key] = name
    return names


def _step(name: str, value: Any, names: Mapping[Any, str]) -> Step:
    if hasattr(value, "dependencies") and hasattr(value, "key") and callable(value):
        # A task of Dask's: it is called with the values of its dependencies.
        inputs = {key: Ref(names.get(key, key_name(key))) for key in value.dependencies}
        return Step(name, _call_node, (value, list(inputs), list(inputs.values())))
    if _is_task(value):
        return Step(name, value[0], tuple(_argument(item, names) for item in value[1:]))
    return Step(name, _same, (_argument(value, names),))


def _is_task(value: Any) -> bool:
    return type(value) is tuple and bool(value) and callable(value[0])


def _argument(value: Any, names: Mapping[Any, str]) -> Any:
    """An argument in Dask's form: a key, a nested task, a list of them, or a literal."""
    if _is_task(value):
        # A task within a task runs as part of it.
        return Call(value[0], tuple(_argument(item, names) for item in value[1:]))
    if type(value) is list:
        return [_argument(item, names) for item in value]
    if type(value) is dict:
        return {key: _argument(item, names) for key, item in value.items()}
    try:
        if value in names:
            return Ref(names[value])
    except TypeError:
        pass  # not hashable, so no key
    return value


def _same(value: Any) -> Any:
    return value


def _call_node(node: Any, keys: list[Any], values: list[Any]) -> Any:
    return node(dict(zip(keys, values, strict=True)))
