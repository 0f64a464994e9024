"""MRJob classes as they are, and the same job on Dask, Ray and Spark: the same bytes."""

from __future__ import annotations

import gzip
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mapreduce.client import BadJob, Job, JobFailed, job_of, run_sync, steps_of

# Programs that need not know of us: each runs by itself, too, and says what is right.
MRJOBS = Path(__file__).parent / "mrjobs"


def needs(module: str):
    missing = importlib.util.find_spec(module) is None
    return pytest.mark.skipif(missing, reason=f"{module} is not there: pip install {module}")


@pytest.fixture
def work(tmp_path):
    words = ["one"] * 7 + ["two"] * 5 + ["größe"] * 3 + ["rare"]
    lines = [" ".join(words[i::3]) for i in range(3)] * 20
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text(
        "\n".join([*lines, "# one Comment", "Two\r", "x\r", "x"])
    )
    (tmp_path / "in" / "b.txt").write_text("two three\n")
    (tmp_path / "in" / "empty.txt").write_text("")
    return tmp_path


def parts(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("part-*"))]


def lines(data: bytes) -> list[bytes]:
    return sorted(data.splitlines())


def by_mrjob(work, name, *arguments, runner="inline") -> bytes:
    """What mrjob's own runner makes of it."""
    inputs = [str(path) for path in sorted((work / "in").iterdir())]
    how = ["-r", runner, "--num-cores", "1"]  # two mappers, two reducers
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(MRJOBS / name), *how, *arguments, *inputs],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def by_us(work, name, *arguments, **more):
    """All steps of it, in this process; the output, and the outcome of each step."""
    more.setdefault("split_bytes", 100)
    job = Job.mrjob(
        MRJOBS / name,
        arguments=arguments,
        inputs=[str(work / "in")],
        output=str(work / "out"),
        **more,
    )
    outcomes = [run_sync(step, local=True) for step in steps_of(job)]
    return b"".join(parts(work / "out")), outcomes


