"""Jobs for the tests, and the answers by another way."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from pathlib import Path

from mapreduce.job import Job
from mapreduce.local import run_local
from mapreduce.messages import JobSpec
from mapreduce.output import Output
from mapreduce.programs import load
from mapreduce.splits import plan, sample

WORDCOUNT = "mapreduce.examples.wordcount"
BY_RECORD = "mapreduce.examples.wordcount_by_record"
SORT = "mapreduce.examples.sort"
INDEX = "mapreduce.examples.inverted_index"


def spec_of(job: Job) -> JobSpec:
    """Planned, with its output folder made."""
    job = job.checked()
    splits = plan(job)
    cuts = sample(job, splits, load(job).sample_key) if job.partition == "range" else []
    Output(job.output).begin()
    return JobSpec(job, splits, cuts)


def run(job: Job):
    """The outcome of the sequential runner."""
    return run_local(spec_of(job))


def parts(folder: Path | str) -> list[bytes]:
    """The parts of an output, in order."""
    return [path.read_bytes() for path in sorted(Path(folder).glob("part-*"))]


def lines(folder: Path | str) -> list[bytes]:
    return sorted(b"".join(parts(folder)).splitlines())


def counted(data: bytes) -> list[bytes]:
    """Word count by another way."""
    return sorted(b"%b\t%d" % pair for pair in Counter(data.split()).items())


def text(seed: int, lines: int = 400, vocabulary: int = 200) -> bytes:
    """Lines of words, some of them not ASCII, some lines empty."""
    dice = random.Random(seed)
    words = [b"w%d" % i for i in range(vocabulary)] + [
        "größe".encode(),
        "语言".encode(),
        b"\xff\xfe",
    ]
    made = [b" ".join(dice.choices(words, k=dice.randrange(12))) for _ in range(lines)]
    return b"\n".join(made) + dice.choice([b"", b"\n"])


def grouped(pairs):
    """Groups by another way: a dict of lists, keys in order."""
    found = defaultdict(list)
    for key, value in pairs:
        found[key].append(value)
    return [(key, found[key]) for key in sorted(found)]
