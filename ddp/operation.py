"""One collective of one rank: its slices on their way through the schedule, and who has said what.

Long vectors go through the schedule in slices, a few at a time, so that one slice is being added
while another travels, and no more than a few have to be held anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ddp.call import Call
from ddp.elements import Array, divide
from ddp.errors import DdpError
from ddp.execution import Execution, Piece
from ddp.frames import Frame
from ddp.recorder import Record
from ddp.schedules.schedule import Schedule

# A slice fits into a processor's cache on both sides of an addition, and is large beside the cost
# of a message. Only an allreduce and its kin are cut: of the others, chunks have meaning to the
# caller.
SLICE_BYTES: Final = 4 * 1024 * 1024
SLICED: Final = frozenset({"allreduce", "broadcast", "reduce"})

SLICES_ACTIVE: Final = 4


class Operation:
    """See above."""

    def __init__(
        self,
        sequence: int,
        call: Call,
        schedule: Schedule,
        vector: Array,
        record: Record,
        rank: int,
        deadline: float,
    ) -> None:
        self.sequence, self.call, self.schedule = sequence, call, schedule
        self.vector, self.record, self.deadline = vector, record, deadline
        self.announced: set[int] = set()
        self.told: set[int] = set()  # ranks to whom a piece has left
        self.held: dict[int, list[Frame]] = {}  # for ranks that have not begun
        self.statuses: dict[int, tuple[int, bool]] = {}  # rank -> (whom it holds for dead, done)
        self.part_done = False
        self.error: DdpError | None = None
        self.ended = False
        self.on_end: Callable[[Operation], None] | None = None
        self.running: dict[int, Execution] = {}
        self._early: dict[int, list[tuple[int, Frame]]] = {}
        self._cuts = self._cut()
        self._next = 0
        self._rank = rank

    def __repr__(self) -> str:
        state = "ended" if self.ended else "done here" if self.part_done else "open"
        return f"<Operation #{self.sequence} {self.call} {state}>"

    def _cut(self) -> list[tuple[int, int]]:
        length = len(self.vector)
        if self.call.kind not in SLICED or self.vector.nbytes <= SLICE_BYTES:
            return [(0, length)]
        step = SLICE_BYTES // self.vector.itemsize
        return [(at, min(at + step, length)) for at in range(0, length, step)]

    def start_slice(self) -> bool:
        """Begin the next slice, if there is one and few are under way."""
        if self._next < len(self._cuts) and len(self.running) < SLICES_ACTIVE:
            number, (start, stop) = self._next, self._cuts[self._next]
            self._next += 1
            execution = Execution(self.schedule, self._rank, self.vector[start:stop], self.call)
            self.running[number] = execution
            execution.begin()
            for src, frame in self._early.pop(number, ()):
                execution.receive(src, frame.round, frame.lo, frame.offset, frame.payload)
            return True
        return False

    def receive(self, src: int, frame: Frame) -> bool:
        """A piece; returns whether there is something to `collect` now. Raises Corrupted."""
        execution = self.running.get(frame.slice)
        if execution is None:
            if frame.slice >= self._next:
                self._early.setdefault(frame.slice, []).append((src, frame))
            return False
        execution.receive(src, frame.round, frame.lo, frame.offset, frame.payload)
        return execution.done or bool(execution.outbox)

    def collect(self) -> list[tuple[int, Piece]]:
        """(slice, piece) of all that the slices want to send."""
        found = []
        for number, execution in list(self.running.items()):
            found += [(number, piece) for piece in execution.outbox]
            execution.outbox.clear()
            self.record.rounds = max(self.record.rounds, execution.rounds)
            self.record.fan_in = max(self.record.fan_in, execution.fan_in)
            if execution.done:
                del self.running[number]
        return found

    @property
    def complete(self) -> bool:
        """Whether all slices are through."""
        return not self.running and self._next == len(self._cuts)

    def finish(self) -> None:
        """The last step of a mean."""
        if self.call.op == "mean" and self.call.kind in ("allreduce", "reduce", "reduce-scatter"):
            divide(self.call.dtype, self.vector, len(self.schedule.contributors))

    def waits_for(self, rank: int) -> bool:
        """Whether data of `rank` is still to come, for any slice."""
        if any(execution.waits_for(rank) for execution in self.running.values()):
            return True
        if self._next == len(self._cuts):
            return False
        program = self.schedule.program(self._rank)
        return any(t.src == rank for turn in program for t in turn.receives)
