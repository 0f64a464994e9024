"""MapReduce in real processes: the scenarios of MIT 6.5840 lab 1, and everything that is killed.

Every output is compared with the sequential runner's, byte for byte.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from ring_kit import PATIENCE, Ring, alive

from cluster.control import Control
from mapreduce.client import BadJob, Job, JobFailed, run_sync

WORDCOUNT = "mapreduce.examples.wordcount"

# The first maps are quick; the others wait until the test has done what it does to them.
GATED = """
import time
from pathlib import Path
def map_chunks(chunks, task):
    from collections import Counter
    found = Counter(word for chunk in chunks for word in chunk.split())
    gate = task.args.get("gate")
    while gate and task.index >= task.args["free"] and not Path(gate).exists():
        time.sleep(0.01)
    time.sleep(task.args.get("map_s", 0))
    return found
combine = sum
reduce = sum
"""


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    ring = Ring(tmp_path_factory.mktemp("mr") / "home")
    ring.up("mapreduce=3")
    yield ring
    ring("down", status=None)


@pytest.fixture
def work(tmp_path):
    dice = random.Random(7)
    words = [b"word%d" % i for i in range(500)]
    for number in range(8):
        text = b"\n".join(b" ".join(dice.choices(words, k=9)) for _ in range(300))
        (tmp_path / f"in{number}.txt").write_bytes(text)
    return tmp_path


def make(work: Path, program=WORDCOUNT, name="out", **more) -> Job:
    if "\n" in program:
        path = work / "myjob.py"
        path.write_text(program)
        program = str(path)
    more.setdefault("inputs", [str(work / "in*.txt")])
    return Job(program=program, output=str(work / name), **more)


def run(ring, job, **more):
    return run_sync(job, config=ring.home / "cluster.toml", **more)


def parts(work, name="out"):
    return [path.read_bytes() for path in sorted((work / name).glob("part-*"))]


def act(ring, verb, *names) -> None:
    """As `ring VERB NAMES`, at once."""
    with Control(ring.home) as control:
        control.ask(verb, nodes=list(names))


def pid_of(ring, name) -> int:
    return json.loads((ring.home / "run" / "pids.json").read_text())[name]["pid"]


def gated(work, free=4, **more):
    """A job whose maps from `free` on wait for `open_gate`."""
    args = {"gate": str(work / "gate"), "free": free, **more.pop("args", {})}
    return make(work, GATED, args=args, **more)


def open_gate(work):
    (work / "gate").touch()


def same_as_alone(work, job) -> None:
    """The output is that of the sequential runner."""
    alone = Job(job.program, job.inputs, str(work / "alone"), reduces=job.reduces)
    run_sync(alone, local=True)
    assert parts(work) == parts(work, "alone")


class Under:
    """A job that runs while something is done."""

    def __init__(self, ring, job):
        self.states: list[dict] = []
        self.outcome = self.error = None
        self._go = (ring, job)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        ring, job = self._go
        try:
            self.outcome = run(ring, job, watcher=self.states.append)
        except Exception as error:
            self.error = error

    def when(self, condition):
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self.states and condition(self.states[-1]):
                return self.states[-1]
            if not self._thread.is_alive():
                break
            time.sleep(0.01)
        raise AssertionError(f"it did not come so far: {self.states[-1:]} {self.error}")

    def end(self):
        self._thread.join(4 * PATIENCE)
        assert not self._thread.is_alive(), f"the job hangs: {self.states[-1:]}"
        if self.error is not None:
            raise self.error
        return self.outcome


# -- lab 1


def test_wc(ring, work):
    job = make(work)
    outcome = run(ring, job)
    same_as_alone(work, job)
    assert outcome.tasks["map"] == 8


def test_indexer(ring, work):
    job = make(work, "mapreduce.examples.inverted_index")
    run(ring, job)
    same_as_alone(work, job)


OVERLAP = """
import os, time
from pathlib import Path
def note(task, kind):
    folder = Path(task.args["folder"])
    mine = folder / f"{kind}-{os.getpid()}"
    mine.touch()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        seen = len(list(folder.glob(f"{kind}-*")))
        if seen >= 2: break
        time.sleep(0.01)
    return seen
