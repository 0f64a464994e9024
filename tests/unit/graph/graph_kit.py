"""Graphs of any shape, workers that are maps, and what must run again, told naively."""

from __future__ import annotations

from hypothesis import strategies as st

from mapreduce.graph.scheduler import Scheduler
from mapreduce.graph.states import READY, WAITING, Failed, Ready, Release, Run


@st.composite
def dags(draw, tasks_max=14):
    """{name: inputs}: any graph without circles."""
    count = draw(st.integers(1, tasks_max))
    graph = {}
    for i in range(count):
        before = [f"t{k}" for k in range(i)]
        chosen = draw(st.lists(st.sampled_from(before), max_size=3, unique=True)) if before else []
        graph[f"t{i}"] = tuple(chosen)
    return graph


def value_of(name, inputs, values):
    """A pure function of a task's name and inputs."""
    return (name, tuple(values[n] for n in inputs))


def sequential(graph):
    """All values, one behind the other."""
    values = {}
    for name, inputs in graph.items():  # dags() makes them in order
        values[name] = value_of(name, inputs, values)
    return values


class Workers:
    """Workers as maps: they do what they are told, when the test says so."""

    def __init__(self, scheduler: Scheduler, graph) -> None:
        self.scheduler = scheduler
        self.graph = graph
        self.memory: dict[str, dict] = {}
        self.queue: dict[str, list[Run]] = {}
        self.answers: dict[str, object] = {}
        self.failures: dict[str, Failed] = {}
        self.finished: list[str] = []
        self.ever: set[str] = set()

    def join(self, name, slots=2):
        self.memory[name], self.queue[name] = {}, []
        self.scheduler.joined(name, slots)
        self.obey()

    def kill(self, name):
        del self.memory[name], self.queue[name]
        self.scheduler.left(name)
        self.obey()

    def obey(self):
        while instructions := self.scheduler.take():
            for instruction in instructions:
                if isinstance(instruction, Run):
                    if instruction.worker in self.queue:
                        self.queue[instruction.worker].append(instruction)
                elif isinstance(instruction, Release):
                    self.memory.get(instruction.worker, {}).pop(instruction.task, None)
                elif isinstance(instruction, Ready):
                    holder = next(h for h in instruction.holders if h in self.memory)
                    self.answers[instruction.task] = self.memory[holder][instruction.task]
                elif isinstance(instruction, Failed):
                    self.failures[instruction.task] = instruction

    def step(self, worker):
        """The worker runs the first task it was given; False if it has none."""
        if not self.queue.get(worker):
            return False
        run = self.queue[worker].pop(0)
        values = {}
        for needed, holders in run.holders:
            source = next((h for h in holders if needed in self.memory.get(h, {})), None)
            if source is None:
                self.scheduler.missing(run.task, worker, needed, holders)
                self.obey()
                return True
            values[needed] = self.memory[source][needed]
            if source != worker:
                self.memory[worker][needed] = values[needed]
                self.scheduler.copied(needed, worker)
                self.obey()
        # Told to forget it meanwhile, perhaps: what it has read, it has.
        self.memory[worker][run.task] = value_of(run.task, self.graph[run.task], values)
        self.finished.append(run.task)
        self.ever.add(run.task)
        self.scheduler.finished(run.task, worker, 1)
        self.obey()
        return True

    def run_all(self, steps_max=10_000):
        """In turn, until nobody has anything to do."""
        for _ in range(steps_max):
            busy = [self.step(worker) for worker in sorted(self.queue)]
            if not any(busy):
                return
        raise AssertionError(f"it does not end: {self.scheduler!r}")


def must_run(system: Workers, victim: str) -> set[str]:
    """Naively, and before it happens: what has to run when `victim` dies.

    From what is wanted back to what is in the memory of another, or runs at another: that is
    taken to be finished there.
    """
    tasks = system.scheduler.tasks
    others = [worker for worker in system.memory if worker != victim]
    at_hand = {name for worker in others for name in system.memory[worker]}
    at_hand |= {run.task for worker in others for run in system.queue[worker]}
    needed: set[str] = set()
    stack = [n for n, t in tasks.items() if t.wanted and n not in at_hand]
    while stack:
        name = stack.pop()
        if name not in needed:
            needed.add(name)
            stack += [n for n in tasks[name].inputs if n not in at_hand]
    return needed


def planned(scheduler: Scheduler) -> set[str]:
    """What the scheduler has in mind to run, and has not given away."""
    return {n for n, t in scheduler.tasks.items() if t.state in (WAITING, READY)}
