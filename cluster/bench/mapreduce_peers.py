"""What `ring bench mapreduce` is compared with; each run in a process of its own.

    python -m cluster.bench.mapreduce_peers NAME CASE INPUT OUTPUT
    {"seconds": of the job, "start_s": until the peer was up, "checksum": of what it wrote}

Counted is the job: from handing it over to the finished output. Not counted is what is there once
for many jobs: the interpreter and its imports, a Spark session and its Python workers, Dask's and
Ray's processes, each of which has run something before the clock starts. mrjob's local runner
starts an interpreter for each task of each job; that is the job, and is counted.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from cluster.bench.mapreduce_outputs import checksum

MODULES: Final = {
    "dask bag": "dask",
    "dask by hand": "distributed",
    "ray by hand": "ray",
    "pyspark": "pyspark",
    "mrjob": "mrjob",
}
CHUNK_BYTES: Final = 4 * 1024 * 1024
PIECE_BYTES: Final = 64 * 1024 * 1024

MRJOB: Final = {
    "wordcount": """
    def mapper(self, _, line):
        for word in line.split():
            yield word, 1
    def combiner(self, word, counts):
        yield word, sum(counts)
    def reducer(self, word, counts):
        yield word, sum(counts)
""",
    "index": """
    def mapper(self, _, line):
        name = os.path.basename(os.environ["mapreduce_map_input_file"])
        for word in line.split():
            yield word, name
    def reducer(self, word, names):
        yield word, sorted(Counter(names).items())
""",
    "sort": """
    def mapper(self, _, line):
        yield line, None
    def reducer(self, line, nothing):
        for _ in nothing:
            yield line, None
""",
}

Job = Callable[[str, str, str], None]
"""Runs a case over an input into an output; what is counted."""


def missing(name: str) -> bool:
    """Whether a peer is not installed."""
    if name == "pyspark" and shutil.which("java") is None:
        return True
    if name == "gnu sort":
        return shutil.which("sort") is None
    return name in MODULES and importlib.util.find_spec(MODULES[name]) is None


def files_of(source: str) -> list[str]:
    """The input's files."""
    path = Path(source)
    return sorted(map(str, path.iterdir())) if path.is_dir() else [source]


# -- counting by hand: on a pool of processes, on Dask, on Ray


def pieces(source: str) -> list[tuple[str, int]]:
    """(file, where a piece of it begins)."""
    return [(source, at) for at in range(0, os.path.getsize(source), PIECE_BYTES)]


def count(piece: tuple[str, int]) -> Counter[bytes]:
    """The words of one piece."""
    path, start = piece
    end = start + PIECE_BYTES
    counts: Counter[bytes] = Counter()
    with Path(path).open("rb") as file:
        file.seek(start)
        if start:
            file.seek(start - 1)
            file.readline()
        while file.tell() < end and (data := file.read(min(CHUNK_BYTES, end - file.tell()))):
            counts.update((data if data.endswith(b"\n") else data + file.readline()).split())
    return counts


def write_counts(found: Iterable[Counter[bytes]], out: str) -> None:
    """Add them up, and write the lines."""
    total: Counter[bytes] = Counter()
    for counts in found:
        total.update(counts)
    with Path(out).open("wb") as file:
        file.writelines(b"%b\t%d\n" % pair for pair in sorted(total.items()))


@contextmanager
def by_hand() -> Iterator[Job]:
    """A pool of two processes that count chunks, as anybody would write it."""
    with get_context("fork").Pool(2) as pool:
        pool.map(abs, range(2))
        yield lambda case, source, out: write_counts(
            pool.imap_unordered(count, pieces(source)), out
        )


@contextmanager
def dask_by_hand() -> Iterator[Job]:
    """The same function on two of Dask's worker processes, results taken as they come."""
    from distributed import Client, as_completed

    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        client.gather(client.map(abs, range(4)))

        def job(case: str, source: str, out: str) -> None:
            futures = client.map(count, pieces(source), pure=False)
            write_counts((found for _, found in as_completed(futures, with_results=True)), out)

        yield job


