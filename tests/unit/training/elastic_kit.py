"""Many elastic cores, one record, and everything that may happen between them, from one seed."""

from __future__ import annotations

import random

from ddp.card import Card
from ddp.membership import SERVER, WORKER, Member
from ddp.training import elastic as e
from ddp.training.elastic import Elastic


def member(name, life=None, *, healed=True, role=WORKER):
    return Member(name, life or f"{name}.1", Card(name, "host", 1), healed, role)


class Store:
    """The replicated record and the living, in memory; also the fake for raftd."""

    def __init__(self):
        self.record = None
        self.history = []
        self.alive = {}

    def appear(self, member):
        self.alive[member.name] = member

    def swap(self, before, after):
        if self.record != before:
            return False
        self.record = after
        self.history.append(after)
        for gone in before.members if before else ():
            if after.rank(gone.life) is None:
                self.end(gone)
        return True

    def end(self, member):
        if self.alive.get(member.name, member).life == member.life:
            self.alive.pop(member.name, None)


class Process:
    """A core, and what its shell would hold: parameters are the list of steps applied."""

    def __init__(self, world, name, boot, checkpoint):
        self.world = world
        role = SERVER if name.startswith("ps") else WORKER
        me = member(name, f"{name}/{boot}", healed=False, role=role)
        self.shown = None  # who we are among the living, once that is so
        self.core = world.kind(me, steps=world.steps, founders=world.founders, now=world.now)
        self.parameters = ()
        self.checkpoint = checkpoint
        self.sum = None  # (epoch, step, members) of the sum that is held
        self.computing = None
        self.paused = False
        self.finished = False
        self.errors = []
        self.inbox = []

    def obey(self):
        for out in self.core.take_outputs():
            getattr(self, "_" + type(out).__name__.lower())(out)
        self.core.check()

    def _ask(self, out):
        self.shown = None

        def appear():
            if self.alive and self.core.me == out.member:
                self.world.store.appear(out.member)
                self.shown = out.member

        self.world.later(appear)

    def _propose(self, out):
        def swap():
            if self.world.store.swap(out.before, out.after):
                self.world.committed(out.before, out.after)
            self.world.later(answer)

        def answer():
            if self.alive:
                self.inbox.append(lambda: self.core.on_record(self.world.store.record))
                self.inbox.append(self.core.on_proposal_over)

        self.world.later(swap)

    def _heal(self, out):
        def fetch():
            if out.source is None:
                self.parameters = self.checkpoint[0]
            else:
                source = self.world.process(out.source.life)
                # A source has what is asked for, or does not answer.
                if source is None or source.core.applied != out.step or source.paused:
                    return self.world.later(retry)
                self.parameters = source.parameters
            step = len(self.parameters)
            self.inbox.append(lambda: self.core.on_healed(out.epoch, step))

        def retry():
            record = self.core.record
            if self.alive and record and record.epoch == out.epoch and self.core.phase == e.HEALING:
                fetch()

        self.world.later(retry)

    def _compute(self, out):
        self.sum = None
        self.computing = out.record
        if not out.record.workers:
            return  # a server alone has nothing to add
        self.world.meet(self, out.record)

    def summed(self, record):
        """What is under way from an epoch that is over arrives all the same."""
        if self.computing == record:
            self.sum = (record.epoch, record.step, tuple(m.life for m in record.members))
        self.core.on_sum(record.epoch, record.step)

    def _vote(self, out):
        def arrive():
            first = self.world.process(out.to.life)
            if first is not None:
                first.inbox.append(lambda: first.core.on_vote(out.epoch, out.step, life))

        life = self.core.me.life
        self.world.later(arrive)

    def _apply(self, out):
        assert self.sum is not None, "nothing to apply"
        assert self.sum[:2] == (out.epoch, out.step), f"{self.sum} is not {out}"
        assert len(self.parameters) == out.step, f"{self.core!r} applies {out.step} again"
        self.parameters += (self.sum,)
        self.sum = None
        if out.step % 5 == 4:
            self.checkpoint[0] = max(self.checkpoint[0], self.parameters, key=len)

    def _drop(self, out):
        self.sum = self.computing = None

    def _fence(self, out):
        self.sum = self.computing = None
        self.errors.append(f"fenced in {out.epoch}")

    def _finish(self, out):
        self.finished = True

    @property
    def alive(self):
        return self in self.world.processes.values()


