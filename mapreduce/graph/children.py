"""How a worker has its tasks run: in a child process, or, in the simulation, at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgpack

from mapreduce.graph.child import FORGET, FUNCTION, RUN, Runner

# After a child has died: so long until the next, and twice as long each time that it died idle.
AGAIN_S_MIN, AGAIN_S_MAX = 0.05, 2.0

# Between the end of a child's socket and its own.
END_S: Final = 0.5

# What a simulated task takes.
VIRTUAL_S: Final = 0.002

Answered = Callable[[list[Any]], None]
Died = Callable[[str], None]


class Child(Protocol):
    """Runs tasks in the order in which they come."""

    pid: int

    def function(self, digest: str, data: bytes) -> None:
        """A function that tasks will name."""

    def run(self, session: str, token: int, steps: Any, inputs: dict[str, bytes]) -> None:
        """Run a task; the answer comes by `on_answer`."""

    def forget(self, session: str, functions: list[str]) -> None:
        """A session is over, and nobody else uses these functions."""

    def close(self) -> None:
        """End it, whatever it does."""


class ChildProcess:
    """A child in a process of its own.

    Args:
        on_answer: called with each [DONE | FAILED, token, …].
        on_death: called once, with how it died.
    """

    def __init__(self, on_answer: Answered, on_death: Died) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._socket = ours
        self._on_answer = on_answer
        self._on_death = on_death
        self._unpacker = msgpack.Unpacker(raw=False, max_buffer_size=0)
        self._unsent = bytearray()
        self._loop = asyncio.get_running_loop()
        self._over = False
        with theirs:
            command = [sys.executable, "-m", "mapreduce.graph", "child"]
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self.pid = self._process.pid
        self._loop.add_reader(ours, self._read)

    def __repr__(self) -> str:
        return f"<ChildProcess {self.pid}>"

    def function(self, digest: str, data: bytes) -> None:
        """See Child."""
        self._send([FUNCTION, digest, data])

    def run(self, session: str, token: int, steps: Any, inputs: dict[str, bytes]) -> None:
        """See Child."""
        self._send([RUN, session, token, steps, inputs])

    def forget(self, session: str, functions: list[str]) -> None:
        """See Child."""
        self._send([FORGET, session, functions])

    def _send(self, message: list[Any]) -> None:
        if self._over:
            return
        waiting = bool(self._unsent)
        self._unsent += msgpack.packb(message)
        if not waiting:
            # At the end of this turn: a batch of tasks leaves in one write.
            self._loop.call_soon(self._write)

    def _write(self) -> None:
        if self._over or not self._unsent:
            return
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # the reader will see that it is gone
        del self._unsent[:sent]
        if self._unsent:
            self._loop.add_writer(self._socket, self._write)
        else:
            self._loop.remove_writer(self._socket)

    def _read(self) -> None:
        try:
            data = self._socket.recv(4 * 1024 * 1024)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._died()
            return
        self._unpacker.feed(data)
        for message in self._unpacker:
            self._on_answer(message)

    def _died(self) -> None:
        if self._over:
            return
        self._release()
        try:
            status = self._process.wait(END_S)  # its socket is closed: it is ending
        except subprocess.TimeoutExpired:
            self._process.kill()  # or a function has closed what is not its own
            status = self._process.wait()
        if status < 0:
            with contextlib.suppress(ValueError):
                self._on_death(f"killed by {signal.Signals(-status).name}")
                return
        self._on_death(f"ended with status {status}")

    def _release(self) -> None:
        self._over = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()

    def close(self) -> None:
        """See Child."""
        if not self._over:
            self._release()
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


class InlineChild:
    """Runs tasks in this process, each a moment later: for the simulation."""

    def __init__(self, on_answer: Answered, on_death: Died) -> None:
        self._on_answer = on_answer
        self._runner = Runner()
        self._loop = asyncio.get_running_loop()
        self._free_at = 0.0
        self._over = False
        self.pid = 0

    def __repr__(self) -> str:
        return "<InlineChild>"

    def function(self, digest: str, data: bytes) -> None:
        """See Child."""
        self._runner.add_function(digest, data)

    def run(self, session: str, token: int, steps: Any, inputs: dict[str, bytes]) -> None:
        """See Child."""
        self._free_at = max(self._free_at, self._loop.time()) + VIRTUAL_S
        self._loop.call_at(self._free_at, self._run, session, token, steps, inputs)

    def _run(self, session: str, token: int, steps: Any, inputs: dict[str, bytes]) -> None:
        if not self._over:
            self._on_answer(self._runner.run(session, token, steps, inputs))

    def forget(self, session: str, functions: list[str]) -> None:
        """See Child."""
        self._runner.forget(session, functions)

    def close(self) -> None:
        """See Child."""
        self._over = True
