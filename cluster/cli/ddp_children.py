"""Processes that say what they do in JSON lines, and never outlive the command that started them.

Each has a pipe as its standard input, which closes when this process ends, however it ends; ranks
end with it. A process that only computes ends when it next has something to say.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cluster.errors import Unhealthy, Usage

# A child that was told to end gets so long.
END_S = 10.0

Event = dict[str, Any]


def lines_of(module: str, *arguments: str) -> Iterator[Event]:
    """What one child says; raises what it ended with."""
    with _start([sys.executable, "-m", module, *arguments], threads=1) as child:
        try:
            assert child.stdout is not None
            assert child.stderr is not None
            errors: list[str] = []
            reader = threading.Thread(target=lambda: errors.extend(child.stderr or ()), daemon=True)
            reader.start()
            for line in child.stdout:
                yield json.loads(line)
            status = child.wait()
            reader.join()
            if status == 2:
                raise Usage("".join(errors).strip())
            if status:
                raise Unhealthy(f"{module} ended with status {status}\n{''.join(errors)}".strip())
        finally:
            child.kill()


def _start(command: Sequence[str], threads: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # an interrupt is for the command, which then ends its children
        env={**os.environ, "OPENBLAS_NUM_THREADS": str(threads)},
    )


class Children:
    """Some processes at once, by name; those that die are started again."""

    def __init__(self, commands: Mapping[str, Sequence[str]]) -> None:
        self._commands = commands
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._readers: dict[str, threading.Thread] = {}
        self._events: queue.SimpleQueue[tuple[str, Event | None]] = queue.SimpleQueue()

    def __enter__(self) -> Children:
        for name in self._commands:
            self._launch(name)
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._running.values():
            assert child.stdin is not None
            child.stdin.close()
        for child in self._running.values():
            try:
                child.wait(END_S)
            except subprocess.TimeoutExpired:  # stopped, or stuck
                child.kill()
                child.wait()
        for reader in self._readers.values():
            reader.join()
        for child in self._running.values():
            _close(child)

    def events(self, restarts_max: int) -> Iterator[tuple[str, Event]]:
        """(who, what), for ever; raises Unhealthy when one dies too often."""
        deaths: Counter[str] = Counter()
        while True:
            name, event = self._events.get()
            if event is not None:
                yield name, event
                continue
            child = self._running[name]
            status = child.wait()
            self._readers[name].join()
            assert child.stderr is not None
            why = child.stderr.read().strip().rpartition("\n")[2]
            deaths[name] += 1
            if status > 0 or deaths[name] > restarts_max:  # it ended by itself
                raise Unhealthy(f"{name} ended with status {status}: {why}")
            yield name, {"kind": "killed", "status": status}
            _close(child)
            self._launch(name)

    def _launch(self, name: str) -> None:
        child = self._running[name] = _start(self._commands[name], threads=1)
        reader = threading.Thread(target=self._read, args=(name, child), daemon=True)
        self._readers[name] = reader
        reader.start()

    def _read(self, name: str, child: subprocess.Popen[str]) -> None:
        assert child.stdout is not None
        for line in child.stdout:
            try:
                self._events.put((name, json.loads(line)))
            except ValueError:
                continue  # kill -9 cut its last line short
        self._events.put((name, None))


def _close(child: subprocess.Popen[str]) -> None:
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()
