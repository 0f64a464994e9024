"""`ring bench mapreduce`: word count, inverted index, sort and start-up, on two worker processes.

    word count   256 MB of text found on this machine     beside counting by hand: on a
                                                          multiprocessing pool, on Dask, on Ray
      by record  8 MB of it, a pair a word                beside Dask bag, PySpark RDD, mrjob
    index        64 MB of it in files of 1 MB
      by record  8 of the files                           beside Dask bag, PySpark RDD, mrjob
    sort         5,000,000 records of 100 bytes           beside GNU sort
      of 8 MB    80,000 of them                           beside PySpark RDD, mrjob
    start-up     a job of 1 KB on a warm cluster          beside the same three, and cold workers
    shuffle      the sort of lines, files or direct       straggler: with and without second copies
    graph        ten thousand tasks that do nothing, each a node of a graph

Ours is timed from the call to the finished output, planning included, on a cluster that is up. What
is counted of a peer, which runs in a process of its own, is told in mapreduce_peers.py. All figures
are medians of ROUNDS taken in turn with the peers on the same input. The slow peers get 8 MB and
not all of it; the rows of the large inputs hold ours against the rates that they had on the small.

In the first round the outputs of all are compared (mapreduce_outputs.py). Whoever fails, or finds
something else than we do, makes a row that does not hold.
"""

from __future__ import annotations

import json
import math
import operator
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cluster.bench.harness import Failed, Report, Row
from cluster.bench.mapreduce_inputs import real_text, write_records
from cluster.bench.mapreduce_outputs import checksum
from cluster.bench.mapreduce_peers import missing
from cluster.bench.mapreduce_straggler import slowed
from mapreduce.client import Job, run_sync
from mapreduce.graph.client import SyncGraphClient

MB: Final = 1_000_000
TEXT_MB: Final = 256
INDEX_MB: Final = 64
SMALL_MB: Final = 8
LONG_MB: Final = 32
# Fewer than one worker ends while another, ten times as slow, is at its first: so that is always
# waited for without second copies. Of sixteen it might, or might not, be at the end of one.
STRAGGLER_MAPS: Final = 7
RECORDS: Final = 5_000_000
RECORD_BYTES, KEY_BYTES = 100, 10
GRAPH_TASKS: Final = 10_000
ROUNDS: Final = 3
# A peer that takes longer hangs.
PEER_S_MAX: Final = 600.0

# What this project asks of itself.
BAR_BY_HAND: Final = 0.6
BAR_GNU_SORT: Final = 1 / 1.5
BAR_START_S: Final = 0.5
BAR_GRAPH_MS: Final = 1.0

EXAMPLES: Final = "mapreduce.examples"
SLOW: Final = {"mrjob": 1.0, "dask bag": 1.0, "pyspark": 1.0}
BY_HAND: Final = {"by hand": BAR_BY_HAND, "dask by hand": 1.0, "ray by hand": 1.0}
FIXED: Final = {"record_bytes": RECORD_BYTES, "key_bytes": KEY_BYTES, "partition": "range"}


def run(*, peers: bool, seconds: float = 3.0) -> Report:
    """All cases; `seconds` is not used, as each case is a whole job."""
    report = Report("mapreduce")
    with tempfile.TemporaryDirectory(prefix="ring-bench-") as name:
        bench = Bench(Path(name), peers=peers)
        bench.make_inputs()
        with cluster(bench.folder / "warm") as home:
            bench.home = home
            report.rows += bench.word_count()
            report.rows += bench.index()
            report.rows += bench.sort()
            report.rows += bench.start_up()
            report.rows += bench.shuffles()
            report.rows += bench.straggler()
        report.rows += bench.graph()
    return report


@contextmanager
def cluster(home: Path, service: str = "mapreduce", **settings: Any) -> Iterator[Path]:
    """Two workers (and a master), as `ring up mapreduce=2` starts them."""

    def ring(*arguments: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "cluster", *arguments],
            env={**os.environ, "RING_HOME": str(home)},
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    ring("up", f"{service}=2", "--any-port")
    try:
        if settings:
            lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
            with (home / "cluster.toml").open("a") as file:
                file.write("\n".join(["", "[mapreduce]", *lines, ""]))
            ring("restart", "w1,w2")
        yield home
    finally:
        ring("down")


@dataclass(slots=True)
class Turns:
    """What some rounds gave: seconds, and what was wrong with whom."""

    ours: list[float] = field(default_factory=list)
    theirs: dict[str, list[float]] = field(default_factory=dict)
    start_s: dict[str, float] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)


