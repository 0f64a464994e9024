"""An elastic run whose workers do not wait for one another: elastic.py's membership, other rules.

    server    OUTSIDE ──let in──► HEALING ──has its checkpoint──► COMPUTING ──keeps the last──► OVER
    worker    OUTSIDE ──let in──► HEALING ──there is a server───► COMPUTING ──fetches the end─► OVER
                                     ▲                                │
                                     └───────── it is gone ───────────┘

The parameters are in one place, the server's; workers read them, and push gradients, as far ahead
of the slowest as stale.py lets them. So in the record only the server is ever `healed`, there is
nothing to vote on, and `step` is what the server has on its disk: it alone moves it, as it keeps
checkpoints. Steps done since are in its memory, and die with it; its next life begins at
`record.step`, or before it, if that checkpoint is damaged.

A worker that dies costs the gradient it was computing. Who is let in takes part at once: there is
no step of all that it would disturb. At the end each fetches the server's parameters.

A core without I/O. The shells are worker.py and pushing.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from ddp.membership import SERVER, Member, Record
from ddp.training.elastic import (
    COMPUTING,
    HEALING,
    NOTHING,
    OUTSIDE,
    OVER,
    Drop,
    Elastic,
    Finish,
    Heal,
    Push,
    Serve,
)
from ddp.training.errors import TrainingError

NOBODY: Final = ""


class Asynchronous(Elastic):
    """See above, and Elastic."""

    def __init__(self, me: Member, *, steps: int, founders: int, now: float) -> None:
        super().__init__(me, steps=steps, founders=founders, now=now)
        self._server = NOBODY  # the life to which we push
        self._kept = 0  # the server: the step of its last checkpoint

    # -- events

    def on_kept(self, step: int) -> None:
        """The server has a checkpoint of this step on its disk."""
        self._kept = max(self._kept, step)
        self._decide()

    def on_healed(self, epoch: int, step: int) -> None:
        """The server: we have what was kept. A worker: we have the parameters of the end."""
        record = self.record
        if self.phase != HEALING or record is None or epoch != record.epoch:
            return
        if self.me.role == SERVER:
            self.applied = self._kept = step
            self._decide()
        elif step >= self.steps:
            self._end(record)

    # -- what follows from the record

    def _end_step(self, before: Record, record: Record) -> None:
        """No step is of one epoch: who goes on with the same server drops nothing."""

    def _take_part(self, record: Record) -> None:
        if self.me.role == SERVER:
            self._serve(record)
        elif self.phase != OVER:
            self._follow_server(record)

    def _serve(self, record: Record) -> None:
        if not self._mine(record).healed or self.applied == NOTHING:
            self.phase, self.applied = HEALING, NOTHING
            self._outputs.append(Heal(record.epoch, record.step, None))
        elif record.step >= self.steps:
            self._end(record)
        else:
            self.phase, self.applied = COMPUTING, record.step
            self._outputs.append(Serve(record))

    def _follow_server(self, record: Record) -> None:
        server = _server_of(record)
        life = server.life if server is not None else NOBODY
        over = record.step >= self.steps
        if self.phase == COMPUTING and (life != self._server or over):
            self._outputs.append(Drop(record.epoch, record.step))
        if server is None:
            self.phase = HEALING
        elif over:
            self.phase = HEALING
            self._outputs.append(Heal(record.epoch, record.step, server))
        else:
            self.applied = record.step
            if self.phase != COMPUTING or life != self._server:
                self.phase = COMPUTING
                self._outputs.append(Push(server))
        self._server = life

    def _end(self, record: Record) -> None:
        self.applied = record.step
        if self.phase != OVER:
            self.phase = OVER
            self._outputs.append(Finish(record.step))

    # -- what we bring about

    def _founder(self, member: Member) -> Member:
        return replace(member, healed=member.role == SERVER)

    def _go_on(self, record: Record, joiners: list[Member]) -> None:
        """The first lets in who has come; the server says what is kept."""
        if joiners and record.members[0].life == self.me.life:
            self._propose(record.changed((), joiners))
        elif self.me.role != SERVER:
            return
        elif self.phase == HEALING and self.applied != NOTHING:
            healed = self._as_healed(record.members)
            self._propose(Record(record.epoch + 1, self.applied, healed, record.decided_in))
        elif self.phase == COMPUTING and self._kept > record.step:
            self._propose(replace(record, step=self._kept, decided_in=record.epoch))

    def _as_healed(self, members: Iterable[Member]) -> tuple[Member, ...]:
        return tuple(replace(m, healed=True) if m.life == self.me.life else m for m in members)

    def check(self) -> None:
        """Whoever takes part is a member; what is committed, the server has on its disk."""
        if self.record is None or self.phase in (OUTSIDE, HEALING):
            return
        here = self.record.rank(self.me.life) is not None
        if not here or (self.me.role == SERVER and self._kept < self.record.step):
            raise TrainingError(f"{self!r} is {self.phase} in {self.record!r}, kept {self._kept}")


def _server_of(record: Record) -> Member | None:
    """The one that has the parameters."""
    return next((m for m in record.members if m.role == SERVER and m.healed), None)
