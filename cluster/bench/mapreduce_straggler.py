"""A worker that is slow: what works under it is stopped and continued, nine tenths of the time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

STOPPED_S: Final = 0.18
RUNS_S: Final = 0.02
# How often it is looked for new children, while those that are known stand still.
LOOK_S: Final = 0.01


@contextmanager
def slowed(home: Path, name: str) -> Iterator[None]:
    """The children of worker `name` run a tenth of the time."""
    pid = json.loads((home / "run" / "pids.json").read_text())[name]["pid"]
    ended = threading.Event()

    def strobe() -> None:
        known: list[int] = []
        while not ended.is_set():
            until = time.monotonic() + STOPPED_S
            while time.monotonic() < until:
                _signal(known, signal.SIGSTOP)
                ended.wait(LOOK_S)
                known = busy_children(pid)
            # Nothing is looked up from here on: it would be time in which they run.
            _signal(known, signal.SIGCONT)
            ended.wait(RUNS_S)
            _signal(known, signal.SIGSTOP)
        _signal(known, signal.SIGCONT)

    thread = threading.Thread(target=strobe)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def busy_children(pid: int) -> list[int]:
    """The processes under `pid` that are at an attempt: each in a folder of its own."""
    found = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, listed.read_text().split()):
                found += busy_children(child)
                with contextlib.suppress(OSError):
                    if "/scratch/" in os.readlink(f"/proc/{child}/cwd"):
                        found.append(child)
    return found


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
