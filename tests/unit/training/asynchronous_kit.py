"""elastic_kit's world for a run whose workers push to a server, and do not wait for one another."""

from __future__ import annotations

from elastic_kit import Elastics, Process

from ddp.membership import SERVER
from ddp.training.asynchronous import Asynchronous
from ddp.training.stale import StaleServer

# Steps from one checkpoint to the next.
EVERY = 5


class Nothing:
    """An optimizer: what is applied is counted by steps alone."""

    def step(self, parameters):
        pass


class Pusher(Process):
    """A worker or the server. Parameters are the steps done: (life of the server, step) each."""

    target = None  # what a worker was told to push to
    serving = None
    served_by = ""  # the life of the server, while it serves

    def _serve(self, out):
        lives = [member.life for member in out.record.workers]
        if self.serving is None or self.served_by != self.core.me.life:
            begun = len(self.parameters)
            assert begun >= out.record.step, f"{self.core!r} has forgotten committed steps"
            bound = self.world.bound
            self.serving = StaleServer([], Nothing(), lives, bound, step=begun)
            self.served_by = self.core.me.life
        else:
            self.serving.change(lives)

    def _push(self, out):
        self.target = out

        def read():
            if self.target is not out or not self.alive:
                return
            server, life = self.world.process(out.server.life), self.core.me.life
            stale = server.serving if server is not None and not server.paused else None
            if self.paused or stale is None or life not in stale.clocks or server.over():
                return self.world.later(read)
            stale.ask(life, self.world.now)
            self.world.now += 0.01
            if life not in stale.take_ready(self.world.now):
                return self.world.later(read)
            self.world.reads(stale, life)
            ticket = stale.read(life).ticket

            def push():
                if server.alive and not server.paused and server.core.me.life == out.server.life:
                    server.pushed(life, ticket)
                self.world.later(read)

            self.world.later(push)

        self.world.later(read)

    def over(self):
        return self.serving.step >= self.world.steps

    def pushed(self, life, ticket):
        if self.serving is None or self.over():
            return
        self.world.pushes += self.serving.push(life, ticket, [])
        for step, _ in self.serving.take_steps():
            assert step == len(self.parameters)
            self.parameters += ((self.core.me.life, step),)
            if (step + 1) % EVERY == 0 or step + 1 == self.world.steps:
                self.keep(self.core.me.life, self.parameters)

    def keep(self, life, parameters):
        def save():
            if self.alive and self.core.me.life == life:
                self.checkpoint[0] = max(self.checkpoint[0], parameters, key=len)
                self.inbox.append(lambda: self.core.on_kept(len(parameters)))

        self.world.later(save)

    def _drop(self, out):
        self.target = None

    def _fence(self, out):
        self.target = self.serving = None
        self.errors.append(f"fenced in {out.epoch}")

    def _heal(self, out):
        self.target = None
        super()._heal(out)


class Pushers(Elastics):
    """The world."""

    def __init__(self, seed, *, bound=1, kind=Asynchronous, names=("w1", "w2", "ps"), **options):
        self.bound, self.pushes = bound, 0
        super().__init__(seed, kind=kind, names=names, **options)

    def start(self, name):
        self.boots += 1
        self.processes[name] = Pusher(self, name, self.boots, self.checkpoint)

    def reads(self, stale, life):
        """The promise of the bound, whoever came and went."""
        lead = stale.clocks[life] - min(stale.clocks.values())
        assert self.bound is None or lead <= self.bound, f"{life} reads, {lead} ahead"

    def committed(self, before, after):
        """The promise of a commit: it is on the server's disk; and only one has the parameters."""
        kept = len(self.checkpoint[0])
        assert after.step <= kept, f"step {after.step} of {after!r}; on disk: {kept}"
        healed = [member for member in after.members if member.healed]
        assert [m.role for m in healed] in ([], [SERVER]), f"{after!r}"
        if before is not None and before.epoch == after.epoch:
            assert after.step > before.step
