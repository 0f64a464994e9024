"""A worker's child processes: asked to run one attempt each, watched, and ended when need be.

A child that dies is named: the signal or status, the record that it was at, the last lines that it
wrote. A child that grows too large, or shows no progress for too long, is ended and named alike.
The loop never waits for any of them: heartbeats go on whatever the user's code does.

With `warm`, children are forked in advance, from a nursery that is up: an attempt starts in a
millisecond. Without, each attempt begins with a new interpreter, as a cold worker would.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import msgpack

from mapreduce.child import LENGTH, progress_path, read_progress
from mapreduce.messages import Failure, Mission, Result
from netstack.rpc.schema import decode, encode

# How often the memory of children is looked at.
WATCH_S: Final = 0.2
# What is shown of an attempt's output.
LAST_LINES: Final = 40
LAST_BYTES: Final = 8000
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Pool(Protocol):
    """Runs attempts; the simulation has one without processes."""

    async def start(self) -> None:
        """Be ready."""

    async def run(self, mission: Mission) -> Result:
        """Run one attempt to its end, whatever that is."""

    def kill(self, attempt: str, why: str) -> None:
        """End one; its Result says why."""

    def progress(self, attempt: str) -> tuple[tuple[int, ...], str]:
        """Numbers and status of one that runs."""

    async def stop(self) -> None:
        """End all."""


class _Child:
    """One child process, idle or at its one attempt."""

    def __init__(self, nursery: _Nursery, task: socket.socket) -> None:
        self.nursery = nursery
        self.task = task
        self.pid: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.why = ""
        self.bytes_max = 0

    def kill(self) -> None:
        """With all that it has started."""
        if self.pid.done() and not self.status.done():
            for kill in (os.killpg, os.kill):  # one that is young leads no group yet
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    kill(self.pid.result(), signal.SIGKILL)


class _Nursery:
    """The process that forks them."""

    def __init__(self, on_death: Callable[[], None], variables: dict[str, str]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_death = on_death
        self._born: deque[_Child] = deque()
        self._living: dict[int, _Child] = {}
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        with theirs:
            command = [sys.executable, "-m", "mapreduce", "nursery"]
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(os.getpid())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                env={**os.environ, **variables},
            )
        self._loop.add_reader(self._control.fileno(), self._hear)

    async def ready(self) -> None:
        await asyncio.shield(self._ready)

    def fork(self, log: Path) -> _Child:
        """A child that waits for its mission; what it writes goes to `log`."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        child = _Child(self, ours)
        self._born.append(child)
        with theirs, log.open("ab") as file:
            socket.send_fds(self._control, [b"fork"], [theirs.fileno(), file.fileno()])
        return child

    def _hear(self) -> None:
        while True:
            try:
                data = self._control.recv(256)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._died()
                return
            if data == b"ready":
                if not self._ready.done():
                    self._ready.set_result(None)
                continue
            pid, *status = msgpack.unpackb(data)
            if not status:
                child = self._born.popleft()
                child.pid.set_result(pid)
                self._living[pid] = child
            elif (gone := self._living.pop(pid, None)) is not None:
                gone.status.set_result(status[0])

    def _died(self) -> None:
        """Its children die with it."""
        self._loop.remove_reader(self._control.fileno())
        for child in (*self._born, *self._living.values()):
            if not child.pid.done():
                child.pid.set_result(0)
            if not child.status.done():
                child.status.set_result(-signal.SIGKILL)
        self._born.clear()
        self._living.clear()
        if not self._ready.done():
            self._ready.set_exception(OSError("the nursery did not start"))
        self._on_death()

    def close(self) -> None:
        self._loop.remove_reader(self._control.fileno())
        self._control.close()
        self._process.kill()
        self._process.wait()
        if self._ready.done() and not self._ready.cancelled():
            self._ready.exception()

    def oversized(self) -> list[_Child]:
        """Children that hold more memory than their job allows."""
        return [
            child
            for pid, child in self._living.items()
            if child.bytes_max and resident_bytes(pid) > child.bytes_max
        ]


