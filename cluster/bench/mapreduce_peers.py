"""What `ring bench mapreduce` is compared with; each run in a process of its own.

    python -m cluster.bench.mapreduce_peers NAME CASE INPUT OUTPUT     prints seconds

The clock starts when the peer is up: a Spark session, Dask's processes.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

MODULES: Final = {"dask bag": "dask", "pyspark": "pyspark", "mrjob": "mrjob"}
CHUNK_BYTES: Final = 4 * 1024 * 1024

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
        name = os.path.basename(os.environ.get("mapreduce_map_input_file", "-"))
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


def missing(name: str) -> bool:
    """Whether a peer is not installed."""
    if name == "pyspark" and shutil.which("java") is None:
        return True
    if name == "gnu sort":
        return shutil.which("sort") is None
    return name in MODULES and importlib.util.find_spec(MODULES[name]) is None


def by_hand(case: str, source: str, out: str) -> float:
    """A pool of two processes that count chunks, as anybody would write it."""
    import multiprocessing

    size = os.path.getsize(source)
    began = time.perf_counter()
    with multiprocessing.Pool(2) as pool:
        total: Counter[bytes] = Counter()
        jobs = [(source, at) for at in range(0, size, 64 * 1024 * 1024)]
        for counts in pool.imap_unordered(_count, jobs):
            total.update(counts)
    with Path(out).open("wb") as file:
        file.writelines(b"%b\t%d\n" % pair for pair in sorted(total.items()))
    return time.perf_counter() - began


def _count(job: tuple[str, int]) -> Counter[bytes]:
    path, start = job
    end = start + 64 * 1024 * 1024
    counts: Counter[bytes] = Counter()
    with Path(path).open("rb") as file:
        file.seek(start)
        if start:
            file.readline()
        while file.tell() < end and (data := file.read(CHUNK_BYTES)):
            counts.update((data + file.readline()).split())
    return counts


def gnu_sort(case: str, source: str, out: str) -> float:
    """By the same ten bytes, stable, with both cores."""
    began = time.perf_counter()
    subprocess.run(
        ["sort", "-s", "-k1.1,1.10", "--parallel=2", "-S", "256M", "-o", out, source],
        env={**os.environ, "LC_ALL": "C"},
        check=True,
    )
    return time.perf_counter() - began


def mrjob(case: str, source: str, out: str) -> float:
    """Its local runner, which uses both cores."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "job.py"
        head = "import os\nfrom collections import Counter\nfrom mrjob.job import MRJob\n"
        tail = 'if __name__ == "__main__":\n    J.run()\n'
        script.write_text(f"{head}class J(MRJob):\n{MRJOB[case]}\n{tail}")
        began = time.perf_counter()
        command = [sys.executable, str(script), "-r", "local", "--no-cat-output"]
        subprocess.run(
            [*command, "--output-dir", out, source],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        return time.perf_counter() - began


def dask_bag(case: str, source: str, out: str) -> float:
    """Bags on two processes."""
    import dask.bag

    config: dict[str, Any] = {"scheduler": "processes", "num_workers": 2}
    began = time.perf_counter()
    lines = dask.bag.read_text(source, blocksize=2**22)
    if case == "wordcount":
        counts = lines.str.split().flatten().frequencies()
        found = counts.compute(**config)
    else:
        pairs = lines.str.split().flatten().map(lambda word: (word, source))
        found = pairs.frequencies().compute(**config)
    with Path(out).open("w", encoding="utf-8", errors="surrogateescape") as file:
        file.writelines(f"{key}\t{n}\n" for key, n in sorted(found))
    return time.perf_counter() - began


def pyspark(case: str, source: str, out: str) -> float:
    """RDDs on local[2]."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    context = builder.getOrCreate().sparkContext
    context.setLogLevel("ERROR")
    context.parallelize(range(4), 2).map(lambda x: x + 1).sum()  # its Python workers are up
    began = time.perf_counter()
    lines = context.textFile(source, 4)
    if case == "sort":
        lines.map(lambda line: (line[:10], line)).sortByKey(
            numPartitions=2
        ).values().saveAsTextFile(out)
    else:
        key: Callable[[str], Any] = (
            (lambda w: w) if case == "wordcount" else (lambda w: (w, source))
        )
        words = lines.flatMap(lambda line: line.split()).map(lambda w: (key(w), 1))
        words.reduceByKey(lambda a, b: a + b, 2).sortByKey(numPartitions=2).saveAsTextFile(out)
    return time.perf_counter() - began


PEERS: Final = {
    "by hand": by_hand,
    "gnu sort": gnu_sort,
    "mrjob": mrjob,
    "dask bag": dask_bag,
    "pyspark": pyspark,
}

if __name__ == "__main__":
    peer, wanted, read, write = sys.argv[1:]
    print(PEERS[peer](wanted, read, write))
