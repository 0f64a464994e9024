"""One campaign: a workload and a fault plan against a system, from healthy to healthy again.

    before    all is well; the workload prepares what it needs
    trouble   workers ask and the injector harms, for the time that was given
    peace     all faults end; then a leader must be found, every node be well and every worker be
              answered, within a limit: what was only slow must come to life again
    after     the last look of the workload at what is left

It knows nothing of processes or of virtual time: the same code runs on both. What it leaves are
the history, the plan, and what became of the faults; judge.py makes a verdict of them.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final, TextIO

from cluster.chaos.injector import Injector, Record
from cluster.chaos.plan import Plan
from cluster.chaos.system import Refused, System, Unsure
from cluster.chaos.worker import Scribe, Worker
from cluster.chaos.workloads.base import Workload
from cluster.errors import RingError
from cluster.verify.history import Recorder

# A worker waits so long between two operations, on average.
THINK_S: Final = 0.02
# After a refusal: the others are busy with an election.
RELIEF_S: Final = 0.05
# All must be well again within this time, on a machine that keeps up.
PEACE_S: Final = 30.0
POLL_S: Final = 0.1
# Between two attempts to end all faults.
AGAIN_S: Final = 1.0


@dataclass(slots=True)
class Result:
    """What a campaign leaves beside its history. Times are seconds since the run began."""

    records: list[Record]
    harmed: list[tuple[float, frozenset[str]]]
    answered_at: list[float]
    terms: int  # how often the leader changed while it was looked at
    trouble_s: float  # when the trouble ended
    peace_s: float | None  # how long it took until all was well; None: it did not become so
    complaints: list[str] = field(default_factory=list)  # what was not well in the end
    began_s: float = 0.0  # when it began: all was well, and prepared


class Campaign:
    """Runs one.

    Args:
        system: started, and healthy.
        workload: shared by all workers.
        plan: what is to go wrong.
        seconds: of trouble.
        seed: of the dice of workers and injector.
        history: where the history goes.
        now: steady seconds, of any origin.
        slowness: by how much this machine is slower than one that keeps up, so far; limits grow
            with it, and while they run.
        say: told of faults as they come and go.
        patience_s: see Injector.
    """

    def __init__(
        self,
        system: System,
        workload: Workload,
        plan: Plan,
        *,
        seconds: float,
        seed: int,
        history: TextIO,
        now: Callable[[], float],
        workers: int = 6,
        slowness: Callable[[], float] = lambda: 1.0,
        say: Callable[[str], None] = lambda line: None,
        patience_s: float = 0.0,
    ) -> None:
        self._system = system
        self._workload = workload
        self._plan = plan
        self._seconds = seconds
        self._seed = seed
        self._workers = workers
        self._slowness = slowness
        self._clock = now
        self.began = now()  # on its clock; again when it runs
        self._scribe = Scribe(Recorder(history), self._now)
        dice = random.Random(f"injector {seed}")
        self._injector = Injector(system, dice, self._now, say, patience_s=patience_s)
        self._over = False
        self._leaders: list[tuple[str, int]] = []

    def _now(self) -> float:
        """Seconds since the run began."""
        return self._clock() - self.began

    async def run(self) -> Result:
        """From beginning to end; raises what is wrong with the campaign itself."""
        self.began = self._clock()
        async with AsyncExitStack() as clients:
            workers = []
            for index in range(self._workers):
                client = await clients.enter_async_context(self._system.client())
                dice = random.Random(f"worker {self._seed} {index}")
                workers.append(Worker(index, client, self._scribe, dice))
            await self._prepare(workers[0])
            began = self._now()
            asking = [asyncio.create_task(self._work(worker)) for worker in workers]
            watching = asyncio.create_task(self._watch_leaders())
            harming = asyncio.create_task(self._injector.run(self._shifted(began)))
            try:
                await asyncio.wait(
                    [harming, *asking, watching],
                    timeout=self._seconds,
                    return_when=asyncio.FIRST_EXCEPTION,
                )
                trouble_s = self._now()
                complaints, peace_s = await self._peace(workers)
                self._over = True
                complaints += await self._last_answers(asking)
                if peace_s is not None:
                    complaints += await self._last_look(workers[0])
            finally:
                for task in (*asking, watching, harming):
                    task.cancel()
                done = await asyncio.gather(*asking, watching, harming, return_exceptions=True)
            for outcome in done:
                if isinstance(outcome, Exception):
                    raise outcome
        injector, scribe = self._injector, self._scribe
        return Result(
            injector.records,
            injector.harmed,
            scribe.answered_at,
            len(set(self._leaders)),
            trouble_s,
            peace_s,
            complaints,
            began,
        )

    @property
    def _limit_s(self) -> float:
        """All must be well again within this time, as far as is known of the machine."""
        return PEACE_S * self._slowness()

    def _shifted(self, by: float) -> Plan:
        """The plan in the run's own time: preparing took some."""
        return [type(e)(e.fault, e.target, e.values, e.at + by, e.until + by) for e in self._plan]

    async def _prepare(self, worker: Worker) -> None:
        for _ in range(20):
            try:
                await self._workload.prepare(worker)
            except (Refused, Unsure):
                await asyncio.sleep(RELIEF_S)
            else:
                return
        raise RingError("the system was not able to take what the workload begins with")

    async def _work(self, worker: Worker) -> None:
        while not self._over:
            before = worker.answered
            await self._workload.turn(worker)
            mean_s = THINK_S if worker.answered > before else RELIEF_S
            await asyncio.sleep(worker.rng.expovariate(1 / mean_s))

    async def _watch_leaders(self) -> None:
        while True:
            for view in (await self._system.look()).values():
                if view.role == "leader":
                    self._leaders.append((view.name, view.term))
            await asyncio.sleep(POLL_S)

    async def _peace(self, workers: list[Worker]) -> tuple[list[str], float | None]:
        """Heal, and wait until all is well: what is not, and how long it took."""
        began = self._now()
        complaints: list[str] = ["the faults could not be ended"]
        try:
            async with asyncio.timeout(self._limit_s) as limit:
                growing = asyncio.create_task(self._let_grow(limit))
                try:
                    await self._heal(complaints)
                    while True:
                        complaints = await self._complaints()
                        if not complaints:
                            break
                        await asyncio.sleep(POLL_S)
                    before = {worker.index: worker.answered for worker in workers}
                    while True:
                        waiting = [w.index for w in workers if w.answered == before[w.index]]
                        complaints = [f"worker {index} is not answered" for index in waiting]
                        if not complaints:
                            break
                        await asyncio.sleep(POLL_S)
                finally:
                    growing.cancel()
        except TimeoutError:
            told = "; ".join(complaints)
            return [f"{self._now() - began:.0f} s after the end of the faults: {told}"], None
        return [], self._now() - began

    async def _let_grow(self, limit: asyncio.Timeout) -> None:
        """The machine may turn out to be slower than it was when the limit was set."""
        loop, within_s = asyncio.get_running_loop(), self._limit_s
        while True:
            await asyncio.sleep(1.0)
            more_s, within_s = self._limit_s - within_s, self._limit_s
            due = limit.when()
            if more_s > 0 and due is not None and loop.time() < due:
                limit.reschedule(due + more_s)

    async def _heal(self, complaints: list[str]) -> None:
        """End all faults. A node that takes too long to start may start the next time."""
        while True:
            try:
                await self._injector.heal()
            except (Refused, RingError) as error:
                complaints[:] = [f"the faults could not be ended: {error}"]
            else:
                return
            await asyncio.sleep(AGAIN_S)

    async def _last_answers(self, asking: Sequence[asyncio.Task[None]]) -> list[str]:
        """Nobody asks anything new, and all is well: every request that is open gets its answer."""
        _, open_ = await asyncio.wait(asking, timeout=self._limit_s)
        return [
            f"the last request of worker {index} was not answered within {self._limit_s:.0f} s"
            for index, task in enumerate(asking)
            if task in open_
        ]

    async def _complaints(self) -> list[str]:
        views = (await self._system.look()).values()
        unwell = [
            f"{view.name} is {view.state}, {view.health}" for view in views if view.health != "ok"
        ]
        leaders = [view.name for view in views if view.role == "leader"]
        if "leader" not in {view.role for view in views} and any(v.role != "-" for v in views):
            unwell.append("nobody leads")
        if len(leaders) > 1:
            unwell.append(f"{' and '.join(leaders)} lead")
        return unwell

    async def _last_look(self, worker: Worker) -> list[str]:
        for _ in range(20):
            if await self._workload.final(worker):
                return []
            await asyncio.sleep(RELIEF_S)
        return ["what is left could not be read at the end"]
