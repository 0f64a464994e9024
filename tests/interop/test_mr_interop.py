"""MRJob classes as they are, and the same job on Dask, Ray and Spark: the same bytes."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mapreduce.client import Job, job_of, mrjob_steps, run_sync


def needs(module: str):
    missing = importlib.util.find_spec(module) is None
    return pytest.mark.skipif(missing, reason=f"{module} is not there: pip install {module}")


TWO_STEPS = """
from mrjob.job import MRJob
from mrjob.step import MRStep

class MRMostUsed(MRJob):
    def configure_args(self):
        super().configure_args()
        self.add_passthru_arg("--least", type=int, default=1)
    def steps(self):
        return [
            MRStep(mapper_init=self.begin, mapper=self.words, combiner=self.add, reducer=self.add),
            MRStep(mapper=self.swap, reducer=self.most),
        ]
    def begin(self):
        self.increment_counter("mine", "maps", 1)
    def words(self, _, line):
        for word in line.split():
            yield word, 1
    def add(self, word, counts):
        yield word, sum(counts)
    def swap(self, word, count):
        if count >= self.options.least:
            yield None, (count, word)
    def most(self, _, pairs):
        for count, word in sorted(pairs, reverse=True):
            yield word, count

if __name__ == "__main__":
    MRMostUsed.run()
"""


@pytest.fixture
def work(tmp_path):
    words = ["one"] * 7 + ["two"] * 5 + ["größe"] * 3 + ["rare"]
    (tmp_path / "in.txt").write_text("\n".join(" ".join(words[i::3]) for i in range(3)) * 20)
    return tmp_path


def parts(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("part-*"))]


@needs("mrjob")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of mrjob's own imports
def test_an_unmodified_mrjob_of_two_steps_gives_what_its_own_runner_gives(work):
    script = work / "most_used.py"
    script.write_text(TWO_STEPS)
    arguments = ["--least", "30"]
    assert mrjob_steps(str(script), arguments) == 2
    own = subprocess.run(
        [sys.executable, str(script), *arguments, str(work / "in.txt")],
        capture_output=True,
        check=True,
    ).stdout
    job = job_of(str(script), [str(work / "in.txt")], str(work / "step1"), {"split_bytes": 100})
    assert job.kind == "mrjob"
    first = Job.mrjob(
        script, arguments=arguments, inputs=job.inputs, output=job.output, split_bytes=100
    )
    outcome = run_sync(first, local=True)
    assert outcome.counters["mine"]["maps"] == outcome.tasks["map"] > 1
    second = Job.mrjob(
        script, step=1, arguments=arguments, inputs=[str(work / "step1/part-*")],
        output=str(work / "out"),
    )  # fmt: skip
    run_sync(second, local=True)
    assert b"".join(parts(work / "out")) == own
    assert own.startswith(b'"one"\t1')


def on_engine(work, engine):
    for name in ("wordcount", "sort", "grep"):
        job = job_of(
            name,
            [str(work / "in.txt")],
            str(work / f"{name}-alone"),
            {"split_bytes": 200, "args": {"pattern": "two"}},
        )
        run_sync(job, local=True)
        there = job_of(name, job.inputs, str(work / name), {"split_bytes": 200, "args": job.args})
        outcome = run_sync(there, engine=engine)
        assert parts(work / name) == parts(work / f"{name}-alone")
        assert (work / name / "_SUCCESS").exists()
        assert outcome.tasks["map"] > 1


@needs("dask")
def test_dask_gives_the_same_bytes(work):
    on_engine(work, "dask")


@needs("ray")
def test_ray_gives_the_same_bytes(work):
    on_engine(work, "ray")


@needs("pyspark")
@pytest.mark.skipif(
    shutil.which("java") is None, reason="no java: apt install default-jre-headless"
)
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
def test_spark_gives_the_same_bytes(work, monkeypatch):
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{root}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    session = builder.getOrCreate()
    try:
        on_engine(work, "spark")
    finally:
        session.stop()