@needs("mrjob")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of mrjob's own imports
@pytest.mark.timeout(300)  # mrjob starts an interpreter a task
class TestMRJob:
    """What mrjob's own runner writes is right; inline where that can do it."""

    def test_two_steps_options_and_counters(self, work):
        arguments = ("--least", "30")
        written, outcomes = by_us(work, "most_used.py", *arguments)
        assert written == by_mrjob(work, "most_used.py", *arguments)
        assert written.startswith(b'"one"\t1')
        assert len(outcomes) == 2
        assert outcomes[0].counters["mine"]["maps"] == outcomes[0].tasks["map"] > 1

    def test_a_raw_mapper_is_given_each_file_once_and_whole(self, work):
        written, outcomes = by_us(work, "whole_files.py")
        assert lines(written) == lines(by_mrjob(work, "whole_files.py"))
        assert outcomes[0].counters["mine"]["files"] == outcomes[0].tasks["map"] == 3

    def test_a_raw_mapper_is_given_what_a_compressed_file_holds(self, work):
        (work / "in" / "c.txt.gz").write_bytes(gzip.compress(b"four four\n"))
        written, _ = by_us(work, "whole_files.py")
        assert b'"c.txt.gz"\t2' in lines(written)
        assert lines(written) == lines(by_mrjob(work, "whole_files.py", runner="local"))

    def test_a_raw_mapper_is_given_a_copy_of_what_lies_elsewhere(self, work):
        with zipfile.ZipFile(work / "in.zip", "w") as archive:
            archive.write(work / "in" / "b.txt", "deep/b.txt")
        there = f"zip://deep/b.txt::file://{work}/in.zip"
        job = Job.mrjob(MRJOBS / "whole_files.py", inputs=[there], output=f"{work}/out")
        [step] = steps_of(job)
        run_sync(step, local=True)
        found = lines(b"".join(parts(work / "out")))
        assert found == [b'"files"\t1', b'"in.zip"\t2', b'"three"\t1', b'"two"\t1']
        assert not list(work.glob("**/input-*"))

    def test_filters_before_mapper_combiner_and_reducer(self, work):
        (work / "in" / "c.txt").write_text("# a filter that finds nothing is no failure\n")
        written, _ = by_us(work, "filtered.py", split_bytes=1000)
        assert lines(written) == lines(by_mrjob(work, "filtered.py", runner="local"))
        assert b'"x"\t2' in lines(written)
        assert not {word for word in (b"two", b"rare", b"comment") if word in written}

    def test_commands_for_mapper_combiner_and_reducer(self, work):
        written, _ = by_us(work, "commands.py", split_bytes=1000)
        assert lines(written) == lines(by_mrjob(work, "commands.py", runner="local"))
        assert b'1\t"THREE"' in lines(written)

    def test_a_combiner_that_is_a_command_is_given_sorted_lines(self, work):
        (work / "sorted.py").write_text(
            "from mrjob.job import MRJob\nclass J(MRJob):\n"
            "    def mapper(self, _, line): yield from ((word, 1) for word in line.split())\n"
            "    def combiner_cmd(self):\n"
            "        check = 'tee lines; LC_ALL=C sort -c -k1,1 lines'\n"
            "        return f'bash -e -c \"{check}\"'\n"
            "    def reducer(self, word, ones): yield word, sum(ones)\n"
        )
        [job] = steps_of(Job.mrjob(work / "sorted.py", inputs=[f"{work}/in"], output=f"{work}/o"))
        outcome = run_sync(job, local=True)
        assert outcome.failures == []

    def test_files_beside_the_job_and_options_of_every_kind(self, work):
        (work / "more.txt").write_text("x")
        arguments = ("--more-stop", str(work / "more.txt"), "--upper", "--also", "two")
        arguments += ("--also", "Two")
        written, _ = by_us(work, "with_files.py", *arguments)
        assert lines(written) == lines(by_mrjob(work, "with_files.py", *arguments))
        assert lines(written)[-1] == b'"THREE"\t["b.txt"]'

    def test_its_jobconf_is_in_the_environment_and_says_how_many_reduces(self, work):
        (work / "conf.py").write_text(
            "import os\nfrom mrjob.job import MRJob\nclass J(MRJob):\n"
            "    JOBCONF = {'mapreduce.job.reduces': 1, 'my.own': True}\n"
            "    def mapper(self, _, line): yield os.environ['my_own'], 1\n"
            "    def reducer(self, key, ones): yield key, sum(ones)\n"
        )
        made = {"inputs": [f"{work}/in/b.txt"], "output": f"{work}/out"}
        [job] = steps_of(Job.mrjob(work / "conf.py", **made))
        run_sync(job, local=True)
        assert parts(work / "out") == [b'"true"\t1\n']
        [job] = steps_of(Job.mrjob(work / "conf.py", reduces=3, **made))
        assert job.reduces == 3

    def test_a_command_that_fails_is_named(self, work):
        (work / "fails.py").write_text(
            "from mrjob.job import MRJob\nclass J(MRJob):\n"
            "    def mapper_cmd(self): return \"bash -c 'echo oh no >&2; exit 3'\"\n"
        )
        [job] = steps_of(Job.mrjob(work / "fails.py", inputs=[f"{work}/in"], output=f"{work}/o"))
        with pytest.raises(JobFailed, match=r"the mapper bash -c .* ended with status 3"):
            run_sync(job, local=True)

    def test_a_raw_mapper_over_a_part_of_a_file_is_refused(self, work):
        job = Job.mrjob(
            MRJOBS / "whole_files.py", inputs=[f"{work}/in"], output=f"{work}/o", split_bytes=100
        )
        with pytest.raises(JobFailed, match=r"whole files.*steps_of"):
            run_sync(job, local=True)

    @pytest.mark.parametrize(
        ("body", "says"),
        [
            ("spark = lambda self, i, o: None", "a SparkStep, which does not run here"),
            ("ARCHIVES = ['a.tar']; mapper = lambda self, k, v: None", "ARCHIVES"),
            ("FILES = ['not_there']; mapper = lambda self, k, v: None", "needs the file .*not_the"),
            ("JOBCONF = {'stream.x': 4}; mapper = lambda self, k, v: None", "x is not honoured"),
            ("def configure_args(self): self.stop = x", "NameError: name 'x' is not defined"),
        ],
    )
    def test_what_does_not_run_is_refused_with_a_sentence(self, work, body, says):
        (work / "bad.py").write_text(f"from mrjob.job import MRJob\nclass J(MRJob):\n    {body}\n")
        with pytest.raises(BadJob, match=says):
            steps_of(Job.mrjob(work / "bad.py", inputs=[f"{work}/in"], output=f"{work}/o"))

    def test_a_file_without_a_class_says_so_and_no_more(self, work):
        (work / "bad.py").write_text("# MRJob\n")
        with pytest.raises(BadJob) as caught:
            steps_of(Job.mrjob(work / "bad.py", inputs=[f"{work}/in"], output=f"{work}/o"))
        assert str(caught.value) == f"{work}/bad.py must have one MRJob class; it has: none"


