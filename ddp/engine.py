"""One rank of a group, without I/O: calls go in, frames come and go, outcomes come out.

    operation = engine.start(call, vector, now, timeout_s)
    for dst, frame in engine.take_outputs(): …send…          engine.sent(bytes) once they have left
    engine.receive(src, frame, now)
    engine.lost(rank, why, now)                              it died, or its link did
    engine.expire(now)                                       what has waited too long

Every call is announced to all ranks, by its first piece or, to whom none leaves at once, by a
frame of its own; and it ends only when all have announced the same one. So a mismatch is seen
whatever the schedules of the two calls are, who is late is known by name, and a piece larger than
EAGER_BYTES leaves only for a rank that has begun.

**One outcome.** A rank whose part is done says so to all (STATUS), and so does one whose part can
never be: it lacks something of a rank that is dead. A call ends well for a rank once all ranks
that it does not hold for dead have said "done", *to the same set of dead ranks*; with one
"failed" it fails for all. When another rank dies the living say it again, to the larger set.
"Failed" is never taken back, and nothing is heard of a rank once it is held for dead. So if one
rank returned the sum, every survivor had said "done", and returns it too; no rank returns it when
another survivor cannot. (It is flooding consensus; it needs what the fabric gives: a rank that is
reported dead is dead, or is fenced off.)

After any failure the group is over: what is open and what is called later fails, and a new group of
the next epoch takes over.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Final

from ddp.call import Call
from ddp.elements import Array
from ddp.errors import (
    BadCall,
    Corrupted,
    DdpError,
    Fenced,
    GroupClosed,
    Mismatch,
    RankLate,
    RankLost,
    from_wire,
    to_wire,
)
from ddp.frames import NO_CALL, RANKS_MAX, Frame, Type
from ddp.messages import Mailbox
from ddp.operation import Operation
from ddp.recorder import Record, Recorder, ranks
from ddp.schedules.catalogue import schedule_of
from ddp.schedules.schedule import Schedule

# A piece up to this size is sent before its receiver has begun the call: one wait less for small
# vectors, and little to hold for those who are late.
EAGER_BYTES: Final = 64 * 1024

# Calls open at a time, and how many a rank may be ahead of another.
OPERATIONS_MAX: Final = 64

# Bytes that wait to leave before further slices begin.
BACKLOG_BYTES: Final = 8 * 1024 * 1024

# Ended calls about which a rank can still be asked, after a death.
REMEMBERED: Final = 2 * OPERATIONS_MAX


class Engine:
    """See above."""

    def __init__(self, rank: int, size: int, epoch: int) -> None:
        if not 1 <= size <= RANKS_MAX or not 0 <= rank < size:
            raise BadCall(f"rank {rank} of {size}: a group has 1 to {RANKS_MAX} ranks")
        self.rank, self.size, self.epoch = rank, size, epoch
        self.recorder = Recorder(rank, size, epoch)
        self.counters: Counter[str] = Counter()
        self.dead = 0  # as bits
        self.broken: DdpError | None = None
        self.open: dict[int, Operation] = {}
        self.messages = Mailbox(self)
        self._past: deque[tuple[int, DdpError | None]] = deque(maxlen=REMEMBERED)
        self._ahead: dict[int, list[tuple[int, Frame]]] = {}  # calls that were not made here yet
        self._next_sequence = 0
        self._backlog = 0
        self._outputs: list[tuple[int, Frame]] = []

    def __repr__(self) -> str:
        state = f"broken: {self.broken}" if self.broken else f"open={len(self.open)}"
        return f"<Engine rank={self.rank}/{self.size} epoch={self.epoch} {state}>"

    @property
    def others(self) -> list[int]:
        """The other ranks that are not held for dead."""
        return [r for r in range(self.size) if r != self.rank and not self.dead >> r & 1]

    # -- what the group's owner calls

    def start(
        self,
        call: Call,
        vector: Array,
        now: float,
        timeout_s: float,
        schedule: Schedule | None = None,
    ) -> Operation:
        """Begin a call on `vector`, which becomes its result. Raises BadCall, or why it is over."""
        if self.broken is not None:
            raise self.broken
        if len(self.open) >= OPERATIONS_MAX:
            raise BadCall(f"{OPERATIONS_MAX} calls are open: wait for one of them")
        if schedule is None:
            schedule = schedule_of(call.kind, call.algorithm, self.size, call.root)
        sequence, self._next_sequence = self._next_sequence, self._next_sequence + 1
        record = Record(sequence, str(call), now)
        self.recorder.records.append(record)
        operation = Operation(sequence, call, schedule, vector, record, self.rank, now + timeout_s)
        self.open[sequence] = operation
        try:
            for src, frame in self._ahead.pop(sequence, ()):
                self._of_call(operation, src, frame, now)
        except DdpError as error:
            self._break(error, now)
        self._pump(operation, now)
        for other in self.others:
            if other not in operation.told:
                self._outputs.append((other, self._frame(Type.ANNOUNCE, operation)))
        return operation

    def receive(self, src: int, frame: Frame, now: float) -> None:
        """A frame of rank `src`."""
        if self.dead >> src & 1:
            self.counters["of_the_dead"] += 1
            return
        if frame.type is Type.FENCED or frame.epoch > self.epoch:
            self._break(Fenced(f"epoch {self.epoch} is over, epoch {frame.epoch} has begun"), now)
            return
        if frame.epoch < self.epoch:
            self.counters["stale"] += 1
            self._outputs.append((src, Frame(Type.FENCED, self.epoch, 0, NO_CALL)))
            return
        try:
            if frame.type in (Type.SEND, Type.TAKEN):
                self.messages.receive(src, frame, now)
                return
            operation = self.open.get(frame.sequence)
            if operation is not None:
                self._of_call(operation, src, frame, now)
            elif frame.sequence >= self._next_sequence:
                self._not_yet(src, frame, now)
        except DdpError as error:
            self._break(error, now)

    def lost(self, rank: int, why: str, now: float) -> None:
        """Rank `rank` is dead: nothing that comes from it counts from here on."""
        if self.dead >> rank & 1 or rank == self.rank:
            return
        self.dead |= 1 << rank
        error = RankLost(f"rank {rank} is gone: {why}")
        self._stop(error)
        self.messages.lost(rank, error)
        for sequence, outcome in self._past:
            self._say(sequence, NO_CALL, outcome)
        for operation in list(self.open.values()):
            if operation.error is None and not operation.part_done and operation.waits_for(rank):
                operation.error = error
            if operation.error is not None or operation.part_done:
                self._say(operation.sequence, operation.call, operation.error)
            self._decide(operation, now)

    def expire(self, now: float) -> None:
        """Fail what is past its deadline, naming who is late."""
        for operation in list(self.open.values()):
            if operation.deadline <= now:
                operation.error = error = self._late(operation, now)
                self._say(operation.sequence, operation.call, error)
                self._decide(operation, now)
                self._break(error, now)
                return
        self.messages.expire(now)

    def close(self, error: DdpError | None, now: float) -> None:
        """End the group on this side; the others are told."""
        self._break(error or GroupClosed("the group was closed here"), now)

    def take_outputs(self) -> list[tuple[int, Frame]]:
        """(destination, frame), to be sent in this order."""
        outputs, self._outputs = self._outputs, []
        for _, frame in outputs:
            self._backlog += len(frame.payload)
        return outputs

    def sent(self, nbytes: int, now: float) -> None:
        """So many bytes of payload have left: there may be room for further slices."""
        before, self._backlog = self._backlog, self._backlog - nbytes
        if before > BACKLOG_BYTES >= self._backlog:
            for operation in list(self.open.values()):
                self._pump(operation, now)

    def emit(self, dst: int, frame: Frame) -> None:
        """Queue a frame (of a message)."""
        self._outputs.append((dst, frame))

    def fail(self, error: DdpError, now: float) -> None:
        """The group is over, for this reason."""
        self._break(error, now)

    # -- frames of calls

    def _not_yet(self, src: int, frame: Frame, now: float) -> None:
        """A call that this rank has not made yet; if it has failed, none will be made."""
        if frame.sequence >= self._next_sequence + OPERATIONS_MAX:
            raise Corrupted(f"rank {src} is {OPERATIONS_MAX} calls ahead")
        if frame.type is Type.STATUS:
            self._gossip(src, frame, now)
            if not frame.lo:
                self._stop(from_wire(frame.payload))
                return
        self._ahead.setdefault(frame.sequence, []).append((src, frame))

    def _of_call(self, operation: Operation, src: int, frame: Frame, now: float) -> None:
        if self.dead >> src & 1:
            return
        if frame.type is Type.STATUS:
            self._status(operation, src, frame, now)
            return
        if frame.call != operation.call:
            raise Mismatch(
                f"call #{operation.sequence}: rank {self.rank} called {operation.call}, "
                f"rank {src} called {frame.call}"
            )
        if src not in operation.announced:
            operation.announced.add(src)
            operation.record.arrived[src] = now
            for held in operation.held.pop(src, ()):
                self._outputs.append((src, held))
            self._decide(operation, now)
        if frame.type is Type.DATA and not operation.ended:
            self.counters["received_bytes"] += len(frame.payload)
            if operation.receive(src, frame):
                self._pump(operation, now)

    def _status(self, operation: Operation, src: int, frame: Frame, now: float) -> None:
        self._gossip(src, frame, now)
        done = bool(frame.lo)
        if not done and operation.error is None:
            operation.error = from_wire(frame.payload)
            self._say(operation.sequence, operation.call, operation.error)
        if done:
            operation.record.done.setdefault(src, now)
        operation.statuses[src] = (frame.dead, done)
        self._decide(operation, now)

    def _gossip(self, src: int, frame: Frame, now: float) -> None:
        """Whom another holds for dead is dead for us too, or the two would never agree."""
        if frame.dead >> self.rank & 1:
            raise Fenced(f"rank {src} holds this rank for dead")
        for rank in range(self.size):
            if frame.dead >> rank & 1:
                self.lost(rank, f"rank {src} says so", now)

    # -- progress

    def _pump(self, operation: Operation, now: float) -> None:
        """Send what the slices have to send; begin others; notice that all are through."""
        try:
            self._advance(operation, now)
        except DdpError as error:
            self._break(error, now)

    def _advance(self, operation: Operation, now: float) -> None:
        if operation.ended or operation.part_done or operation.error is not None:
            return
        while True:
            for number, piece in operation.collect():
                frame = Frame(
                    Type.DATA, self.epoch, operation.sequence, operation.call,
                    number, piece.round, piece.lo, piece.offset, 0, piece.data,
                )  # fmt: skip
                operation.record.sent += len(piece.data)
                self._send(operation, piece.dst, frame)
            if self._waiting() > BACKLOG_BYTES or not operation.start_slice():
                break
        if operation.complete:
            operation.finish()
            operation.part_done = True
            self._say(operation.sequence, operation.call, None)
            self._decide(operation, now)

    def _waiting(self) -> int:
        return self._backlog + sum(len(frame.payload) for _, frame in self._outputs)

    def _send(self, operation: Operation, dst: int, frame: Frame) -> None:
        if self.dead >> dst & 1:
            return
        held = operation.held.get(dst)
        if dst in operation.announced or (not held and len(frame.payload) <= EAGER_BYTES):
            self._outputs.append((dst, frame))
            operation.told.add(dst)
        else:
            operation.held.setdefault(dst, []).append(frame)  # in their order

    def _frame(self, type_: Type, operation: Operation) -> Frame:
        return Frame(type_, self.epoch, operation.sequence, operation.call)

    def _say(self, sequence: int, call: Call, outcome: DdpError | None) -> None:
        """Our status of a call, to all."""
        payload = b"" if outcome is None else to_wire(outcome)
        frame = Frame(
            Type.STATUS, self.epoch, sequence, call,
            lo=int(outcome is None), dead=self.dead, payload=payload,
        )  # fmt: skip
        for other in self.others:
            self._outputs.append((other, frame))

    def _decide(self, operation: Operation, now: float) -> None:
        if operation.ended:
            return
        if operation.error is not None:
            self._end(operation, operation.error, now)
            self._stop(operation.error)
            return
        if not operation.part_done:
            return
        for other in self.others:
            if other not in operation.announced:
                return
            if operation.statuses.get(other, (0, False)) != (self.dead, True):
                return
        self._end(operation, None, now)

    def _end(self, operation: Operation, error: DdpError | None, now: float) -> None:
        operation.ended = True
        operation.error = error
        operation.record.ended = now
        operation.record.outcome = "done" if error is None else str(error)
        operation.held.clear()
        operation.running.clear()
        self.counters["calls" if error is None else "failed"] += 1
        self.counters["sent_bytes"] += operation.record.sent
        self._past.append((operation.sequence, error))
        del self.open[operation.sequence]
        if operation.on_end is not None:
            operation.on_end(operation)

    def _stop(self, error: DdpError) -> None:
        """No further call is made here, and who has made one already must not wait for it."""
        if self.broken is None:
            self.broken = error
            if not isinstance(error, GroupClosed):
                self._say(self._next_sequence, NO_CALL, error)

    def _break(self, error: DdpError, now: float) -> None:
        """What is not done cannot be any more; what is done here waits for what the others say."""
        self._stop(error)
        assert self.broken is not None
        self.messages.fail(self.broken)
        mine = isinstance(error, (GroupClosed, Fenced))
        for operation in list(self.open.values()):
            if not operation.part_done or mine:
                operation.error = operation.error or error
                self._say(operation.sequence, operation.call, operation.error)
                self._decide(operation, now)

    def _late(self, operation: Operation, now: float) -> RankLate:
        absent = [rank for rank in self.others if rank not in operation.announced]
        busy = [rank for rank in self.others if not operation.statuses.get(rank, (0, False))[1]]
        waited = now - operation.record.began
        what = f"{ranks(absent)} not begun it" if absent else f"{ranks(busy)} not done its part"
        unsure = "; its outcome is unknown" if operation.part_done else ""
        return RankLate(
            f"call #{operation.sequence} {operation.call}: after {waited:.2f} s {what}{unsure}"
        )