def resident_bytes(pid: int) -> int:
    """Memory of a process; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    except (OSError, IndexError):
        return 0


class ProcessPool:
    """See Pool.

    Args:
        folder: for the logs of children that wait.
        slots: attempts at a time; as many children wait, when warm.
        variables: for the environment of children, beside this process's own.
    """

    def __init__(
        self, folder: Path, slots: int, variables: dict[str, str], *, warm: bool = True
    ) -> None:
        self._folder = folder
        self._slots = slots
        self._warm = warm
        self._variables = variables
        self._nursery: _Nursery | None = None
        self._idle: deque[tuple[_Child, Path]] = deque()
        self._running: dict[str, tuple[_Child, Mission]] = {}
        self._number = 0
        self._watcher: asyncio.Task[None] | None = None
        self._stopping = False

    def __repr__(self) -> str:
        return f"<ProcessPool idle={len(self._idle)} running={len(self._running)}>"

    async def start(self) -> None:
        """See Pool."""
        self._watcher = asyncio.get_running_loop().create_task(self._watch(), name="memory")
        if self._warm:
            await self._a_nursery()
            self._fill()

    async def _a_nursery(self) -> _Nursery:
        if self._nursery is None:
            self._nursery = _Nursery(self._nursery_died, self._variables)
        await self._nursery.ready()
        return self._nursery

    def _nursery_died(self) -> None:
        """Somebody killed it: the next attempt has a new one."""
        if self._nursery is not None and not self._stopping:
            self._nursery.close()
        self._nursery = None
        self._drop_idle()

    def _fill(self) -> None:
        while self._nursery is not None and len(self._idle) < self._slots:
            self._idle.append(self._fork(self._nursery))

    def _fork(self, nursery: _Nursery) -> tuple[_Child, Path]:
        self._number += 1
        log = self._folder / f"child-{self._number}.log"
        return nursery.fork(log), log

    async def run(self, mission: Mission) -> Result:
        """See Pool."""
        attempt = mission.start.attempt
        nursery: _Nursery | None = None
        if self._warm and self._idle:
            child, log = self._idle.popleft()
        elif self._warm:
            child, log = self._fork(await self._a_nursery())
        else:
            nursery = _Nursery(lambda: None, self._variables)
            await nursery.ready()
            child, log = self._fork(nursery)
        child.bytes_max = mission.job.child_bytes_max
        self._running[attempt] = (child, mission)
        try:
            return await self._converse(child, mission, log)
        finally:
            child.kill()
            child.task.close()
            del self._running[attempt]
            with contextlib.suppress(OSError):
                log.unlink()
            if nursery is not None:
                nursery.close()
            if not self._stopping:
                self._fill()

    async def _converse(self, child: _Child, mission: Mission, log: Path) -> Result:
        loop = asyncio.get_running_loop()
        data = msgpack.packb(encode(mission))
        answer = b""
        with contextlib.suppress(OSError):
            await loop.sock_sendall(child.task, LENGTH.pack(len(data)) + data)
            answer = await _read(loop, child.task)
        if answer:
            return decode(Result, msgpack.unpackb(answer))
        status = await child.status
        start = mission.start
        return Result(
            start.attempt,
            start.job_id,
            start.kind,
            start.index,
            failure=_death(child.why, status, mission, log),
        )

    def kill(self, attempt: str, why: str) -> None:
        """See Pool."""
        if attempt in self._running:
            child, _ = self._running[attempt]
            child.why = child.why or why
            if child.pid.done():
                child.kill()
            else:
                child.pid.add_done_callback(lambda _: child.kill())

    def progress(self, attempt: str) -> tuple[tuple[int, ...], str]:
        """See Pool."""
        if attempt not in self._running:
            return (0, 0, 0), ""
        return read_progress(progress_path(self._running[attempt][1].folder))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            for attempt, (child, _) in list(self._running.items()):
                if child in child.nursery.oversized():
                    self.kill(attempt, "memory")

    def _drop_idle(self) -> None:
        while self._idle:
            child, log = self._idle.popleft()
            child.task.close()
            with contextlib.suppress(OSError):
                log.unlink()

    async def stop(self) -> None:
        """See Pool."""
        self._stopping = True
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
        for attempt in list(self._running):
            self.kill(attempt, "cancelled")
        self._drop_idle()
        if self._nursery is not None:
            self._nursery.close()
            self._nursery = None


async def _read(loop: asyncio.AbstractEventLoop, task: socket.socket) -> bytes:
    """The one answer; empty if the child ended without one."""
    data = b""
    while len(data) < LENGTH.size or len(data) < LENGTH.size + LENGTH.unpack_from(data)[0]:
        more = await loop.sock_recv(task, 1 << 18)
        if not more:
            return b""
        data += more
    return data[LENGTH.size :]


def _death(why: str, status: int, mission: Mission, log: Path) -> Failure:
    """What is known of a child that has died."""
    (record, *_), _ = read_progress(progress_path(mission.folder))
    if why == "hung":
        kind, text = why, f"no progress for {mission.job.timeout_s:g} s"
    elif why == "memory":
        kind, text = why, f"more than {mission.job.child_bytes_max >> 20} MB of memory"
    elif why:
        kind, text = "lost", why
    elif status < 0:
        kind, text = "crashed", f"died by {_signal_name(-status)} (signal {-status})"
    else:
        kind, text = "exited", f"ended by itself with status {status}"
    try:
        lines = log.read_bytes()[-LAST_BYTES:].decode(errors="backslashreplace").splitlines()
    except OSError:
        lines = []
    return Failure(kind, text, record, last_lines="\n".join(lines[-LAST_LINES:]))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "a signal"