def map_chunks(chunks, task):
    for chunk in chunks: pass
    seen = note(task, "map")
    for i in range(20):
        yield f"{i}", seen
def reduce(key, values, task):
    yield key, min(note(task, "reduce"), *values)
"""


def test_map_and_reduce_parallelism(ring, work):
    """Every task sees another of its kind, in another process, that runs while it does."""
    job = make(
        work, OVERLAP, args={"folder": str(work)}, reduces=2, inputs=[str(work / "in[01].txt")]
    )
    run(ring, job)
    assert all(int(line.split(b"\t")[1]) >= 2 for part in parts(work) for line in part.splitlines())


def test_job_count(ring, work):
    outcome = run(ring, make(work))
    assert outcome.tasks["map_attempts"] == 8
    assert outcome.tasks["reduce_attempts"] == 2


def test_early_exit(ring, work):
    """When the caller is told, the output is final."""
    run(ring, make(work))
    before = {
        path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in (work / "out").iterdir()
    }
    assert {"_SUCCESS", "_report.json", "part-00000", "part-00001"} == before.keys()
    ring("status")
    after = {
        path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in (work / "out").iterdir()
    }
    assert before == after


CRASHES = """
import os, random, signal, time
def map_chunks(chunks, task):
    from collections import Counter
    if random.random() < 0.3: os.kill(os.getpid(), random.choice([signal.SIGKILL, signal.SIGSEGV]))
    if random.random() < 0.2: time.sleep(1)
    return Counter(word for chunk in chunks for word in chunk.split())
