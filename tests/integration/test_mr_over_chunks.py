"""Jobs over a chunk store whose servers are the workers: real processes, kill -9."""

from __future__ import annotations

import os
import random
import signal

import pytest
from chunk_real_kit import KIB, make_ring, until
from ring_kit import alive
from test_mr_real import GATED, WORDCOUNT, Under, open_gate, pid_of

from mapreduce.client import Job, run_sync

DICE = random.Random(11)
WORDS = [b"word%d" % i for i in range(300)]
TEXT = b"\n".join(b" ".join(DICE.choices(WORDS, k=9)) for _ in range(9000))


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    ring = make_ring(
        tmp_path_factory.mktemp("beside") / "home", kind="mapreduce", chunk_bytes=64 * KIB
    )
    text = ring.home.parent / "text"
    text.write_bytes(TEXT)
    ring("mr", "fs", "put", str(text), "ring://in/text")
    yield ring
    pids = ring.pids()
    ring("down", status=None)
    assert not [pid for pid in pids if alive(pid)], "daemons were left behind"


def alone(ring, tmp_path) -> list[bytes]:
    """What one process makes of the same text."""
    job = Job(WORDCOUNT, [str(ring.home.parent / "text")], str(tmp_path / "alone"), reduces=2)
    run_sync(job, local=True)
    return [path.read_bytes() for path in sorted((tmp_path / "alone").glob("part-*"))]


def parts(ring, tmp_path, url) -> list[bytes]:
    into = tmp_path / "got"
    ring("mr", "fs", "get", url, str(into))
    return [path.read_bytes() for path in sorted(into.glob("part-*"))]


def test_maps_run_where_their_chunks_lie_and_read_them_there(ring, tmp_path):
    said = ring(
        "mr", "run", WORDCOUNT.rpartition(".")[2], "ring://in/text", "ring://near", "--reduces", "2"
    )
    assert parts(ring, tmp_path, "ring://near") == alone(ring, tmp_path)
    counters = {line.split()[0]: line.split()[-1] for line in said.stderr.splitlines() if line}
    local = int(counters["local_bytes_read"].replace(",", ""))
    remote = int(counters.get("remote_bytes_read", "0").replace(",", ""))
    assert local > remote, said.stderr
    assert local + remote >= len(TEXT)
    assert "maps ran where their input lies" in said.stderr
    assert "ring mr fs get ring://near/part-00000" in said.stderr


def test_a_worker_is_killed_and_its_chunks_are_read_elsewhere(ring, tmp_path):
    program = tmp_path / "gated.py"
    program.write_text(GATED)
    args = {"gate": str(tmp_path / "gate"), "free": 3}
    job = Job(str(program), ["ring://in/text"], "ring://killed", reduces=2, args=args)
    under = Under(ring, job)
    under.when(lambda state: state["maps"]["done"] >= 3 and state["maps"]["running"] >= 2)
    victim = pid_of(ring, "w1")
    os.kill(victim, signal.SIGKILL)
    until(lambda: not alive(victim), "the end of w1")
    open_gate(tmp_path)
    outcome = under.end()
    assert parts(ring, tmp_path, "ring://killed") == alone(ring, tmp_path)
    assert outcome.tasks["local"] > 0
    assert outcome.tasks["map_attempts"] > outcome.tasks["map"]
    assert outcome.counters["mapreduce"]["local_bytes_read"] > 0
