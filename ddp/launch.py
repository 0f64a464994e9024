"""Starts the ranks of a group as processes of this machine, and gathers what they return.

    with Launch(4, "ddp.perf:measure", {"sizes": [4096]}) as launch:
        results = launch.results()          # one a rank, in their order

The target is `module:function`, called in each process as function(group, **arguments); arguments
and results are plain JSON. If the function is a generator, what it yields is told at once
(`events`), and what it returns is the result. Ranks die with whoever launched them, however that
ends; identities for the network are made for this launch alone, in a folder that goes with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from ddp.errors import BadCall, DdpError, GroupClosed, RankLost
from ddp.frames import RANKS_MAX
from ddp.group import TIMEOUT_S
from netstack.runtime.parent import die_with

STDERR: Final = 2

# A Python that imports numpy, on a machine that has other things to do.
START_S: Final = 60.0


class LaunchFailed(DdpError):
    """A rank ended without a result, or with an error; the message names it.

    `kind` is the name of the error's class, `text` what it said.
    """

    def __init__(self, rank: int, kind: str, text: str) -> None:
        super().__init__(f"rank {rank}: {kind}: {text}")
        self.kind, self.text = kind, text


class Launch:
    """See above.

    Args:
        transport: auto, network or shared (rank.py).
        timeout_s: of the group's calls.
        quiet: errors of ranks are not printed by them.
        hosts: on which host each rank is to think itself; without, all are on this one.
    """

    def __init__(
        self,
        size: int,
        target: str,
        arguments: dict[str, Any] | None = None,
        *,
        transport: str = "auto",
        timeout_s: float = TIMEOUT_S,
        quiet: bool = False,
        hosts: Sequence[str] = (),
    ) -> None:
        if not 1 <= size <= RANKS_MAX:
            raise BadCall(f"1 to {RANKS_MAX} ranks, not {size}")
        if hosts and len(hosts) != size:
            raise BadCall(f"{size} ranks, and {len(hosts)} of them have a host")
        self.size = size
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._children: list[subprocess.Popen[bytes]] = []
        self._pipes: list[int] = []
        self._lines: list[bytes] = [b""] * size
        self._ends: dict[int, dict[str, Any]] = {}
        home = ""
        try:
            if transport == "network" or hosts:
                self._folder = tempfile.TemporaryDirectory(prefix="ring-ddp-")
                home = self._folder.name
                make_identities(Path(home), size)
            for rank in range(size):
                self._spawn()
                job = {
                    "name": f"r{rank}",
                    "rank": rank,
                    "size": size,
                    "transport": transport,
                    "timeout_s": timeout_s,
                    "home": home,
                    "target": target,
                    "arguments": arguments or {},
                    "quiet": quiet,
                    "host": f"/{hosts[rank]}" if hosts else "",
                }
                self._write(rank, job)
            cards = [line["card"] for line in self._begun()]
            for rank in range(size):
                self._write(rank, cards)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<Launch ranks={self.size}>"

    def __enter__(self) -> Launch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Of the ranks."""
        return [child.pid for child in self._children]

    def signal(self, rank: int, number: signal.Signals) -> None:
        """Send a signal to one rank."""
        self._children[rank].send_signal(number)

    def events(self, timeout_s: float = 3600.0) -> Iterator[tuple[int, Any]]:
        """(rank, what it yielded) as it comes, until all have ended; then ask `results`."""
        left = [rank for rank in range(self.size) if rank not in self._ends]
        for rank, line in self._heard(left, timeout_s):
            if "event" in line:
                yield rank, line["event"]
            else:
                self._ends[rank] = line

    def results(self, timeout_s: float = 3600.0) -> list[Any]:
        """What all have returned; raises LaunchFailed.

        The error is that of a rank that failed by itself, if there is one: the others tell only
        that it has gone.
        """
        lines = self.outcomes(timeout_s)
        failed = [(rank, line) for rank, line in enumerate(lines) if "error" in line]
        failed.sort(key=lambda each: each[1]["kind"] in (RankLost.__name__, GroupClosed.__name__))
        for rank, line in failed:
            raise LaunchFailed(rank, line["kind"], line["error"])
        return [line["result"] for line in lines]

    def outcomes(self, timeout_s: float = 3600.0) -> list[dict[str, Any]]:
        """A map for each rank: its `result`, or the `kind` and text of its `error`."""
        for _ in self.events(timeout_s):
            pass
        return [self._ends[rank] for rank in range(self.size)]

    def outcome_of(self, rank: int, timeout_s: float) -> dict[str, Any]:
        """That of one rank, whatever becomes of the others."""
        for _, line in self._heard([rank], timeout_s):
            self._ends[rank] = line
        return self._ends[rank]

    def close(self) -> None:
        """End all that still runs."""
        for child in self._children:
            if child.poll() is None:
                child.kill()
            child.wait()
            assert child.stdin is not None
            with contextlib.suppress(OSError):
                child.stdin.close()
        for pipe in self._pipes:
            os.close(pipe)
        self._pipes.clear()
        if self._folder is not None:
            self._folder.cleanup()

    # -- inside

    def _spawn(self) -> None:
        reading, writing = os.pipe()
        # One rank a core is the plan: a BLAS that starts a thread a core would undo it.
        environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **os.environ}
        try:
            child = subprocess.Popen(
                [sys.executable, "-m", "ddp.rank", str(writing)],
                stdin=subprocess.PIPE,
                stdout=STDERR,  # stdout is its parent's data
                env=environment,
                pass_fds=(writing,),
                preexec_fn=partial(die_with, os.getpid()),
            )
        finally:
            os.close(writing)
        self._children.append(child)
        self._pipes.append(reading)

    def _begun(self) -> list[dict[str, Any]]:
        """The first line of each, with its card; raises LaunchFailed for one that has none."""
        lines: dict[int, dict[str, Any]] = {}
        for rank, line in self._heard(range(self.size), START_S):
            if "error" in line:
                raise LaunchFailed(rank, line["kind"], line["error"])
            lines[rank] = line
        return [lines[rank] for rank in range(self.size)]

    def _write(self, rank: int, what: Any) -> None:
        stdin = self._children[rank].stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is told where its line is missed
            stdin.write(json.dumps(what).encode() + b"\n")
            stdin.flush()

    def _heard(
        self, which: Iterable[int], timeout_s: float
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """What these ranks say: events, and of each at last its card, its result, or its death."""
        waiting, deadline = set(which), time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            for rank in waiting:
                selector.register(self._pipes[rank], selectors.EVENT_READ, rank)
            while waiting:
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    raise LaunchFailed(min(waiting), "Late", f"no word from it in {timeout_s:g} s")
                for key, _ in ready:
                    for line in self._read(key.data):
                        yield key.data, line
                        if "event" not in line:
                            waiting.discard(key.data)
                            selector.unregister(key.fileobj)

    def _read(self, rank: int) -> list[dict[str, Any]]:
        data = os.read(self._pipes[rank], 1 << 20)
        if not data:
            return [self._died(rank)]
        *lines, self._lines[rank] = (self._lines[rank] + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def _died(self, rank: int) -> dict[str, Any]:
        status = self._children[rank].wait()
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        return {"kind": "Died", "error": f"its process ended ({how})"}


def make_identities(home: Path, size: int) -> None:
    """An authority for one launch, and a certificate for each rank."""
    from ddp.switchboard import SERVICE
    from security import keystore
    from security.identity import Authority

    authority = Authority.create("ranks", now=time.time(), entropy=os.urandom)
    for rank in range(size):
        identity = authority.issue(f"r{rank}", SERVICE, now=time.time(), entropy=os.urandom)
        keystore.save_identity(home, identity)
