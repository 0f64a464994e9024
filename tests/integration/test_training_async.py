"""Workers that push without waiting for one another, as processes: a straggler, and kill -9."""

from __future__ import annotations

import signal
import time

import pytest
from elastic_run_kit import Rank, wait

from ddp.records import LEASE_S

pytest.importorskip("sklearn", reason="pip install 'ringleader[data]'")

pytestmark = pytest.mark.timeout(600)

JOB = {"model": "mlp", "data": "digits", "steps": 4000, "batch": 48, "width": 32, "depth": 1}
JOB |= {"optimizer": "momentum", "rate": 0.02}
NAMES = ("w1", "w2", "w3", "ps")
# What a gradient of the straggler takes more: many times what one takes the others here.
SLOW_S = 0.15


@pytest.fixture
def ranks(ring):
    """Starts ranks of one run; afterwards none is left."""
    ring.up()
    started = []

    def start(name, staleness, slow=0.0, run="run", names=NAMES, **changes):
        flags = {"staleness": staleness, "slow": slow}
        config = ring.home / "cluster.toml"
        rank = Rank(config, JOB | changes, run, name, len(names), **flags)
        started.append(rank)
        return rank

    yield start
    for rank in started:
        rank.end()


def clocks(server):
    return server.of("step")[-1]["clocks"]


def ends(every):
    """What each has said at the end; parameters are equal."""
    found = [wait(lambda r=r: r.of("finished"), "the end", every)[0] for r in every]
    assert len({end["checksum"] for end in found}) == 1, found
    return found


def waited(end, whom):
    return sum(seconds for _, other, seconds in end["waits"] if other == whom)


@pytest.mark.parametrize("staleness", ["0", "2", "inf"])
def test_a_straggler_is_waited_for_as_far_as_the_bound_says(ranks, staleness):
    every = [ranks(name, staleness, SLOW_S * (name == "w3"), steps=24) for name in NAMES]
    *_, end = ends(every)
    server = every[-1]
    leads = [max(c.values()) - c["w3"] for c in (s["clocks"] for s in server.of("step"))]
    assert [s["step"] for s in server.of("step")] == list(range(24))
    assert sum(end["pushes"].values()) >= 24 * 3
    if staleness == "inf":
        assert end["waits"] == []
        assert max(leads) > 6, "the others did not run ahead"
        assert end["pushes"]["w1"] > 2 * end["pushes"]["w3"]
        return
    assert max(leads) <= int(staleness) + 1
    assert waited(end, "w3") > 2 * waited(end, "w1") + 2 * waited(end, "w2")
    # Of each clock but those that it may be ahead, the others wait the most.
    assert waited(end, "w3") > 2 * SLOW_S * (24 - int(staleness)) / 4
    assert (end["stalest"] == 0) == (staleness == "0")


def test_a_worker_is_killed_and_the_bound_no_longer_waits_for_it(ranks):
    """Or the others would stand still two steps after its last."""
    every = {name: ranks(name, "2", steps=400) for name in NAMES}
    server = every["ps"]
    wait(lambda: len(server.steps()) > 5, "steps", every.values())
    every["w1"].kill()
    others = [every[name] for name in NAMES[1:]]
    wait(lambda: all(r.of("lost") for r in others), "a named error", others)
    assert all("w1 lost in epoch" in r.of("lost")[0]["error"] for r in others)
    wait(lambda: "w1" not in clocks(server), "steps without it", others)
    at = server.steps()[-1]
    wait(lambda: server.steps()[-1] > at + 5, "more steps without it", others)
    again = every["w1"] = ranks("w1", "2", steps=400)
    wait(lambda: "w1" in clocks(server), "its return", [again, *others])
    ends(list(every.values()))
    assert [s["step"] for s in server.of("step")] == list(range(400)), (
        "a worker's death undid steps"
    )


def test_the_server_is_killed_and_goes_on_from_its_last_checkpoint(ranks):
    every = {name: ranks(name, "3", steps=200) for name in NAMES}
    server = every["ps"]
    wait(lambda: len(server.steps()) > 47, "steps", every.values())
    server.kill()
    before, kept = server.steps()[-1], server.of("checkpoint")[-1]["step"]
    workers = [every[name] for name in NAMES[:-1]]
    wait(lambda: all(r.of("lost") for r in workers), "a named error", workers)
    assert all("ps lost in epoch" in r.of("lost")[0]["error"] for r in workers)
    again = every["ps"] = ranks("ps", "3", steps=200)
    (healed,) = wait(lambda: again.of("healed"), "healing", every.values())
    assert healed["source"] == "checkpoint"
    assert kept - 20 < healed["step"] <= before + 1
    assert healed["step"] % 20 == 0
    ends(list(every.values()))
    assert [s["step"] for s in again.of("step")] == list(range(healed["step"], 200))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["w2", "ps"])
def test_who_was_stopped_is_put_out_and_comes_back(ranks, name):
    """A worker at once; the server, which alone has the parameters, once its lease has ended."""
    every = {name: ranks(name, "1", steps=300) for name in NAMES}
    server, stopped = every["ps"], every[name]
    wait(lambda: len(server.steps()) > 25, "steps", every.values())
    stopped.signal(signal.SIGSTOP)
    if name == "ps":
        workers = [every[name] for name in NAMES[:-1]]
        wait(lambda: all(r.of("lost") for r in workers), "a named error", workers)
        time.sleep(3 * LEASE_S)
    else:
        wait(lambda: name not in clocks(server), "going on without it", every.values())
        at = server.steps()[-1]
        wait(lambda: server.steps()[-1] > at + 5, "more steps", every.values())
    stopped.signal(signal.SIGCONT)
    ends(list(every.values()))
    assert stopped.of("fenced")
    if name == "ps":
        healed = stopped.of("healed")
        assert healed[0]["source"] == "checkpoint"
        assert healed[0]["step"] >= 20
    else:
        assert name in clocks(server)


@pytest.mark.slow
def test_the_leader_of_raftd_is_killed_and_pushes_go_on(ring, ranks):
    every = {name: ranks(name, "1", steps=400) for name in NAMES}
    server = every["ps"]
    wait(lambda: len(server.steps()) > 5, "steps", every.values())
    ring("kill", ring.leader())
    ends(list(every.values()))
    assert server.steps() == list(range(400)), "steps were undone"


def test_a_person_sees_who_waited_for_whom(ring):
    ring.up()
    words = ["ddp", "train", "mlp", "--parallel", "ps=2", "--staleness", "1", "--slow", "w2=0.1"]
    done = ring(*words, "--steps", "12")
    rows = {cells[0]: cells for line in done.stdout.splitlines() if (cells := line.split())}
    assert [*rows["WORKER"]] == ["WORKER", "GRADIENTS", "WAITED", "FOR", "w1", "FOR", "w2"]
    assert float(rows["w1"][4]) > 0.5 > float(rows["w2"][3])
    assert "staleness 1" in done.stdout
    assert "synchronous, in one process" in done.stdout
