"""`ring bench recovery`: how long an elastic run of training takes to get over kill -9.

Two workers and a parameter server on a cluster of three raftd nodes. In turn a worker is killed,
the first of them (which commits), and the parameter server, each started again once the others have
gone on; then the leader of raftd. Times are from the kill, by the clock that all processes of a
host share, as the ranks themselves stamp what they say. The bars are those that this project has
set itself, and hold for the *worst* trial:

    the error on all survivors          200 ms
    the next step, committed            1 s
    a restarted rank healed             3 s     from where its process speaks: Python and numpy
                                                have been imported, which is a row of its own
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from cluster.bench.harness import Report, Row

TRIALS: Final = 20
JOB: Final = {"steps": 1_000_000, "batch": 48, "width": 32, "depth": 1}
SERVER: Final = "ps"
NAMES: Final = ("w1", "w2", SERVER)
WAIT_S: Final = 90.0

# The limits, in milliseconds.
BARS_MS: Final = {"error on all survivors": 200.0, "next step": 1000.0, "healed": 3000.0}

Event = dict[str, Any]


class NothingCame(RuntimeError):
    """What was waited for was not said; a benchmark without figures."""


class Ranks:
    """The run's processes, and what they say as it comes.

    Args:
        home: of the cluster.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self._readers: list[threading.Thread] = []
        self._said: queue.SimpleQueue[tuple[str, Event]] = queue.SimpleQueue()

    def __repr__(self) -> str:
        return f"<Ranks {sorted(self.processes)}>"

    def start(self, name: str) -> None:
        """Another life of `name`."""
        command = [sys.executable, "-m", "ddp.training", "worker", "--job", json.dumps(JOB)]
        command += ["--config", str(self.home / "cluster.toml"), "--run", "bench", "--name", name]
        command += ["--founders", str(len(NAMES))]
        command += ["--role", "server" if name == SERVER else "worker"]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.processes[name] = child
        reader = threading.Thread(target=self._read, args=(name, child), daemon=True)
        self._readers.append(reader)
        reader.start()

    def kill(self, name: str) -> float:
        """SIGKILL; when that was."""
        child, at = self.processes[name], time.monotonic()
        child.kill()
        child.wait()
        assert child.stdin is not None
        child.stdin.close()
        return at

    def said(self) -> Iterator[tuple[str, Event]]:
        """(who, what), for so long as somebody speaks within WAIT_S."""
        while True:
            try:
                yield self._said.get(timeout=WAIT_S)
            except queue.Empty:
                raise NothingCame(f"nobody has said anything for {WAIT_S:g} s") from None

    def close(self) -> None:
        """End all."""
        for child in self.processes.values():
            child.kill()
            child.wait()
            assert child.stdin is not None
            child.stdin.close()
        for reader in self._readers:
            reader.join()

    def _read(self, name: str, child: subprocess.Popen[str]) -> None:
        assert child.stdout is not None
        with child.stdout as lines, contextlib.suppress(ValueError):  # killed in mid-line
            for line in lines:
                self._said.put((name, json.loads(line)))


def first_of(
    said: Iterator[tuple[str, Event]], wanted: Callable[[str, Event], bool]
) -> tuple[str, Event]:
    """The first that is wanted."""
    deadline = time.monotonic() + WAIT_S
    for name, event in said:
        if wanted(name, event):
            return name, event
        if time.monotonic() > deadline:
            break
    raise NothingCame(f"it was not said in {WAIT_S:g} s")


def whole(_: str, event: Event) -> bool:
    """All ranks have done a step."""
    return bool(event["kind"] == "step" and event["members"] == len(NAMES))


def after_death(
    said: Iterator[tuple[str, Event]], victim: str, killed: float
) -> tuple[float, float]:
    """Seconds from the kill to the error on all others, and to a step of these alone."""
    others = set(NAMES) - {victim}
    told: dict[str, float] = {}
    step = None
    for name, event in said:
        if name in others and event["kind"] == "lost" and event["name"] == victim:
            told.setdefault(name, event["at"] - killed)
        elif event["kind"] == "step" and event["members"] == len(others):
            step = step or event["at"] - killed
        if step is not None and set(told) == others:
            return max(told.values()), step
    raise NothingCame("nobody speaks any more")