# What raises at a record, reads a file beside it, and knows its name by the environment.
AWKWARD = """
import functools, os, pathlib
@functools.cache
def words():
    return set(pathlib.Path("words.txt").read_text().split())
def map(line, task):
    if b"Comment" in line:
        raise ValueError("a comment")
    task.count("mine", os.environ["MINE"])
    for word in line.decode().split():
        if word in words():
            yield word, 1
reduce = sum
"""


def same(outcome, alone):
    """What an engine's outcome says, and the sequential runner's."""
    assert outcome.counters == alone.counters
    assert outcome.skipped == alone.skipped
    assert len(outcome.failures) == len(alone.failures)


def on_engine(work, engine):
    inputs = [str(work / "in" / "a.txt")]
    for name in ("wordcount", "sort", "grep"):
        more = {"split_bytes": 200, "args": {"pattern": "two"}}
        alone = run_sync(job_of(name, inputs, str(work / f"{name}-alone"), more), local=True)
        outcome = run_sync(job_of(name, inputs, str(work / name), more), engine=engine)
        assert parts(work / name) == parts(work / f"{name}-alone")
        assert (work / name / "_SUCCESS").exists()
        assert outcome.tasks["map"] > 1
        same(outcome, alone)
    (work / "awkward.py").write_text(AWKWARD)
    (work / "some.txt").write_text("one two")
    more = {
        "split_bytes": 200, "files": [f"{work}/some.txt#words.txt"], "environment": {"MINE": "x"},
        "on_error": "skip",
    }  # fmt: skip
    made = {
        name: run_sync(job_of(str(work / "awkward.py"), inputs, str(work / name), more), **how)
        for name, how in (("there", {"engine": engine}), ("alone", {"local": True}))
    }
    assert parts(work / "there") == parts(work / "alone")
    assert [text for *_, text in made["there"].skipped] == ["# one Comment"]
    same(made["there"], made["alone"])
    del more["on_error"]
    with pytest.raises(JobFailed, match=r"map \d+ failed: record \d+: ValueError: a comment"):
        run_sync(job_of(str(work / "awkward.py"), inputs, str(work / "no"), more), engine=engine)
    assert not list((work / "no").glob("part-*"))


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


@needs("pyspark")
@pytest.mark.skipif(
    shutil.which("java") is None, reason="no java: apt install default-jre-headless"
)
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_spark_from_a_shell_whose_python_is_another(work):
    """Without a word of configuration: its Python workers are what `ring` is."""
    root = str(Path(__file__).parents[2])
    plain = {name: os.environ[name] for name in ("HOME", "JAVA_HOME") if name in os.environ}
    (work / "bin").mkdir()
    (work / "bin" / "python3").write_text("#!/bin/sh\necho not this one >&2; exit 1\n")
    (work / "bin" / "python3").chmod(0o755)
    path = f"{work / 'bin'}:{Path(shutil.which('java')).parent}:/usr/bin:/bin"
    arguments = ["mr", "run", "wordcount", f"{work}/in/a.txt", f"{work}/out", "--engine", "spark"]
    done = subprocess.run(
        [sys.executable, "-m", "cluster", *arguments],
        env={**plain, "PATH": path, "NO_COLOR": "1"},
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    run_sync(job_of("wordcount", [f"{work}/in/a.txt"], f"{work}/alone", {}), local=True)
    assert parts(work / "out") == parts(work / "alone")
