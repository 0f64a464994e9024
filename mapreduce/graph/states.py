"""Where a task can be, and what is remembered of it.

RELEASED   nobody needs its value now, and nobody has it
WAITING    needed, and some of its inputs are nowhere
READY      needed, all of its inputs are in some worker's memory; waits for room at a worker
RUNNING    a worker has it
MEMORY     its value is in the memory of at least one worker
ERRED      it failed, or one of its inputs did

state      holders   waiting_for   runs_on    in the scheduler's heap
RELEASED   none      none          -          no
WAITING    none      some          -          no
READY      none      none          -          yes
RUNNING    none      none          a worker   no
MEMORY     some      none          -          no
ERRED      none      none          -          no
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

RELEASED: Final = "released"
WAITING: Final = "waiting"
READY: Final = "ready"
RUNNING: Final = "running"
MEMORY: Final = "memory"
ERRED: Final = "erred"

STATES: Final = (RELEASED, WAITING, READY, RUNNING, MEMORY, ERRED)

ALLOWED: Final[frozenset[tuple[str, str]]] = frozenset(
    (
        (RELEASED, WAITING),  # somebody needs it
        (WAITING, READY),  # the last of its inputs arrived
        (READY, WAITING),  # one of its inputs was lost
        (READY, RUNNING),  # there was room
        (RUNNING, MEMORY),  # it is done
        (RUNNING, WAITING),  # its worker is gone, or could not get an input
        (MEMORY, RELEASED),  # nobody needs it any more, or all who had it are gone
        (RUNNING, ERRED),
        (WAITING, ERRED),  # one of its inputs failed
        (READY, ERRED),
        (WAITING, RELEASED),  # nobody needs it any more
        (READY, RELEASED),
        (RUNNING, RELEASED),
    )
)


@dataclass(slots=True)
class TaskState:
    """One task as the scheduler sees it.

    priority: its place in a depth-first order of the graph; the smaller runs first.
    needed_by: tasks that have it as input.
    waiting_for: inputs that are in nobody's memory.
    pending: of `needed_by`, those that are WAITING, READY or RUNNING: they will want the value.
    holders: workers that have the value.
    runs: how often it was finished.
    deaths: how often the process that ran it died.
    """

    name: str
    inputs: tuple[str, ...]
    priority: int
    state: str = RELEASED
    wanted: bool = False
    needed_by: list[str] = field(default_factory=list)
    waiting_for: set[str] = field(default_factory=set)
    pending: set[str] = field(default_factory=set)
    holders: set[str] = field(default_factory=set)
    runs_on: str | None = None
    size: int = 0
    runs: int = 0
    deaths: int = 0
    error: str = ""

    def __repr__(self) -> str:
        where = f" on {self.runs_on}" if self.runs_on else ""
        return f"<Task {self.name} {self.state}{where} runs={self.runs}>"


@dataclass(slots=True)
class WorkerState:
    """One worker.

    slots: how many tasks it is given before it has finished one.
    """

    name: str
    slots: int
    running: set[str] = field(default_factory=set)
    holds: set[str] = field(default_factory=set)

    @property
    def has_room(self) -> bool:
        """Whether it can be given one more."""
        return len(self.running) < self.slots


# -- what the scheduler wants done


@dataclass(frozen=True, slots=True)
class Run:
    """Have `worker` run the task; `holders` says where its inputs are."""

    worker: str
    task: str
    holders: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Release:
    """The worker may forget the value."""

    worker: str
    task: str


@dataclass(frozen=True, slots=True)
class Ready:
    """A wanted value is in the memory of these workers."""

    task: str
    holders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """A wanted value will never be: the task `because` failed."""

    task: str
    because: str
    error: str
    killed: bool


Instruction = Run | Release | Ready | Failed