def committed_after(said: Iterator[tuple[str, Event]], killed: float) -> float:
    """Seconds from the kill to a step that was committed after it.

    A step that is told of after the kill may have been committed before. The one behind it was not:
    its sum wants a vote of who told, and that is cast after the telling.
    """
    seen = None
    for _, event in said:
        if event["kind"] != "step" or event["at"] <= killed:
            continue
        if seen is None:
            seen = event["step"]
        elif event["step"] > seen:
            return float(event["at"] - killed)
    raise NothingCame("nobody speaks any more")


def run(*, peers: bool, seconds: float = 3.0) -> Report:
    """All trials; there is no peer, and their number is fixed. Raises RuntimeError."""
    found: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="ring-recovery-") as folder:
        home = Path(folder) / "home"
        _ring(home, "up", "raft=3", "--any-port")
        ranks = Ranks(home)
        try:
            for name in NAMES:
                ranks.start(name)
            for _ in range(TRIALS):
                for who in ("a worker", "the first", "the parameter server"):
                    for what, took in _kill_a_rank(ranks, who):
                        found.setdefault((who, what), []).append(took)
                took = _kill_the_leader(ranks)
                found.setdefault(("the leader of raftd", "next step"), []).append(took)
        finally:
            ranks.close()
            _ring(home, "down")
    return Report("recovery", rows(found))


def rows(found: dict[tuple[str, str], list[float]]) -> list[Row]:
    """The median, and the worst, which has the bar."""
    made = []
    for (who, what), times in found.items():
        case = f"{who} is killed: {what}"
        note = f"{len(times)} trials"
        made.append(Row(case, "median", "ms", statistics.median(times) * 1e3, note=note))
        made.append(Row(case, "worst", "ms", max(times) * 1e3, bar=BARS_MS.get(what), note=note))
    return made


def victim_of(who: str, event: Event) -> str:
    """Its name, by a step of all."""
    if who == "the parameter server":
        return str(event["server"])
    if who == "the first":
        return str(event["first"])
    return next(name for name in NAMES if name not in (event["first"], event["server"]))


def _kill_a_rank(ranks: Ranks, who: str) -> list[tuple[str, float]]:
    said = ranks.said()
    _, event = first_of(said, whole)
    victim = victim_of(who, event)
    killed = ranks.kill(victim)
    error, step = after_death(said, victim, killed)
    began = time.monotonic()
    ranks.start(victim)
    _, born = first_of(said, lambda name, e: name == victim and e["kind"] == "started")
    _, back = first_of(said, lambda name, e: name == victim and e["kind"] == "step")
    return [
        ("error on all survivors", error),
        ("next step", step),
        ("healed", back["at"] - born["at"]),
        ("healed, imports and all", back["at"] - began),
    ]


def _kill_the_leader(ranks: Ranks) -> float:
    said = ranks.said()
    first_of(said, whole)
    name, pid = _leader(ranks.home)
    killed = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    took = committed_after(said, killed)
    _ring(ranks.home, "restart", name)
    return took


def _leader(home: Path) -> tuple[str, int]:
    """Its name and pid."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        for node in json.loads(_ring(home, "status", "--json"))["nodes"]:
            if node["says"].get("role") == "leader":
                return node["name"], node["pid"]
    raise NothingCame("raftd has no leader")


def _ring(home: Path, *words: str) -> str:
    """A command of this cluster; its stdout. Raises RuntimeError."""
    environment = {**os.environ, "RING_HOME": str(home)}
    command = [sys.executable, "-m", "cluster", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode and words[0] != "status":  # one that is ill reports, and says so
        raise RuntimeError(f"ring {' '.join(words)}: {done.stderr[-500:]}")
    return done.stdout
