"""`ring bench mapreduce`: word count, inverted index, sort and start-up, on two worker processes.

    word count   256 MB of text found on this machine     beside Dask bag, PySpark RDD, mrjob,
    index        64 MB of it in files of 1 MB             and a multiprocessing counter by hand
    sort         5,000,000 records of 100 bytes           beside GNU sort, PySpark RDD, mrjob
    start-up     a job of 1 KB on a warm cluster; and with cold workers
    shuffle      the sort of lines, files or direct       straggler: with and without second copies

Ours is timed from the call to the finished output, planning included, on a cluster that `ring up
mapreduce=2` started. The slow peers get 8 MB and not all of it: rates are compared, and their own
start is not counted, which favours them. Peers run in processes of their own (mapreduce_peers.py).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from cluster.bench.harness import Report, Row
from cluster.bench.mapreduce_peers import missing
from mapreduce.client import Job, run_sync

MB: Final = 1_000_000
TEXT_MB: Final = 256
INDEX_MB: Final = 64
SMALL_MB: Final = 8
LONG_MB: Final = 32  # by the record: tasks of half a second, of which a straggler's takes five
RECORDS: Final = 5_000_000
RECORD_BYTES, KEY_BYTES = 100, 10
ROUNDS: Final = 3

# What this project asks of itself.
BAR_BY_HAND: Final = 0.6
BAR_GNU_SORT: Final = 1 / 1.5
BAR_START_S: Final = 0.5

EXAMPLES: Final = "mapreduce.examples"
SOURCES: Final = (
    "/usr/share/doc",
    "/usr/share/common-licenses",
    "/usr/lib/python3",
    "/usr/lib/python3.11",
)


def run(*, peers: bool, seconds: float = 3.0) -> Report:
    """All cases; `seconds` is not used, as each case is a whole job."""
    report = Report("mapreduce")
    with tempfile.TemporaryDirectory(prefix="ring-bench-") as name:
        bench = Bench(Path(name))
        bench.make_inputs()
        with cluster(bench.folder / "warm") as home:
            bench.home = home
            report.rows += bench.word_count(peers)
            report.rows += bench.index(peers)
            report.rows += bench.sort(peers)
            report.rows += bench.start_up()
            report.rows += bench.shuffles()
            report.rows += bench.straggler()
    return report


@contextmanager
def cluster(home: Path, **settings: Any) -> Iterator[Path]:
    """Two workers and a master, as `ring up mapreduce=2` starts them."""

    def ring(*arguments: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "cluster", *arguments],
            env={**os.environ, "RING_HOME": str(home)},
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    ring("up", "mapreduce=2", "--any-port")
    try:
        if settings:
            lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
            with (home / "cluster.toml").open("a") as file:
                file.write("\n".join(["", "[mapreduce]", *lines, ""]))
            ring("restart", "w1,w2")
        yield home
    finally:
        ring("down")


class Bench:
    """Inputs, and the cases over them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder
        self._number = 0

    def make_inputs(self) -> None:
        """Text of this machine, and random records that are lines, too."""
        text = real_text(TEXT_MB * MB)
        (self.folder / "text").write_bytes(text)
        (self.folder / "small").write_bytes(text[: SMALL_MB * MB])
        (self.folder / "long").write_bytes(text[: LONG_MB * MB])
        (self.folder / "index").mkdir()
        for i in range(INDEX_MB):
            (self.folder / "index" / f"f{i:03}").write_bytes(text[i * MB : (i + 1) * MB])
        (self.folder / "tiny").write_bytes(text[:1000])
        dice = np.random.default_rng(1)
        rows = dice.integers(33, 127, (RECORDS, RECORD_BYTES), np.uint8)
        rows[:, -1] = 10
        rows.tofile(self.folder / "records")
        rows[: SMALL_MB * MB // RECORD_BYTES].tofile(self.folder / "few-records")

    def ours(self, program: str, inputs: str, **more: Any) -> float:
        """Seconds of one job."""
        self._number += 1
        out = self.folder / f"out{self._number}"
        began = time.perf_counter()
        run_sync(
            Job(f"{EXAMPLES}.{program}", [str(self.folder / inputs)], str(out), **more),
            config=self.home / "cluster.toml",
        )
        took = time.perf_counter() - began
        shutil.rmtree(out)
        return took

    def peer(self, name: str, case: str, inputs: str) -> float | None:
        """Seconds of a peer, by its own clock; None if it is not there."""
        if missing(name):
            return None
        out = self.folder / "peer-out"
        command = [sys.executable, "-m", "cluster.bench.mapreduce_peers", name, case]
        done = subprocess.run(
            [*command, str(self.folder / inputs), str(out)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        shutil.rmtree(out, ignore_errors=True)
        out.unlink(missing_ok=True)
        return float(done.stdout.splitlines()[-1]) if done.returncode == 0 else None

    def size_mb(self, inputs: str) -> float:
        """Of a file or of the files of a folder."""
        path = self.folder / inputs
        files = list(path.iterdir()) if path.is_dir() else [path]
        return sum(file.stat().st_size for file in files) / MB

    def rates(
        self,
        case: str,
        ours: Callable[[], float],
        inputs: str,
        rivals: list[tuple[str, str, float]],
        peers: bool,
        kind: str,
    ) -> list[Row]:
        """A row a rival (name, its input, bar): MB/s, medians of rounds taken in turn."""
        fast = [name for name, its, _ in rivals if its == inputs]
        mine: list[float] = []
        theirs: dict[str, list[float]] = {}
        for number in range(ROUNDS):
            mine.append(self.size_mb(inputs) / ours())
            for name, its, _ in rivals if peers else ():
                if number and name not in fast:
                    continue  # a slow one is far behind, and takes its time
                if (took := self.peer(name, kind, its)) is not None:
                    theirs.setdefault(name, []).append(self.size_mb(its) / took)
        median = statistics.median(mine)
        if not peers:
            return [Row(case, "rate", "MB/s", median)]
        return [
            Row(
                case, "rate", "MB/s", median, name,
                statistics.median(theirs[name]) if name in theirs else None, bar,
                "" if name in theirs else f"{name} is not installed, or failed",
            )
            for name, _, bar in rivals
        ]  # fmt: skip

    def word_count(self, peers: bool) -> list[Row]:
        """256 MB by the chunk; and by the record, on less."""
        rivals = [("by hand", "text", BAR_BY_HAND), *_slow("small")]
        rows = self.rates(
            "word count", lambda: self.ours("wordcount", "text"), "text", rivals, peers, "wordcount"
        )
        took = self.ours("wordcount_by_record", "small", split_bytes=SMALL_MB * MB // 2)
        return [*rows, Row("word count by record", "rate", "MB/s", SMALL_MB / took)]

    def index(self, peers: bool) -> list[Row]:
        """64 files of 1 MB."""
        return self.rates(
            "inverted index",
            lambda: self.ours("inverted_index", "index"),
            "index",
            _slow("small"),
            peers,
            "index",
        )

    def sort(self, peers: bool) -> list[Row]:
        """500 MB of records."""
        fixed = {"record_bytes": RECORD_BYTES, "key_bytes": KEY_BYTES, "partition": "range"}
        rivals = [
            ("gnu sort", "records", BAR_GNU_SORT),
            ("pyspark", "few-records", 1.0),
            ("mrjob", "few-records", 1.0),
        ]
        return self.rates(
            "sort", lambda: self.ours("sort", "records", **fixed), "records", rivals, peers, "sort"
        )

    def start_up(self) -> list[Row]:
        """A job of 1 KB: warm, and where every attempt begins with a new interpreter."""
        self.ours("wordcount", "tiny")
        warm = statistics.median(self.ours("wordcount", "tiny") for _ in range(7))
        mine = self.home
        with cluster(self.folder / "cold", warm=False) as self.home:
            self.ours("wordcount", "tiny")
            cold = statistics.median(self.ours("wordcount", "tiny") for _ in range(5))
        self.home = mine
        return [
            Row("1 KB job", "time", "s", warm, bar=BAR_START_S),
            Row("1 KB job", "time", "s", warm, "cold workers", cold),
        ]

    def shuffles(self) -> list[Row]:
        """The same sort of lines, by files and direct."""
        more = {"partition": "range", "split_bytes": MB}
        times: dict[str, list[float]] = {"files": [], "direct": []}
        for _ in range(ROUNDS):
            for how, taken in times.items():
                taken.append(self.ours("sort", "small", shuffle=how, **more))
        files, direct = (statistics.median(taken) for taken in times.values())
        return [Row("direct shuffle", "time", "s", direct, "through files", files)]

    def straggler(self) -> list[Row]:
        """One worker's children run a tenth of the time; with second copies and without."""
        times: dict[bool, list[float]] = {True: [], False: []}
        with slowed(self.home, "w1"):
            for _ in range(ROUNDS):
                for backups, taken in times.items():
                    job = ("wordcount_by_record", "long")
                    taken.append(self.ours(*job, backups=backups, split_bytes=2 * MB))
        with_them, without = (statistics.median(taken) for taken in times.values())
        return [Row("straggler", "time", "s", with_them, "without backups", without)]


def _slow(inputs: str) -> list[tuple[str, str, float]]:
    return [(name, inputs, 1.0) for name in ("mrjob", "dask bag", "pyspark")]


@contextmanager
def slowed(home: Path, name: str) -> Iterator[None]:
    """Stop and continue what works under a worker, nine tenths of the time stopped."""
    pid = json.loads((home / "run" / "pids.json").read_text())[name]["pid"]
    ended = threading.Event()

    def strobe() -> None:
        while not ended.is_set():
            children = busy_children(pid)
            _signal(children, signal.SIGSTOP)
            ended.wait(0.18)
            _signal(children, signal.SIGCONT)
            ended.wait(0.02)

    thread = threading.Thread(target=strobe)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def busy_children(pid: int) -> list[int]:
    """The processes under `pid` that are at an attempt."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            child = int(path.parent.name)
            if parent == pid:
                found += busy_children(child)
                if "/scratch/" in os.readlink(path.parent / "cwd"):
                    found.append(child)
        except OSError:
            continue
    return found


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def real_text(size: int) -> bytes:
    """Documentation and source of this machine, in an order of its own; repeated if too little."""
    files = sorted(
        path
        for folder in SOURCES
        for suffix in ("*.py", "*.txt", "*.html", "copyright", "README*", "[A-Z]*")
        for path in Path(folder).rglob(suffix)
        if path.is_file()
    )
    random.Random(1).shuffle(files)
    parts, total = [], 0
    while total < size and files:
        for path in files:
            try:
                data = path.read_bytes()
            except OSError:
                continue
            if b"\0" in data[:1000]:
                continue
            parts.append(data if data.endswith(b"\n") else data + b"\n")
            total += len(parts[-1])
            if total >= size:
                break
    return b"".join(parts)[:size]
