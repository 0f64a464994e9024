"""A world: nodes, their disks, the network between them, and what befalls them, from one seed.

    world = World(seed=7)
    world.add_node("n1", start)                  # async def start(runtime): ...
    world.run(scenario())                        # any coroutine; time is virtual
    world.crash("n1"); world.restart("n1")       # kill -9: unsynced writes are lost
    world.pause("n1"); world.resume("n1")        # SIGSTOP, SIGCONT
    world.network.partition([["n1"], ["n2", "n3"]])

`world.log` holds every event of every node in the order in which they happened; two runs of a
seed give the same bytes. A node that ends by itself with `Fatal` (a disk that cannot be trusted,
say) counts as crashed; any other error in it is a bug, and `run` raises it.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import random
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NoReturn, TypeVar

from netstack.runtime.clock import Clock
from netstack.runtime.disk import Disk
from netstack.runtime.endpoint import Address, Endpoint
from netstack.runtime.events import EventLog
from netstack.runtime.executor import Done, Executor, Work
from netstack.runtime.failpoints import Died
from netstack.runtime.memory_disk import MemoryStorage
from netstack.runtime.runtime import Fatal, Runtime
from netstack.runtime.simulation.loop import Life, VirtualLoop
from netstack.runtime.simulation.network import SimulatedNetwork

T = TypeVar("T")
Start = Callable[[Runtime], Awaitable[Any]]

# Unix time at which every world begins: 2027-01-15, well inside the certificates made for it.
EPOCH = 1_800_000_000.0

# One write and sync on the disks of the machines this is run on, measured.
DISK_LATENCY_S = 0.0002


class World:
    """Everything that happens in one run."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.loop = VirtualLoop()
        self.loop.set_exception_handler(self._unhandled)
        self.network = SimulatedNetwork(self.rng, self.loop)
        self.lines: list[str] = []
        self.nodes: dict[str, SimulatedNode] = {}
        self.failures: list[BaseException] = []
        self._graves: set[asyncio.Task[Any]] = set()
        self._scenario: asyncio.Task[Any] | None = None

    def __repr__(self) -> str:
        return f"<World seed={self.seed} t={self.loop.time():.3f} nodes={len(self.nodes)}>"

    @property
    def log(self) -> str:
        """The history so far, a line an event."""
        return "".join(self.lines)

    @property
    def now(self) -> float:
        """True virtual seconds since the world began."""
        return self.loop.time()

    def add_node(self, name: str, start: Start) -> SimulatedNode:
        """A node that is not running yet; `start(runtime)` is run at each of its lives."""
        node = self.nodes[name] = SimulatedNode(self, name, start)
        return node

    def run(self, scenario: Coroutine[Any, Any, T]) -> T:
        """Run `scenario` to its end; raises what went wrong in any node meanwhile."""
        task = self.loop.create_task(scenario, name="scenario")
        self._scenario = task
        try:
            return self.loop.run_until_complete(task)
        finally:
            if self.failures:  # whatever the scenario has made of it
                raise self.failures[0] from None

    def restart(self, name: str) -> None:
        """Begin a life of the node (its first, or the next)."""
        self.nodes[name].begin()

    def crash(self, name: str) -> None:
        """kill -9 and a power cut: nothing of the process runs on, unsynced writes are lost."""
        self.nodes[name].crash()

    def pause(self, name: str) -> None:
        """SIGSTOP."""
        self.nodes[name].pause()

    def resume(self, name: str) -> None:
        """SIGCONT."""
        self.nodes[name].resume()

    def heal(self) -> None:
        """Network whole, disks and clocks good; who is down stays down."""
        self.network.heal()
        for node in self.nodes.values():
            if node.runtime is not None:
                node.runtime.faults.heal()

    def close(self) -> None:
        """End all lives and the loop."""
        for node in self.nodes.values():
            node.crash()
        self.bury()
        self.loop.silence()
        for task in self._graves:
            # Its `finally` blocks run now, where nothing they do has an effect.
            with contextlib.suppress(BaseException):
                task.get_coro().close()
        self._graves.clear()
        self.loop.close()

    def bury(self) -> None:
        """Keep what a killed process left half done, until the world ends.

        If the garbage collector came upon it meanwhile, it would run the `finally` blocks of a
        process that no longer exists, in the middle of another's work.
        """
        for task in asyncio.all_tasks(self.loop):
            if task is not self._scenario:
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                self._graves.add(task)

    def failed(self, error: BaseException) -> None:
        """A bug showed: stop the scenario."""
        self.failures.append(error)
        if self._scenario is not None:
            self._scenario.cancel()

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception") or RuntimeError(context["message"])
        if not isinstance(error, Died):
            self.failed(error)