combine = sum
reduce = sum
"""


def test_crash(ring, work):
    job = make(work, CRASHES, attempts=50)
    run(ring, job)
    run_sync(make(work, name="alone"), local=True)
    assert parts(work) == parts(work, "alone")


# -- and what is killed


def test_a_worker_is_killed_in_the_middle(ring, work):
    job = gated(work)
    under = Under(ring, job)
    under.when(lambda state: state["maps"]["done"] >= 4)
    act(ring, "kill", "w2")
    act(ring, "restart", "w2")
    open_gate(work)
    outcome = under.end()
    same_as_alone(work, job)
    assert outcome.tasks["lost"] >= 1
    assert outcome.tasks["map_attempts"] > 8
    ring.healthy()


def test_the_master_is_killed_and_nothing_that_was_done_is_done_again(ring, work):
    job = gated(work)
    under = Under(ring, job)
    under.when(lambda state: state["maps"]["done"] >= 4 and state["maps"]["running"] >= 3)
    act(ring, "kill", "m1")
    act(ring, "restart", "m1")
    under.states.clear()
    under.when(lambda state: state["maps"]["running"] >= 3)
    open_gate(work)
    outcome = under.end()
    same_as_alone(work, job)
    # Of the eight maps four were done, three ran on under the new life; it began one alone. The
    # count is that of both lives.
    assert outcome.tasks["map_attempts"] == 8
    ring.healthy()


def test_all_are_killed_and_the_job_still_ends(ring, work):
    job = gated(work)
    under = Under(ring, job)
    under.when(lambda state: state["maps"]["done"] >= 2)
    everybody = ("m1", "w1", "w2", "w3")
    act(ring, "kill", *everybody)
    act(ring, "restart", *everybody)
    open_gate(work)
    under.end()
    same_as_alone(work, job)
    ring.healthy()


def test_a_record_that_really_segfaults_is_skipped_and_listed(ring, work):
    body = (
        "import ctypes\ndef map(line):\n    if line.startswith(b'poison'): ctypes.string_at(0)\n"
        "    yield line, 1\nreduce = sum\n"
    )
    (work / "bad.txt").write_bytes(b"fine\npoison 1\nfine\n")
    outcome = run(ring, make(work, body, inputs=[str(work / "bad.txt")]))
    assert b"".join(parts(work)) == b"fine\t2\n"
    assert outcome.skipped == [["map", 0, 2, "poison 1"]]
    assert {f["kind"] for f in outcome.failures} == {"crashed"}
    assert "SIGSEGV" in outcome.failures[0]["message"]
    assert "Segmentation fault" in outcome.failures[0]["last_lines"]
    report = json.loads((work / "out/_report.json").read_text())
    assert report["skipped"] == [{"task": "map 0", "record": 2, "excerpt": "poison 1"}]


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        ("raise ValueError('no good')", "raised", "ValueError: no good"),
        ("import os; os._exit(3)", "exited", "status 3"),
        ("x = bytearray(300 << 20); import time; time.sleep(60)", "memory", "more than 200 MB"),
        ("import time; time.sleep(60)", "hung", "no progress for 1 s"),
    ],
)
def test_what_goes_wrong_in_a_child_is_named(ring, work, body, kind, says):
    (work / "bad.txt").write_bytes(b"fine\nbad\n")
    program = f"def map(line):\n    if line == b'bad':\n        {body}\n    yield line, 1\n"
    job = make(
        work, program, inputs=[str(work / "bad.txt")], on_crash="fail", timeout_s=1.0,
        child_bytes_max=200 << 20,
    )  # fmt: skip
    with pytest.raises(JobFailed, match=r"map 0 failed: record 2") as caught:
        run(ring, job)
    assert {f["kind"] for f in caught.value.failures} == {kind}
    assert says in caught.value.failures[0]["message"]
    assert all(node["health"] == "ok" for node in ring.status().values())


def test_a_straggler_gets_a_second_copy(ring, work):
    """One child is stopped; its worker's heartbeats go on."""
    job = gated(work, free=5, args={"map_s": 0.2})
    under = Under(ring, job)
    under.when(lambda state: state["maps"]["done"] >= 5 and state["maps"]["running"] >= 3)
    stopped = [pid for pid in descendants(pid_of(ring, "w1")) if is_busy(pid)]
    assert stopped
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    open_gate(work)
    outcome = under.end()
    same_as_alone(work, job)
    assert outcome.tasks["backups"] >= 1
    assert outcome.tasks["backups_won"] >= 1


