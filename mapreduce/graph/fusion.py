"""Fusion: a chain of tasks, each the only one to need the one before, becomes one task.

    a ──► b ──► c        c (a, b, c)         one message, one process, no value in between

Saved are the messages and the store of the values between. Lost is the possibility to begin again
in the middle: the chain runs again as one. A value that somebody asked for stays a task of its
own, whatever stands around it.
"""

from __future__ import annotations

from collections.abc import Collection

from mapreduce.graph.graphs import Graph, Task, in_order

# A chain that is lost is run again whole: this bounds how much that is.
STEPS_MAX = 64


def fuse(graph: Graph, wanted: Collection[str]) -> Graph:
    """The same values under the names in `wanted`, with linear chains as single tasks."""
    needed_by: dict[str, list[str]] = {name: [] for name in graph.tasks}
    for task in graph.tasks.values():
        for name in task.inputs:
            needed_by[name].append(task.name)
    tasks: dict[str, Task] = {}
    swallowed: set[str] = set()
    # From the ends backwards, so that a chain that becomes too long is cut once and in one place.
    for name in reversed(in_order({name: task.inputs for name, task in graph.tasks.items()})):
        if name in swallowed:
            continue
        steps, inputs = graph.tasks[name].steps, graph.tasks[name].inputs
        while len(inputs) == 1:
            before = graph.tasks[inputs[0]]
            alone = len(needed_by[before.name]) == 1
            fits = len(before.steps) + len(steps) <= STEPS_MAX
            if before.name in wanted or not alone or not fits:
                break
            steps, inputs = before.steps + steps, before.inputs
            swallowed.add(before.name)
        tasks[name] = Task(name, steps, inputs)
    return Graph({name: tasks[name] for name in graph.tasks if name in tasks})
