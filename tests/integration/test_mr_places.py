"""Jobs as people run them: an MRJob of several steps, files of other file systems, full disks."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import json
import os
import random
import subprocess
import sys
import threading
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from ring_kit import PATIENCE, Ring
from test_mr_real import act, parts

from cluster.control import Control
from mapreduce.client import Job, JobFailed, run_sync

WORDCOUNT = "mapreduce.examples.wordcount"

# Two steps, and a gate that its maps wait for.
MOST_USED = Path(__file__).parent.parent / "interop" / "mrjobs" / "most_used.py"


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    ring = Ring(tmp_path_factory.mktemp("places") / "home")
    ring.up("mapreduce=2")
    yield ring
    ring("down", status=None)


@pytest.fixture
def work(tmp_path):
    dice = random.Random(3)
    words = [b"word%d" % i for i in range(300)]
    (tmp_path / "in").mkdir()
    for number in range(4):
        text = b"\n".join(b" ".join(dice.choices(words, k=9)) for _ in range(200))
        (tmp_path / "in" / f"in{number}.txt").write_bytes(text + b"\n")
    return tmp_path


def run(ring, job):
    return run_sync(job, config=ring.home / "cluster.toml")


def alone(work) -> list[bytes]:
    run_sync(Job(WORDCOUNT, [str(work / "in")], str(work / "alone"), reduces=2), local=True)
    return parts(work, "alone")


# -- MRJob


@pytest.mark.skipif(
    importlib.util.find_spec("mrjob") is None, reason="mrjob is not there: pip install mrjob"
)
def test_an_mrjob_of_two_steps_while_a_worker_is_killed(ring, work):
    own = subprocess.run(
        [
            sys.executable,
            str(MOST_USED),
            "--least",
            "5",
            *sorted(map(str, (work / "in").iterdir())),
        ],
        capture_output=True,
        check=True,
    ).stdout
    command = [
        sys.executable, "-m", "cluster", "mr", "run", str(MOST_USED), str(work / "in"),
        str(work / "out"), "--arg", "least=5", "--arg", f"gate={work / 'gate'}", "--split", "4K",
        "--json",
    ]  # fmt: skip
    with subprocess.Popen(
        command,
        env={**os.environ, "RING_HOME": str(ring.home), "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
    ) as going:

        def both_run():
            jobs = json.loads(ring("mr", "jobs", "--json").stdout)["jobs"]
            return [j for j in jobs if str(work) in j["output"] and j["maps"]["running"] == 2]

        ring.wait(both_run, "maps that wait")
        act(ring, "kill", "w1")
        act(ring, "restart", "w1")
        (work / "gate").touch()
        told, _ = going.communicate(timeout=6 * PATIENCE)
    assert going.returncode == 0
    assert json.loads(told)["counters"]["mapreduce"]["reduce_output_lines"] > 0
    assert b"".join(parts(work)) == own
    first = json.loads((work / "out.step0" / "_report.json").read_text())
    assert first["tasks"]["lost"] >= 1
    ring.healthy()


# -- other file systems


def test_the_members_of_a_zip_are_read_in_splits(ring, work):
    with zipfile.ZipFile(work / "in.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((work / "in").iterdir()):
            archive.write(path, f"books/{path.name}")
    source = f"zip://books/*.txt::file://{work}/in.zip"
    job = Job(WORDCOUNT, [source], f"file://{work}/out", reduces=2, split_bytes=5000)
    outcome = run(ring, job)
    assert outcome.tasks["map"] > 4
    assert parts(work) == alone(work)


def test_an_output_through_another_file_system_is_whole(ring, work):
    """`dir` and what it is chained to are opened anew in every process that writes or renames."""
    source = f"simplecache::file://{work}/in/in0.txt"
    job = Job(WORDCOUNT, [source], f"file://{work}/deep/er/out", reduces=2)
    run(ring, job)
    run_sync(Job(WORDCOUNT, [str(work / "in/in0.txt")], str(work / "alone"), reduces=2), local=True)
    assert parts(work, "deep/er/out") == parts(work, "alone")


@pytest.mark.skipif(
    importlib.util.find_spec("aiohttp") is None, reason="fsspec reads http with aiohttp"
)
def test_a_page_of_a_web_server_is_input(ring, work):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(work / "in"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/in0.txt"
        run(ring, Job(WORDCOUNT, [url], str(work / "out"), reduces=2))
        server.shutdown()
    run_sync(Job(WORDCOUNT, [str(work / "in/in0.txt")], str(work / "alone"), reduces=2), local=True)
    assert parts(work) == parts(work, "alone")


# -- full disks

# Much between map and reduce, little behind it; and the other way round.
WIDE = """
def map(line):
    for number, word in enumerate(line.split()):
        yield word, line * 40