class SimulatedNode:
    """A node across its lives: the disk stays, the process comes and goes."""

    def __init__(self, world: World, name: str, start: Start) -> None:
        self._world = world
        self._start = start
        self.name = name
        self.storage = MemoryStorage()
        self.life: Life | None = None
        self.runtime: SimulatedRuntime | None = None
        self.service: Any = None
        self.lives = 0
        self.ended: BaseException | None = None

    def __repr__(self) -> str:
        return f"<SimulatedNode {self.name} lives={self.lives} {self.life}>"

    @property
    def running(self) -> bool:
        """Whether a process of this node is alive, paused or not."""
        return self.life is not None

    def begin(self) -> None:
        """Start the process."""
        assert self.life is None, f"{self.name} is running already"
        self.lives += 1
        self.ended = None
        life = self.life = Life(self.name)
        self._world.loop.call_soon(self._begin, context=life.context)

    def _begin(self) -> None:
        world = self._world
        runtime = self.runtime = SimulatedRuntime(world, self)
        runtime.on_fatal = self._fatal
        runtime.events.emit("node.start", life=self.lives)

        async def start() -> None:
            self.service = await self._start(runtime)

        runtime.spawn(start(), f"start {self.name}")

    def _fatal(self, error: BaseException) -> None:
        self.ended = error
        self.crash()
        if not isinstance(error, Fatal):
            self._world.failed(error)

    def crash(self) -> None:
        """End the process without a word."""
        life, self.life = self.life, None
        if life is None:
            return
        self._world.network.release_all(self.name)
        if self.runtime is not None:
            self.runtime.events.emit("node.killed")
            self.runtime.abandon_work()
        life.over = True
        self._world.bury()
        # What the dead process still does, it does to a disk of its own.
        self.storage = copy.copy(self.storage)
        self.storage.crash(self._world.rng)
        self.runtime, self.service = None, None

    def pause(self) -> None:
        """Let nothing of the process run until resume; datagrams wait in its socket."""
        assert self.life is not None, f"{self.name} is not running"
        if self.life.held is None:
            self.life.held = []

    def resume(self) -> None:
        """Go on."""
        if self.life is not None:
            self._world.loop.resume(self.life)


class SimulatedRuntime(Runtime):
    """The world as one life of one node sees it."""

    def __init__(self, world: World, node: SimulatedNode) -> None:
        loop = world.loop
        clock = Clock(loop.time, lambda: EPOCH + loop.time())
        # Dice of its own: what one node throws must not shift what another throws.
        rng = random.Random(f"{world.seed}/{node.name}/{node.lives}")
        self._world = world
        self._executors: list[VirtualExecutor] = []
        self.slept_s = 0.0
        disk = Disk(node.storage, self._sleep)
        assert node.life is not None
        sink = _Lines(world.lines, node.life)
        events = EventLog(node.name, clock, sink, lambda _, flush: flush())
        super().__init__(node.name, clock, rng, disk, events)

    def entropy(self, count: int) -> bytes:
        """From the seed."""
        return self.rng.randbytes(count)

    def die(self) -> NoReturn:
        """Crash the node, and unwind whatever it was doing."""
        self._world.crash(self.node)
        raise Died

    async def bind_raw(self, address: Address) -> Endpoint:
        """A socket of the simulated network."""
        return self._world.network.bind(self.node, address)

    def executor(self, name: str, *, brief: bool = True) -> Executor:
        """A queue in virtual time."""
        executor = VirtualExecutor(self, self._world.loop)
        self._executors.append(executor)
        return executor

    def abandon_work(self) -> None:
        """The process was killed: what its executors had begun is half done."""
        storage = self._world.nodes[self.node].storage
        for executor in self._executors:
            if executor.begun is not None and self._world.rng.random() < 0.5:
                storage.run_unsynced(executor.begun[0])

    def _sleep(self, seconds: float) -> None:
        self.slept_s += seconds


class VirtualExecutor:
    """Runs work one behind the other; each takes a disk's time, a slow disk's more."""

    def __init__(self, runtime: SimulatedRuntime, loop: VirtualLoop) -> None:
        self._runtime = runtime
        self._loop = loop
        self._waiting: deque[Work] = deque()
        self._busy = False
        self.begun: Work | None = None  # and not done yet

    def submit(self, function: Callable[[], Any], done: Done) -> None:
        """See Executor."""
        self._waiting.append((function, done))
        if not self._busy:
            self._begin()

    def close(self) -> None:
        """See Executor."""
        begun, self.begun = self.begun, None
        for work in (begun, *self._waiting):
            if work is not None:
                self._loop.call_soon(work[1], *_call(work[0]))
        self._waiting.clear()

    def _begin(self) -> None:
        self._busy = bool(self._waiting)
        if self._waiting:
            self.begun = self._waiting.popleft()
            delay_s = DISK_LATENCY_S * (0.5 + self._runtime.rng.random())
            self._loop.call_later(delay_s, self._run)

    def _run(self) -> None:
        if self.begun is None:
            return  # closed meanwhile
        (function, done), self.begun = self.begun, None
        slept_before = self._runtime.slept_s
        try:
            outcome = _call(function)
        except Died:
            return
        extra_s = self._runtime.slept_s - slept_before
        self._loop.call_later(extra_s, self._finish, done, *outcome)

    def _finish(self, done: Done, result: Any, failure: Exception | None) -> None:
        self._begin()
        done(result, failure)


def _call(function: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return function(), None
    except Exception as error:
        return None, error


class _Lines:
    """A sink that is a list; a life that is over has nothing to say."""

    def __init__(self, lines: list[str], life: Life) -> None:
        self._lines = lines
        self._life = life

    def write(self, text: str) -> None:
        if not self._life.over:
            self._lines.append(text)