class Elastics:
    """The world. `step` does one thing that could happen next, chosen by the dice."""

    def __init__(self, seed, *, names=("w1", "w2", "w3"), steps=12, kind=Elastic, busy=False):
        self.dice = random.Random(seed)
        self.kind, self.steps, self.founders = kind, steps, len(names)
        self.busy = busy  # who lives may not answer in time
        self.store = Store()
        self.processes = {}
        self.now = 0.0
        self.tasks = []
        self.meetings = {}
        self.boots = 0
        self.names = names
        self.checkpoint = [()]
        for name in names:
            self.start(name)

    def start(self, name):
        self.boots += 1
        self.processes[name] = Process(self, name, self.boots, self.checkpoint)

    def kill(self, name):
        self.lease_ends(self.processes.pop(name, None))

    def lease_ends(self, process):
        """Of who is dead or asleep, some time."""
        if process is not None and (shown := process.shown) is not None:
            self.later(lambda: self.silent(shown.life) and self.store.end(shown))

    def process(self, life):
        for process in self.processes.values():
            if process.core.me.life == life:
                return process
        return None

    def later(self, task):
        self.tasks.append(task)

    def meet(self, process, record):
        """The sum is there for all once all members compute; it reaches each in its own time."""
        here = self.meetings.setdefault((record.epoch, record.step), set())
        here.add(process.core.me.life)
        if here == {m.life for m in record.members}:
            for member in record.members:

                def arrive(life=member.life):
                    process = self.process(life)
                    if process is not None:
                        process.inbox.append(lambda: process.summed(record))

                self.later(arrive)

    def committed(self, before, after):
        """The promise of a commit: every member that is left holds the sum, or has applied it."""
        if before is None or after.step != before.step + 1:
            return
        for member in before.members:
            process = self.process(member.life)
            if process is not None:
                held = process.sum is not None and process.sum[:2] == (before.epoch, before.step)
                assert held or len(process.parameters) > before.step, f"{member} has no sum"

    def step(self):
        self.now += 0.01
        what = self.dice.random()
        awake = [p for p in self.processes.values() if not p.paused]
        if self.tasks and what < 0.5:
            self.tasks.pop(self.dice.randrange(len(self.tasks)))()
        elif awake:
            process = self.dice.choice(awake)
            if process.inbox and what < 0.8:
                process.inbox.pop(0)()
            elif what < 0.9:
                self.look(process)
            else:
                self.suspect(process)
            deadline = process.core.next_deadline()
            if deadline is not None and self.now >= deadline:
                process.core.on_deadline(self.now)
            process.obey()

    def look(self, process):
        """A watch hands over the record, as it is or, seldom, as it was."""
        record = self.store.record
        if self.store.history and self.dice.random() < 0.3:
            record = self.dice.choice(self.store.history)
        process.core.on_record(record)
        process.core.on_alive(self.living())
        if process.shown is not None and process.shown not in self.store.alive.values():
            process.shown = None
            process.core.on_given_up()

    def living(self):
        """As they are; seldom, as somebody sees them who is late: with one who was put out."""
        alive = list(self.store.alive.values())
        if self.dice.random() < 0.03 and len(self.store.history) > 1:
            late = self.dice.choice(self.store.history[-3:]).members
            names = {m.name for m in alive}
            alive += [m for m in late if m.name not in names]
        return alive

    def suspect(self, process):
        record = process.core.record
        if record is not None:
            silent = [m.life for m in record.members if self.silent(m.life)]
            if self.busy and self.dice.random() < 0.1:
                silent += [m.life for m in record.members if self.dice.random() < 0.5]
            process.core.on_lost(record.epoch, silent)

    def silent(self, life):
        process = self.process(life)
        return process is None or process.paused

    def befall(self, lose_all=False):
        """Kill, pause, resume, restart one; somebody with the parameters stays, unless lose_all."""
        name = self.dice.choice(self.names)
        process = self.processes.get(name)
        if process is None:
            self.start(name)
        elif process.paused:
            process.paused = False
        else:
            well = [p for p in self.processes.values() if not p.paused and self.has_all(p)]
            if lose_all or not (len(well) == 1 and well[0] is process):
                if self.dice.random() < 0.5:
                    self.kill(name)
                else:
                    process.paused = True
                    self.lease_ends(process)

    def has_all(self, process):
        record = self.store.record
        rank = record.rank(process.core.me.life) if record else None
        return record is None or (rank is not None and record.members[rank].healed)

    def check(self, lost=False):
        """All lives that applied a step applied the same sum of it; none is missing."""
        applied = {}
        for process in self.processes.values():
            for i, what in enumerate(process.parameters):
                assert what[1] == i, f"step {what[1]} in place {i}"
                assert lost or applied.setdefault(i, what) == what, f"{what} and {applied[i]}"
        steps = [(r.epoch, r.step) for r in self.store.history]
        assert steps == sorted(steps)

    def settle(self):
        """No more misfortunes: all are up, and all must come to the end, together."""
        for name in self.names:
            if name not in self.processes:
                self.start(name)
            self.processes[name].paused = False
        for _ in range(20_000):
            self.step()
            if all(p.finished for p in self.processes.values()):
                break
        else:
            raise AssertionError(f"no end: {self.processes} {self.store.record}")
        finals = {p.parameters for p in self.processes.values()}
        assert len(finals) == 1, "parameters differ"
        assert len(finals.pop()) == self.steps