def descendants(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            child = int(path.parent.name)
            found += [child, *descendants(child)]
    return found


def is_busy(pid: int) -> bool:
    """Whether it is a child at an attempt: its folder is one of its own."""
    try:
        return "/scratch/" in os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return False


def test_a_killed_worker_leaves_no_process_behind(ring, work):
    under = Under(ring, gated(work, free=0))
    under.when(lambda state: state["maps"]["running"] >= 3)
    family = descendants(pid_of(ring, "w3"))
    assert len(family) >= 2
    act(ring, "kill", "w3")
    deadline = time.monotonic() + PATIENCE
    while any(map(alive, family)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not [pid for pid in family if alive(pid)]
    act(ring, "restart", "w3")
    open_gate(work)
    under.end()
    ring.healthy()


def test_a_damaged_map_output_is_made_again(ring, work):
    job = gated(work)
    under = Under(ring, job)
    under.when(lambda state: state["maps"]["done"] >= 4)
    damaged = 0
    for path in ring.home.glob("nodes/*/scratch/*/*/*.out"):
        data = bytearray(path.read_bytes())
        if len(data) > 100:
            data[len(data) // 4] ^= 1
            path.write_bytes(data)
            damaged += 1
    open_gate(work)
    outcome = under.end()
    same_as_alone(work, job)
    assert damaged
    assert "source" in {f["kind"] for f in outcome.failures}


# -- memory


def sorts_within(ring, work, megabytes: int, limit_mb: int, memory_mb: int) -> None:
    """A sort of records in children that are ended when they grow above a limit."""
    dice = np.random.default_rng(1)
    with (work / "records").open("wb") as file:
        for _ in range(megabytes // 20):
            dice.integers(33, 127, (200_000, 100), np.uint8).tofile(file)
    job = make(
        work, "mapreduce.examples.sort", inputs=[str(work / "records")], record_bytes=100,
        key_bytes=10, partition="range", memory_bytes=memory_mb << 20,
        child_bytes_max=limit_mb << 20, on_crash="fail",
    )  # fmt: skip
    outcome = run(ring, job)
    assert outcome.failures == []
    last = b""
    for path in sorted((work / "out").glob("part-*")):
        rows = np.fromfile(path, np.uint8).reshape(-1, 100)
        keys = np.ascontiguousarray(rows[:, :10]).view("S10").ravel()
        assert (keys[1:] >= keys[:-1]).all()
        assert keys[0] >= last
        last = keys[-1]
    assert outcome.counters["mapreduce"]["reduce_output_records"] == megabytes * 10_000


def test_a_sort_of_a_hundred_megabytes_in_small_children(ring, work):
    sorts_within(ring, work, 100, limit_mb=110, memory_mb=12)


def test_a_sort_of_lines_in_small_children(ring, work):
    """Forty megabytes in one split a child, of which it may hold ten: it spills, and merges."""
    dice = np.random.default_rng(2)
    rows = dice.integers(33, 127, (800_000, 50), np.uint8)
    rows[:, -1] = 10
    rows.tofile(work / "lines")
    job = make(
        work, "mapreduce.examples.sort", inputs=[str(work / "lines")], partition="range",
        memory_bytes=10 << 20, child_bytes_max=120 << 20, on_crash="fail", split_bytes=40 << 20,
    )  # fmt: skip
    outcome = run(ring, job)
    assert outcome.failures == []
    found = b"".join(parts(work))
    assert found == b"".join(sorted((work / "lines").read_bytes().splitlines(keepends=True)))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_sort_of_two_gigabytes_in_256_mb(ring, work):
    sorts_within(ring, work, 2000, limit_mb=256, memory_mb=64)


# -- the command line


def test_ring_mr_run_status_jobs_and_cancel(ring, work):
    done = ring("mr", "run", "wordcount", str(work / "in0.txt"), str(work / "out"), "--json")
    report = json.loads(done.stdout)
    assert report["counters"]["mapreduce"]["map_output_records"] > 0
    jobs = json.loads(ring("mr", "jobs", "--json").stdout)["jobs"]
    assert jobs[-1]["state"] == "finished"
    assert "wordcount finished  maps 1/1" in ring("mr", "status", jobs[-1]["id"]).stdout
    under = Under(ring, gated(work, name="never", free=0))
    id = under.when(lambda state: state["maps"]["running"])["id"]
    assert f"cancelled {id}" in ring("mr", "cancel", id).stderr
    with pytest.raises(Exception, match="was cancelled"):
        under.end()
    assert not list((work / "never").glob("part-*"))


def test_mistakes_are_told_plainly(ring, work):
    out = str(work / "out")
    for arguments, says in (
        (("run", "wordcount", "gone.txt", out), "does not exist"),
        (("run", "no.such.module", str(work / "in0.txt"), out), "cannot be imported"),
        (("run", "wordcount", str(work / "in0.txt")), "INPUT… OUTPUT"),
        (("status", "j9-9"), "there is no job 'j9-9'"),
        (("run", "wordcount", str(work / "in0.txt"), out, "--split", "x"), "is not a size"),
    ):
        assert says in ring("mr", *arguments, status=2).stderr
    (work / "out").mkdir()
    (work / "out/mine").touch()
    with pytest.raises(BadJob, match="exists"):
        run(ring, make(work))


def test_of_a_master_that_is_dead_one_is_told_at_once_and_what_to_do(ring, work):
    act(ring, "kill", "m1")
    try:
        for arguments in (("jobs",), ("status", "j1-1"), ("cancel", "j1-1")):
            began = time.monotonic()
            done = ring("mr", *arguments, status=6)
            assert "the master m1 is not running; do: ring restart m1" in done.stderr
            # The patience of those who wait for a restart is 30 s.
            assert time.monotonic() - began < PATIENCE
    finally:
        act(ring, "restart", "m1")
    ring.healthy()
    ring("mr", "jobs")


def test_a_stream_of_commands(ring, work):
    done = ring(
        "mr", "stream", "-mapper", "tr ' ' '\\n'", "-reducer", "uniq -c",
        "-input", str(work / "in0.txt"),
        "-output", str(work / "out"), "-numReduceTasks", "2",
    )  # fmt: skip
    assert "✓" in done.stderr
    found = sorted(line.split() for part in parts(work) for line in part.splitlines())
    words = (work / "in0.txt").read_bytes().split()
    assert found == sorted([b"%d" % words.count(w), w] for w in set(words))


# -- again and again


# One task, of either kind, is held until the gate is open: while it is not, the job runs.
HELD = """
import time
from collections import Counter
from pathlib import Path
def held(task):
    while [task.kind, task.index] == task.args["hold"] and not Path(task.args["gate"]).exists():
        time.sleep(0.01)
def map_chunks(chunks, task):
    found = Counter(word for chunk in chunks for word in chunk.split())
    held(task)
    time.sleep(0.02)
    return found
combine = sum
def reduce(key, values, task):
    held(task)
    yield key, sum(values)
"""

# A kill that meets no running job shows nothing. By the gate all should meet one.
HITS_LEAST = 0.9


def one_round(ring, work, dice, number) -> tuple[bool, bool]:
    """Kill one or two of them under a job; whether it ran then, and whether it lost something."""
    kind, index = dice.choice([("map", dice.randrange(32)), ("reduce", dice.randrange(2))])
    gate = work / f"gate{number}"
    args = {"hold": [kind, index], "gate": str(gate)}
    under = Under(ring, make(work, HELD, f"out{number}", split_bytes=6000, args=args))
    under.when(lambda state: state["maps"]["running"] or state["maps"]["done"])
    victims = dice.sample(["m1", "w1", "w2", "w3"], dice.randrange(1, 3))
    time.sleep(dice.uniform(0, 1.0))
    act(ring, "kill", *victims)
    hit = not (work / f"out{number}" / "_SUCCESS").exists()
    if dice.random() < 0.5:
        gate.touch()
    time.sleep(dice.uniform(0, 0.5))
    act(ring, "restart", *victims)
    gate.touch()
    outcome = under.end()
    right = parts(work, f"out{number}") == parts(work, "alone")
    assert right, f"round {number}, held {kind} {index}, killed {victims}"
    return hit, outcome.tasks["lost"] > 0 or "m1" in victims


def rounds(ring, work, count):
    """Jobs while workers and master are killed at random; every output right, none hangs."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    dice = random.Random(seed)
    alone = {"hold": ["none", 0], "gate": ""}
    run_sync(make(work, HELD, name="alone", split_bytes=6000, args=alone), local=True)
    told = [one_round(ring, work, dice, number) for number in range(count)]
    hits, losses = (sum(column) for column in zip(*told, strict=True))
    print(f"{count} rounds: {hits} while the job ran; {losses} cost an attempt, or the master")
    assert hits >= HITS_LEAST * count
    assert losses >= count // 3


def test_a_dozen_rounds_of_random_kills(ring, work):
    rounds(ring, work, 12)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_two_hundred_rounds_of_random_kills(ring, work):
    rounds(ring, work, 200)