@contextmanager
def ray_by_hand() -> Iterator[Job]:
    """The same function on two of Ray's worker processes, results taken as they come."""
    ray = importlib.import_module("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    remote = ray.remote(count)
    empty = str(Path(tempfile.mkdtemp()) / "empty")
    Path(empty).touch()
    ray.get([remote.remote((empty, 0)) for _ in range(4)])

    def results(source: str) -> Iterator[Counter[bytes]]:
        waiting = [remote.remote(piece) for piece in pieces(source)]
        while waiting:
            ready, waiting = ray.wait(waiting)
            yield ray.get(ready[0])

    try:
        yield lambda case, source, out: write_counts(results(source), out)
    finally:
        ray.shutdown()


# -- by the record


@contextmanager
def gnu_sort() -> Iterator[Job]:
    """By the same ten bytes, stable, with both cores; as a process, as it always runs."""

    def job(case: str, source: str, out: str) -> None:
        subprocess.run(
            ["sort", "-s", "-k1.1,1.10", "--parallel=2", "-S", "256M", "-o", out, source],
            env={**os.environ, "LC_ALL": "C"},
            check=True,
        )

    yield job


@contextmanager
def mrjob() -> Iterator[Job]:
    """Its local runner, which uses both cores."""
    with tempfile.TemporaryDirectory() as folder:
        classes = {case: _mrjob_class(case, body, Path(folder)) for case, body in MRJOB.items()}

        def job(case: str, source: str, out: str) -> None:
            options = ["-r", "local", "--no-cat-output", "--output-dir", out]
            made = classes[case]([*options, *files_of(source)])
            with made.make_runner() as runner:
                runner.run()

        yield job


def _mrjob_class(case: str, body: str, folder: Path) -> Any:
    """A class in a file, which its tasks run as a script."""
    path = folder / f"bench_{case}.py"
    head = "import os\nfrom collections import Counter\nfrom mrjob.job import MRJob\n"
    tail = 'if __name__ == "__main__":\n    J.run()\n'
    path.write_text(f"{head}class J(MRJob):\n{body}\n{tail}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.J


@contextmanager
def dask_bag() -> Iterator[Job]:
    """Bags on two processes."""
    from concurrent.futures import ProcessPoolExecutor

    import dask.bag

    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        config: dict[str, Any] = {"scheduler": "processes", "pool": pool}
        numbers = dask.bag.from_sequence(range(4), npartitions=4)
        numbers.map(_slowly).frequencies().compute(**config)  # both processes are up

        def job(case: str, source: str, out: str) -> None:
            files = files_of(source)
            if case == "wordcount":
                lines = dask.bag.read_text(files, blocksize=CHUNK_BYTES)
                found = lines.str.split().flatten().frequencies().compute(**config)
                texts = [f"{word}\t{n}\n" for word, n in found]
            else:
                lines = dask.bag.read_text(files, include_path=True)
                found = lines.map(_named_words).flatten().frequencies().compute(**config)
                texts = [f"{word}\t{names}\n" for word, names in _postings(found)]
            Path(out).write_text("".join(texts))

        yield job


def _slowly(number: int) -> int:
    time.sleep(0.2)
    return number


def _named_words(pair: tuple[str, str]) -> list[tuple[str, str]]:
    line, path = pair
    name = path.rpartition("/")[2]
    return [(word, name) for word in line.split()]


def _postings(found: Iterable[tuple[tuple[str, str], int]]) -> Iterator[tuple[str, str]]:
    """(word, file:count file:count …) of ((word, file), count)."""
    words: dict[str, list[str]] = {}
    for (word, name), number in sorted(found):
        words.setdefault(word, []).append(f"{name}:{number}")
    for word, names in words.items():
        yield word, " ".join(names)


@contextmanager
def pyspark() -> Iterator[Job]:
    """RDDs on local[2]."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    session = builder.getOrCreate()
    context = session.sparkContext
    context.setLogLevel("OFF")
    context.parallelize(range(4), 2).map(lambda x: x + 1).sum()  # its Python workers are up

    def job(case: str, source: str, out: str) -> None:
        if case == "sort":
            pairs = context.textFile(source, 4).map(lambda line: (line[:10], line))
            pairs.sortByKey(numPartitions=2).values().saveAsTextFile(out)
        elif case == "wordcount":
            words = context.textFile(source, 4).flatMap(lambda line: line.split())
            sums = words.map(lambda w: (w, 1)).reduceByKey(lambda a, b: a + b, 2)
            sums.map(lambda pair: f"{pair[0]}\t{pair[1]}").saveAsTextFile(out)
        else:
            texts = context.wholeTextFiles(source, 4)
            words = texts.flatMap(_words_of)
            sums = words.reduceByKey(lambda a, b: a + b, 2)
            named = sums.map(lambda p: (p[0][0], f"{p[0][1]}:{p[1]}")).groupByKey(2)
            named.map(lambda p: f"{p[0]}\t{' '.join(sorted(p[1]))}").saveAsTextFile(out)

    try:
        yield job
    finally:
        session.stop()


def _words_of(pair: tuple[str, str]) -> Iterator[tuple[tuple[str, str], int]]:
    path, text = pair
    name = path.rpartition("/")[2]
    for line in text.split("\n"):
        for word in line.split():
            yield (word, name), 1


PEERS: Final = {
    "by hand": by_hand,
    "dask by hand": dask_by_hand,
    "ray by hand": ray_by_hand,
    "gnu sort": gnu_sort,
    "mrjob": mrjob,
    "dask bag": dask_bag,
    "pyspark": pyspark,
}


def process_age_s() -> float:
    """Since this process was started."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def main(name: str, case: str, source: str, out: str) -> None:
    """Run one, and say how it went."""
    with redirect_stdout(io.StringIO()), PEERS[name]() as job:
        start_s = process_age_s()
        began = time.perf_counter()
        job(case, source, out)
        seconds = time.perf_counter() - began
    found = checksum(case, Path(out), as_json=name == "mrjob")
    print(json.dumps({"seconds": seconds, "start_s": start_s, "checksum": found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