class Bench:
    """Inputs, and the cases over them."""

    def __init__(self, folder: Path, *, peers: bool) -> None:
        self.folder = folder
        self.home = folder
        self._peers = peers
        self._number = 0

    def make_inputs(self) -> None:
        """Text of this machine, and random records."""
        text = real_text(TEXT_MB * MB)
        (self.folder / "text").write_bytes(text)
        (self.folder / "small").write_bytes(text[: SMALL_MB * MB])
        (self.folder / "long").write_bytes(text[: LONG_MB * MB])
        for name, count in (("index", INDEX_MB), ("small-index", SMALL_MB)):
            (self.folder / name).mkdir()
            for i in range(count):
                (self.folder / name / f"f{i:03}").write_bytes(text[i * MB : (i + 1) * MB])
        (self.folder / "tiny").write_bytes(text[:1000])
        write_records(self.folder / "records", RECORDS, RECORD_BYTES)
        write_records(
            self.folder / "few-records", min(RECORDS, SMALL_MB * MB // RECORD_BYTES), RECORD_BYTES
        )

    # -- one job

    def ours(self, program: str, inputs: str, look: str = "", **more: Any) -> tuple[float, str]:
        """Seconds of one job; and, if its case is given as `look`, the checksum of its output."""
        self._number += 1
        out = self.folder / f"out{self._number}"
        began = time.perf_counter()
        run_sync(
            Job(f"{EXAMPLES}.{program}", [str(self.folder / inputs)], str(out), **more),
            config=self.home / "cluster.toml",
        )
        took = time.perf_counter() - began
        found = checksum(look, out) if look else ""
        shutil.rmtree(out)
        return took, found

    def peer(self, name: str, case: str, inputs: str) -> dict[str, Any]:
        """What a peer says of one job; or `wrong`, what became of it."""
        out = self.folder / "peer-out"
        command = [sys.executable, "-m", "cluster.bench.mapreduce_peers", name, case]
        try:
            done = subprocess.run(
                [*command, str(self.folder / inputs), str(out)],
                capture_output=True,
                text=True,
                timeout=PEER_S_MAX,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"wrong": f"{name} took more than {PEER_S_MAX:g} s"}
        finally:
            shutil.rmtree(out, ignore_errors=True)
            out.unlink(missing_ok=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
            return {"wrong": f"{name} failed: {last[:200]}"}
        return dict(json.loads(done.stdout.splitlines()[-1]))

    # -- rounds in turn

    def turns(
        self, case: str, inputs: str, ours: Callable[[str], tuple[float, str]], rivals: list[str]
    ) -> Turns:
        """Rounds of ours (which is told the case when its output is to be looked at) and theirs."""
        turns = Turns()
        present = [name for name in rivals if self._peers and not missing(name)]
        for number in range(ROUNDS):
            took, mine = ours("" if number else case)
            turns.ours.append(took)
            for name in present:
                if name in turns.wrong:
                    continue
                told = self.peer(name, case, inputs)
                if "wrong" not in told and not number and told["checksum"] != mine:
                    told = {"wrong": f"{name} found something else than we did"}
                if "wrong" in told:
                    turns.wrong[name] = told["wrong"]
                    continue
                turns.theirs.setdefault(name, []).append(told["seconds"])
                turns.start_s[name] = told["start_s"]
        return turns

    def size_mb(self, inputs: str) -> float:
        """Of a file or of the files of a folder."""
        path = self.folder / inputs
        files = list(path.iterdir()) if path.is_dir() else [path]
        return sum(file.stat().st_size for file in files) / MB

    def rates(
        self,
        case: str,
        mine: tuple[Turns, str],
        theirs: tuple[Turns, str],
        rivals: Mapping[str, float],
    ) -> list[Row]:
        """A row a rival (with its bar): MB/s, each over its own input."""
        rate = self.size_mb(mine[1]) / statistics.median(mine[0].ours)
        size = self.size_mb(theirs[1])
        note = "" if mine[1] == theirs[1] else f"theirs on {size:g} MB"
        return self.rows(case, "rate", "MB/s", rate, theirs[0], rivals, lambda s: size / s, note)

    def rows(
        self,
        case: str,
        metric: str,
        unit: str,
        ours: float,
        turns: Turns,
        rivals: Mapping[str, float],
        figure: Callable[[float], float],
        note: str = "",
    ) -> list[Row]:
        """Ours beside each rival; `figure` of their median seconds."""
        if not self._peers:
            return [Row(case, metric, unit, ours)]
        found: list[Row] = []
        for name, bar in rivals.items():
            if name in turns.wrong:
                wrong = turns.wrong[name]
                found.append(Failed(case, metric, unit, ours, name, None, bar, wrong))
            elif name not in turns.theirs:
                absent = f"{name} is not installed"
                found.append(Row(case, metric, unit, ours, name, None, bar, absent))
            else:
                value = figure(statistics.median(turns.theirs[name]))
                start = f"its start, {turns.start_s[name]:.1f} s, is not counted"
                both = "; ".join(filter(None, (note, start)))
                found.append(Row(case, metric, unit, ours, name, value, bar, both))
        return found

    # -- the cases

    def word_count(self) -> list[Row]:
        """256 MB by the chunk; and by the record, on less."""
        by_chunk = self.turns(
            "wordcount", "text", lambda look: self.ours("wordcount", "text", look), list(BY_HAND)
        )
        half = SMALL_MB * MB // 2
        by_record = self.turns(
            "wordcount",
            "small",
            lambda look: self.ours("wordcount_by_record", "small", look, split_bytes=half),
            list(SLOW),
        )
        whole, small = (by_chunk, "text"), (by_record, "small")
        rows = self.rates("word count", whole, whole, BY_HAND)
        if self._peers:
            rows += self.rates("word count", whole, small, SLOW)
        return [*rows, *self.rates("word count by record", small, small, SLOW)]

    def index(self) -> list[Row]:
        """64 files of 1 MB by the chunk; and by the record, on 8."""
        by_chunk = self.turns(
            "index", "index", lambda look: self.ours("inverted_index", "index", look), []
        )
        by_record = self.turns(
            "index",
            "small-index",
            lambda look: self.ours("inverted_index_by_record", "small-index", look),
            list(SLOW),
        )
        whole, small = (by_chunk, "index"), (by_record, "small-index")
        rows = self.rates("inverted index", whole, small, SLOW)
        return [*rows, *self.rates("inverted index by record", small, small, SLOW)]

    def sort(self) -> list[Row]:
        """500 MB of records, and 8 MB of them."""
        large, few = {"gnu sort": BAR_GNU_SORT}, {"pyspark": 1.0, "mrjob": 1.0}
        all_ = self.turns(
            "sort", "records", lambda look: self.ours("sort", "records", look, **FIXED), list(large)
        )
        some = self.turns(
            "sort",
            "few-records",
            lambda look: self.ours("sort", "few-records", look, **FIXED),
            list(few),
        )
        whole, small = (all_, "records"), (some, "few-records")
        rows = self.rates("sort", whole, whole, large)
        if self._peers:
            rows += self.rates("sort", whole, small, few)
        return [*rows, *self.rates(f"sort of {SMALL_MB} MB", small, small, few)]

    def start_up(self) -> list[Row]:
        """A job of 1 KB: warm, and where every attempt begins with a new interpreter."""
        self.ours("wordcount", "tiny")
        turns = self.turns(
            "wordcount", "tiny", lambda look: self.ours("wordcount", "tiny", look), list(SLOW)
        )
        warm = statistics.median(turns.ours)
        mine = self.home
        with cluster(self.folder / "cold", warm=False) as self.home:
            self.ours("wordcount", "tiny")
            cold = statistics.median(self.ours("wordcount", "tiny")[0] for _ in range(ROUNDS))
        self.home = mine
        rows = [Row("1 KB job", "time", "s", warm, bar=BAR_START_S)]
        if self._peers:
            rows += self.rows("1 KB job", "time", "s", warm, turns, SLOW, float)
        return [*rows, Row("1 KB job", "time", "s", warm, "cold workers", cold)]

    def shuffles(self) -> list[Row]:
        """The same sort of lines, by files and direct."""
        more: dict[str, Any] = {"partition": "range", "split_bytes": MB}
        times: dict[str, list[float]] = {"files": [], "direct": []}
        for _ in range(ROUNDS):
            for how, taken in times.items():
                taken.append(self.ours("sort", "small", shuffle=how, **more)[0])
        files, direct = (statistics.median(taken) for taken in times.values())
        return [Row("direct shuffle", "time", "s", direct, "through files", files)]

    def straggler(self) -> list[Row]:
        """One worker's children run a tenth of the time; with second copies and without."""
        times: dict[bool, list[float]] = {True: [], False: []}
        split = math.ceil(LONG_MB * MB / STRAGGLER_MAPS)
        with slowed(self.home, "w1"):
            for _ in range(ROUNDS):
                for backups, taken in times.items():
                    job = ("wordcount_by_record", "long")
                    taken.append(self.ours(*job, backups=backups, split_bytes=split)[0])
        with_them, without = (statistics.median(taken) for taken in times.values())
        return [Row("straggler", "time", "s", with_them, "without backups", without)]

    def graph(self) -> list[Row]:
        """What a task of a graph costs beside what it does, which is nothing."""
        flat = {f"t{i}": (operator.index, i) for i in range(GRAPH_TASKS)}
        shapes: dict[str, tuple[dict[str, Any], Any]] = {
            "graph task": (flat, list(flat)),
            "graph task, one sum of all": ({**flat, "sum": (sum, list(flat))}, "sum"),
        }
        times: dict[str, list[float]] = {name: [] for name in shapes}
        with (
            cluster(self.folder / "graph", "graph") as home,
            SyncGraphClient(home / "cluster.toml") as client,
        ):
            client.get(flat, list(flat))  # everybody is awake
            for _ in range(ROUNDS):
                for name, (tasks, wanted) in shapes.items():
                    began = time.perf_counter()
                    client.get(tasks, wanted)
                    times[name].append((time.perf_counter() - began) / GRAPH_TASKS * 1e3)
        return [
            Row(name, "time", "ms", statistics.median(taken), bar=BAR_GRAPH_MS)
            for name, taken in times.items()
        ]
