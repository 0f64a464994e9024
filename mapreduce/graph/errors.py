"""How a graph says no.

GraphError
├── CycleFound       the tasks wait for one another in a circle; the message shows it
├── UnknownTask      a task or a caller names one that is not in the graph
├── TaskFailed       a function raised; its traceback is in the message, its exception the cause
├── TaskKilled       a function took its process down again and again: signal, task, last words
└── NoWorkers        nobody is there to compute

InvalidTransition    a bug of the scheduler's, told with the story of the task
"""

from __future__ import annotations


class GraphError(Exception):
    """Base of what a caller may meet."""


class CycleFound(GraphError, ValueError):
    """There is no order in which the tasks could run."""


class UnknownTask(GraphError, KeyError):
    """No task has that name."""

    def __str__(self) -> str:
        return str(self.args[0])


class TaskFailed(GraphError):
    """The function of a task raised."""


class TaskKilled(TaskFailed):
    """The process that ran a task died of it."""


class NoWorkers(GraphError):
    """No worker was reached in time."""


class InvalidTransition(AssertionError):
    """A task cannot go from one state to the other; the text tells how it came there."""
