"""`ring up ddp=…`: workers whose members are in raftd; a group that mends itself."""

from __future__ import annotations

import json

import pytest


def ranks(ring, size):
    """The workers once all of that many have one group."""

    def formed():
        workers = [n for n in ring.status().values() if n["service"] == "ddp"]
        inside = [n["says"] for n in workers if n["says"].get("size") == size]
        epochs = {says["epoch"] for says in inside}
        return inside if len(inside) == size and len(epochs) == 1 else None

    return ring.wait(formed, f"a group of {size}")


def perf(ring, *arguments):
    done = ring("ddp", "allreduce", "--live", "-b", "4K", "-n", "3", "--json", *arguments)
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_workers_form_a_group_again_after_kill_9_and_after_a_pause(ring):
    ring.up("ddp=3")
    first = ranks(ring, 3)
    assert {says["fabric"] for says in first} == {"shared memory"}
    report = perf(ring)
    assert report["ranks"] == 3
    assert report["out_of_bounds"] == 0

    ring("kill", "r2")
    second = ranks(ring, 2)
    assert second[0]["epoch"] > first[0]["epoch"]
    assert perf(ring)["out_of_bounds"] == 0
    lost = [event for event in ring.events("ddp.lost") if event["peer"] == "r2"]
    assert {event["node"] for event in lost} == {"r1", "r3"}

    ring("restart", "r2")
    third = ranks(ring, 3)
    assert third[0]["epoch"] > second[0]["epoch"]

    ring("pause", "r3")
    ranks(ring, 2)
    ring("resume", "r3")
    ranks(ring, 3)
    assert perf(ring)["ranks"] == 3
    assert "r1 " in ring("ddp", "why").stdout
