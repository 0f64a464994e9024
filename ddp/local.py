"""Groups inside one process, a thread a rank: for tests, and for showing how an algorithm goes.

    groups = make_local(4)
    threads = [Thread(target=train, args=(group,)) for group in groups]

`run_local(4, train)` does just that, and gives what each returned.

What one rank sends is in the other's engine before the call returns; whoever comes with a frame
carries all that follows from it. `kill(rank)` is kill -9 as the others see it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from ddp.call import Call
from ddp.elements import Array
from ddp.engine import Engine
from ddp.errors import DdpError
from ddp.fabric import Fabric, bind
from ddp.frames import Frame
from ddp.group import Group
from ddp.work import Work

T = TypeVar("T")

# How often the thread that waits looks for calls that are past their time.
TICK_S: Final = 0.02


class Hub:
    """All ranks of one process, and one lock."""

    def __init__(self, size: int, epoch: int) -> None:
        self.lock = threading.RLock()
        self.engines = [Engine(rank, size, epoch) for rank in range(size)]
        self._ways: deque[tuple[int, int, Frame]] = deque()
        self._carrying = False
        self._parts: dict[tuple[int, tuple[int, ...]], Hub] = {}

    def __repr__(self) -> str:
        return f"<Hub ranks={len(self.engines)}>"

    def carry(self) -> None:
        """Deliver until nothing is on its way; the lock is held."""
        if self._carrying:
            return
        self._carrying = True
        try:
            while self._gather():
                src, dst, frame = self._ways.popleft()
                now = time.monotonic()
                self.engines[src].sent(len(frame.payload), now)
                self.engines[dst].receive(src, frame.owned(), now)
        finally:
            self._carrying = False

    def _gather(self) -> bool:
        for src, engine in enumerate(self.engines):
            self._ways.extend((src, dst, frame) for dst, frame in engine.take_outputs())
        return bool(self._ways)

    def kill(self, rank: int, why: str = "it was killed") -> None:
        """All others lose `rank`, here and in the parts that it is in."""
        with self.lock:
            for engine in self.engines:
                engine.lost(rank, why, time.monotonic())
            self.carry()
            parts = list(self._parts.items())
        for (_, members), part in parts:
            if rank in members:
                part.kill(members.index(rank), why)

    def part(self, number: int, members: tuple[int, ...]) -> Hub:
        """Where those meet; made by the first who asks."""
        with self.lock:
            key = (number, members)
            if key not in self._parts:
                self._parts[key] = Hub(len(members), self.engines[0].epoch)
            return self._parts[key]


class LocalFabric(Fabric):
    """One rank of a hub."""

    name = "local"

    def __init__(self, hub: Hub, rank: int) -> None:
        super().__init__(hub.engines[rank])
        self._hub = hub

    def call(self, call: Call, vector: Array, timeout_s: float, *, ahead: bool = False) -> Work:
        """See Fabric."""
        with self._hub.lock:
            operation = self.engine.start(call, vector, time.monotonic(), timeout_s)
            work = bind(Work(str(call)), operation)
            self._hub.carry()
        return work

    def send(self, vector: Array, dtype: str, dst: int, tag: int, timeout_s: float) -> Work:
        """See Fabric."""
        with self._hub.lock:
            deadline = time.monotonic() + timeout_s
            message = self.engine.messages.send(vector, dtype, dst, tag, deadline)
            work = bind(Work(f"send to {dst}"), message)
            self._hub.carry()
        return work

    def receive(self, vector: Array, dtype: str, src: int, tag: int, timeout_s: float) -> Work:
        """See Fabric."""
        with self._hub.lock:
            deadline = time.monotonic() + timeout_s
            message = self.engine.messages.ask(vector, dtype, src, tag, deadline)
            work = bind(Work(f"receive from {src}"), message)
            self.engine.messages.match(src, tag, time.monotonic())
            self._hub.carry()
        return work

    def wait(self, work: Work) -> object:
        """See Fabric."""
        while not work.waited(TICK_S):
            with self._hub.lock:
                self.engine.expire(time.monotonic())
                self._hub.carry()
        return work.result()

    def close(self, error: DdpError | None = None) -> None:
        """See Fabric."""
        with self._hub.lock:
            self.engine.close(error, time.monotonic())
            self._hub.carry()

    def split(
        self, members: Sequence[int], number: int, exchange: Callable[[bytes], list[bytes]]
    ) -> Fabric:
        """See Fabric."""
        part = self._hub.part(number, tuple(members))
        return LocalFabric(part, list(members).index(self.engine.rank))

    def kill(self, rank: int, why: str = "it was killed") -> None:
        """See Hub."""
        self._hub.kill(rank, why)


def make_local(size: int, *, epoch: int = 1, timeout_s: float = 30.0) -> list[Group]:
    """The ranks of a group in this process; each belongs to a thread of its own."""
    hub = Hub(size, epoch)
    return [Group(LocalFabric(hub, rank), timeout_s=timeout_s) for rank in range(size)]


def alone() -> Group:
    """A group of one: what it is asked for is there already."""
    return make_local(1)[0]


def run_local(size: int, work: Callable[[Group], T], *, timeout_s: float = 30.0) -> list[T]:
    """What `work` returns on each rank; one that fails is dead to the others. Raises its error."""
    groups = make_local(size, timeout_s=timeout_s)
    results: dict[int, T] = {}
    errors: list[BaseException] = []

    def run(group: Group) -> None:
        try:
            results[group.rank] = work(group)
        except BaseException as error:
            errors.append(error)
            assert isinstance(group.fabric, LocalFabric)
            group.fabric.kill(group.rank, f"it failed: {error}")

    threads = [threading.Thread(target=run, args=(group,), daemon=True) for group in groups]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[rank] for rank in range(size)]
