"""The world of a daemon, behind one small face: `Runtime`.

The real one is here, the simulated one in `netstack.runtime.simulation`; a daemon cannot tell
them apart, and touches the world in no other way.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from netstack.runtime.clock import Clock
from netstack.runtime.dgram_endpoint import DgramEndpoint
from netstack.runtime.disk import Disk
from netstack.runtime.endpoint import Address, Endpoint
from netstack.runtime.events import EventLog
from netstack.runtime.executor import Executor, ThreadExecutor
from netstack.runtime.failpoints import Failpoints
from netstack.runtime.faults import Faults
from netstack.runtime.faulty_endpoint import FaultyEndpoint
from netstack.runtime.gso_endpoint import GsoEndpoint, kernel_has_it
from netstack.runtime.os_disk import OsStorage
from netstack.runtime.policy import LinkTable

T = TypeVar("T")

# Work in the background takes turns of this length with the rest of the process.
BURST_S = 0.0005

# Nearer deadlines than this are not told apart: a clock that runs fast or slow rounds.
RESOLUTION_S = 1e-7


class Fatal(Exception):
    """The node must not go on, and the message tells the operator why."""


class Runtime(ABC):
    """Clock, dice, sockets, disk, executor, log and faults of one node."""

    def __init__(
        self, node: str, clock: Clock, rng: random.Random, disk: Disk, events: EventLog
    ) -> None:
        self.node = node
        self.clock = clock
        self.rng = rng
        self.disk = disk
        self.events = events
        self.failpoint = Failpoints(self.die, disk.pause)
        disk.failpoint = self.failpoint
        self.faults = Faults(LinkTable(rng), disk.faults, clock, self.failpoint)
        self.on_fatal: Callable[[BaseException], None] | None = None
        self._tasks: dict[asyncio.Task[Any], None] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.node} tasks={len(self._tasks)}>"

    @abstractmethod
    def entropy(self, count: int) -> bytes:
        """Bytes that nobody can guess; from the seed in a simulation."""

    @abstractmethod
    def die(self) -> NoReturn:
        """End this process as kill -9 would."""

    @abstractmethod
    async def bind_raw(self, address: Address) -> Endpoint:
        """A socket without the link faults."""

    @abstractmethod
    def executor(self, name: str, *, brief: bool = True) -> Executor:
        """A new executor for blocking calls: a thread, or a queue in virtual time.

        `brief`: the calls are mostly shorter than a hand-over to a thread and back.
        """

    def unhurried(self, items: Iterable[T]) -> Iterator[T]:
        """The same items; on a real interpreter, with pauses in which other threads run.

        For long work in an executor: a thread that computes without end lets the event loop have
        the interpreter only every few milliseconds, one wake-up at a time.
        """
        return iter(items)

    async def bind(self, address: Address) -> Endpoint:
        """A datagram socket on `address`; raises PortTaken or EndpointError."""
        inner = await self.bind_raw(address)
        return FaultyEndpoint(inner, self.faults.links, self.clock, self.call_later_true)

    def call_later_true(self, delay_s: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Call back after `delay_s` true seconds, whatever this node's clock says."""
        return asyncio.get_running_loop().call_later(delay_s, callback)

    def call_at(self, deadline: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Call back when this node's clock shows `deadline`; a new rate is for later timers."""
        delay_s = self.clock.true_delay(deadline)
        if 0 < delay_s < RESOLUTION_S:
            # Less than the clock can show: the callback would be early for ever.
            delay_s = RESOLUTION_S
        return asyncio.get_running_loop().call_later(delay_s, callback)

    def spawn(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """A task that cannot fail in silence: an error in it is an event, and fatal."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks[task] = None
        task.add_done_callback(self._task_ended)
        return task

    def fatal(self, error: BaseException, where: str) -> None:
        """This node cannot go on: its daemon ends, and says why."""
        self.events.emit("node.fatal", where=where, error=f"{type(error).__name__}: {error}")
        if self.on_fatal is not None:
            self.on_fatal(error)

    def _task_ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fatal(error, task.get_name())

    async def cancel_tasks(self) -> None:
        """End all tasks spawned here but the caller's own."""
        own = asyncio.current_task()
        while tasks := [task for task in self._tasks if task is not own and not task.done()]:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)  # they may spawn others as they end


class RealRuntime(Runtime):
    """The machine's own clock, dice, sockets and files.

    Args:
        node: name in the cluster.
        folder: the node's: `data/` for its disk, `events.jsonl` for its log.
        trains: False: no GSO and GRO, even where the kernel has them.
    """

    def __init__(self, node: str, folder: Path, *, trains: bool = True) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        clock = Clock(time.monotonic, time.time)
        disk = Disk(OsStorage(folder / "data"), time.sleep)
        self._sink = _LogFile(folder / "events.jsonl")
        events = EventLog(node, clock, self._sink, self.call_later_true)
        super().__init__(node, clock, random.Random(os.urandom(16)), disk, events)
        self._trains = trains

    def entropy(self, count: int) -> bytes:
        """From the kernel."""
        return os.urandom(count)

    def die(self) -> NoReturn:
        """SIGKILL, from ourselves."""
        while True:
            os.kill(os.getpid(), signal.SIGKILL)

    async def bind_raw(self, address: Address) -> Endpoint:
        """A UDP socket on the running loop."""
        kind = GsoEndpoint if self._trains and kernel_has_it() else DgramEndpoint
        return await kind.bind(address)

    def executor(self, name: str, *, brief: bool = True) -> Executor:
        """A thread."""
        return ThreadExecutor(name, brief=brief)

    def unhurried(self, items: Iterable[T]) -> Iterator[T]:
        """See Runtime."""
        began = time.perf_counter()
        for item in items:
            yield item
            if time.perf_counter() - began > BURST_S:
                time.sleep(BURST_S)
                began = time.perf_counter()

    def close(self) -> None:
        """Write the log's last lines, if there is room for them."""
        with contextlib.suppress(OSError):
            self.events.flush()
        self._sink.close()


class _LogFile:
    """Hands each batch of lines to the kernel at once, whole or not at all."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab+", buffering=0)
        size = self._file.seek(0, os.SEEK_END)
        if size and os.pread(self._file.fileno(), 1, size - 1) != b"\n":
            self._file.write(b"\n")  # kill -9 cut the last line of an earlier life short

    def write(self, text: str) -> None:
        if self._file.closed:
            return
        data, size = text.encode(), self._file.seek(0, os.SEEK_END)
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError:
            self._file.truncate(size)
            raise

    def close(self) -> None:
        self._file.close()