def reduce(key, values):
    yield key, sum(1 for _ in values)
"""
TALL = """
def map(line):
    yield line.split()[0], 1
def reduce(key, values):
    for _ in range(200):
        yield key, "x" * 1000
"""


def program(work, body: str) -> str:
    path = work / "myjob.py"
    path.write_text(body)
    return str(path)


@contextmanager
def small_disk(path, size="1m"):
    """A file system of its own at a folder that is there; ends with what was written to it."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "ring-test", str(path)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"mounting needs root: {done.stderr.decode()[:100]}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def still_works(ring, work):
    """Nobody was hurt, and what is asked next is done."""
    ring.healthy()
    run(ring, Job(WORDCOUNT, [str(work / "in")], str(work / "next"), reduces=2))
    assert parts(work, "next") == alone(work)


def test_a_full_disk_of_the_workers_is_named_and_the_next_job_runs(ring, work):
    folders = [next((ring.home / "nodes" / name / "scratch").iterdir()) for name in ("w1", "w2")]
    job = Job(program(work, WIDE), [str(work / "in")], str(work / "out"))
    with small_disk(folders[0]), small_disk(folders[1]):
        with pytest.raises(JobFailed, match="No space left on device") as caught:
            run(ring, job)
        assert {failure["kind"] for failure in caught.value.failures} == {"disk"}
        assert not list((work / "out").glob("part-*"))
        assert not (work / "out" / "_SUCCESS").exists()
    still_works(ring, work)


def test_one_worker_with_a_full_disk_does_not_keep_a_job_from_its_end(ring, work):
    folder = next((ring.home / "nodes" / "w1" / "scratch").iterdir())
    job = Job(program(work, WIDE), [str(work / "in")], str(work / "out"))
    with small_disk(folder):
        outcome = run(ring, job)
    assert {failure["worker"] for failure in outcome.failures} <= {"w1"}
    words = b"".join(parts(work)).split()
    assert sum(map(int, words[1::2])) == 4 * 200 * 9
    still_works(ring, work)


def test_a_full_disk_of_the_output_is_named_and_no_part_is_half(ring, work):
    (work / "full").mkdir()
    job = Job(program(work, TALL), [str(work / "in")], str(work / "full" / "out"))
    with small_disk(work / "full"):
        with pytest.raises(JobFailed, match="No space left on device") as caught:
            run(ring, job)
        assert "disk" in {failure["kind"] for failure in caught.value.failures}
        assert not (work / "full" / "out" / "_SUCCESS").exists()
        ring.wait(
            lambda: not (work / "full" / "out" / "_temporary").exists(), "an output cleared away"
        )
    still_works(ring, work)


GATED = """
import time
from pathlib import Path
def map(line, task):
    while not Path(task.args["gate"]).exists():
        time.sleep(0.01)
    yield line.split()[0], 1
reduce = sum
"""


def test_a_full_disk_of_the_journal_ends_the_master_and_nothing_is_lost(ring, work):
    job = Job(
        program(work, GATED), [str(work / "in")], str(work / "out"), args={"gate": f"{work}/gate"}
    )
    ended: list[object] = []
    thread = threading.Thread(target=lambda: ended.append(run(ring, job)), daemon=True)
    thread.start()

    def under_way():
        jobs = json.loads(ring("mr", "jobs", "--json").stdout)["jobs"]
        return any(j["output"] == str(work / "out") and j["maps"]["running"] for j in jobs)

    ring.wait(under_way, "a job")
    ring("disk", "full", "m1")
    (work / "gate").touch()
    log = ring.home / "nodes" / "m1" / "output.log"
    ring.wait(lambda: "the journal cannot be written" in log.read_text(), "a clear sentence")
    # At once: whoever waits for the job has the patience of a restart, which is 30 s.
    with Control(ring.home) as control:
        control.ask("faults", changes={"m1": {"heal": ["disk"]}})
    act(ring, "restart", "m1")
    thread.join(4 * PATIENCE)
    assert ended, "the job did not end"
    firsts = [
        line.split()[0]
        for path in (work / "in").iterdir()
        for line in path.read_bytes().splitlines()
    ]
    counted = sorted(b"%b\t%d" % (word, firsts.count(word)) for word in set(firsts))
    assert sorted(b"".join(parts(work)).splitlines()) == counted
    still_works(ring, work)
