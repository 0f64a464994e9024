"""torch meets in raftd: its store there does what torch's own does, and outlives a leader."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

from ddp.errors import BadCall

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))
from ring_kit import PATIENCE, Ring

torch = pytest.importorskip("torch", reason="needs torch: pip install torch==2.13.0")
dist = torch.distributed
torch_store = pytest.importorskip("ddp.torch_store")
RaftStore, rendezvous = torch_store.RaftStore, torch_store.rendezvous

ROOT = Path(__file__).parent.parent.parent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SCRIPT = """
import os, sys, datetime, torch, ddp.torch_backend, torch.distributed as dist
dist.init_process_group(
    sys.argv[1], init_method="raft://?run=" + sys.argv[2], rank=int(sys.argv[3]), world_size=2
)
found = torch.full((5,), dist.get_rank() + 1.0)
dist.all_reduce(found)
dist.all_reduce(found, group=dist.new_group([0, 1]))
assert found.tolist() == [6.0] * 5
dist.barrier()
dist.destroy_process_group()
"""


@pytest.fixture
def ring(tmp_path):
    tool = Ring(tmp_path / "home")
    tool.up()
    yield tool
    tool("down", status=None)


def rank(ring, backend, run, number, transport="auto"):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RING_HOME": str(ring.home)}
    environment["RING_DDP_TRANSPORT"] = transport
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, backend, run, str(number)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended_well(*ranks):
    for process in ranks:
        said, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, said[-2000:]


def asked_in_turn(store):
    """What a store answers to all that torch asks of one."""
    store.set_timeout(timedelta(seconds=PATIENCE))
    found = [store.check(["a"])]
    store.set("a", "1")
    found += [store.get("a"), store.check(["a"]), store.check(["a", "b"])]
    found += [store.add("n", 5), store.add("n", -2), store.get("n")]
    found += [store.compare_set("c", "", "first"), store.compare_set("c", "", "second")]
    found += [store.compare_set("c", "first", "third"), store.get("c")]
    found += [store.compare_set("nowhere", "something", "else"), store.check(["nowhere"])]
    store.set("empty", "")
    found += [store.get("empty"), store.num_keys(), store.delete_key("a"), store.delete_key("a")]
    found += [store.check(["a"]), store.num_keys()]
    store.wait(["n", "c"], timedelta(seconds=PATIENCE))
    with pytest.raises(dist.DistStoreError):
        store.wait(["never"], timedelta(seconds=0.05))
    return found


def test_the_store_answers_as_torchs_own_does(ring):
    store = RaftStore(ring.home / "cluster.toml", "answers")
    theirs = dist.TCPStore("127.0.0.1", 0, is_master=True)
    ours, wanted = asked_in_turn(store), asked_in_turn(theirs)
    keys_of_its_own = wanted[14] - ours[14]  # TCPStore counts one or two for itself
    wanted[14] -= keys_of_its_own
    wanted[18] -= keys_of_its_own
    assert ours == wanted
    through_c = dist.PrefixStore("p", store)
    through_c.set("x", "y")
    assert (through_c.get("x"), store.get("p/x"), through_c.add("n", 3)) == (b"y", b"y", 3)

    later = threading.Timer(0.2, store.set, ("late", "here"))
    later.start()
    assert store.get("late") == b"here"
    later.join()
    store.close()
    another = RaftStore(ring.home / "cluster.toml", "answers")
    assert another.num_keys() == 0, "who has closed takes his keys with him"
    another.close()


def test_many_add_at_once_and_nothing_is_lost(ring):
    stores = [RaftStore(ring.home / "cluster.toml", "sum") for _ in range(3)]
    threads = [
        threading.Thread(target=lambda s=store: [s.add("n", 1) for _ in range(20)])
        for store in stores
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stores[0].get("n") == b"60"
    for store in stores:
        store.close()


@pytest.mark.parametrize(
    ("backend", "transport"), [("ring", "auto"), ("ring", "network"), ("gloo", "auto")]
)
def test_ranks_meet_though_the_leader_is_killed_between(ring, backend, transport):
    first = rank(ring, backend, "met", 0, transport)
    look = RaftStore(ring.home / "cluster.toml", "met")
    deadline = time.monotonic() + PATIENCE
    while not look.num_keys():
        assert time.monotonic() < deadline, "the first has said nothing"
        assert first.poll() is None, first.stdout.read()[-2000:]
        time.sleep(0.05)
    ring("kill", ring.leader())
    ended_well(rank(ring, backend, "met", 1, transport), first)
    look.close()


def test_an_address_that_lacks_something_is_told_what(ring, monkeypatch):
    monkeypatch.setenv("RING_HOME", str(ring.home))
    with pytest.raises(BadCall, match="rank and world_size are missing"):
        next(rendezvous("raft://?run=x"))
    with pytest.raises(BadCall, match="a run needs a name"):
        next(rendezvous("raft://?rank=0&world_size=1"))
