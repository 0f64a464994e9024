"""Debian's etcd as a campaign harms and asks it: what is done to it is seen, and it is judged."""

from __future__ import annotations

import json
import shutil
import signal

import pytest
from ring_kit import Ring, alive

from cluster.chaos.etcd import LiveEtcd
from cluster.chaos.system import Forgotten, NoEffect, Refused
from cluster.process import STOPPED, Process, state_of

pytestmark = pytest.mark.skipif(shutil.which("etcd") is None, reason="etcd is not installed")


@pytest.fixture
async def etcd(tmp_path):
    system = LiveEtcd(tmp_path / "etcd")
    pids = []
    try:
        await system.start()
        pids = [member.process.pid for member in system._members.values()]
        yield system
    finally:
        await system.stop()
    assert not [pid for pid in pids if alive(pid)]


def process_of(system, node) -> Process:
    process = system._members[node].process
    assert process is not None
    return process


async def test_a_pause_is_seen_in_the_kernel_and_ends(etcd):
    pid = process_of(etcd, "m1").pid
    assert await etcd.pause("m1") == f"m1: process {pid} was stopped"
    assert state_of(pid) == STOPPED
    assert (await etcd.look())["m1"].state == "paused"
    await etcd.resume("m1")
    assert state_of(pid) != STOPPED
    assert (await etcd.look())["m1"].state == "running"


async def test_a_pause_that_did_not_happen_is_not_claimed(etcd, monkeypatch):
    """Somebody wakes it at once; and whoever is gone cannot be stopped."""
    process = process_of(etcd, "m1")
    send = process.signal

    def deaf(number):
        send(signal.SIGCONT if number == signal.SIGSTOP else number)

    monkeypatch.setattr(process, "signal", deaf)
    with pytest.raises(NoEffect, match=f"process {process.pid} of m1 is in state"):
        await etcd.pause("m1")
    await etcd.kill("m1")
    with pytest.raises(NoEffect, match="m1 has no process"):
        await etcd.pause("m1")


async def test_watches_and_leases_of_etcd_keep_what_the_interface_says(etcd):
    async with etcd.client() as client:
        first = await client.put("w/a", "1")
        await client.commit({"w/b": 0}, {"w/b": "2", "w/c": "3"})
        await client.delete("w/a")
        told = []
        async for batch in client.watch("w/", first):
            told.append([(change.key, change.value) for change in batch])
            if len(told) == 3:
                break
        assert told == [[("w/a", "1")], [("w/b", "2"), ("w/c", "3")], [("w/a", None)]]
        await client.compact(first + 1)
        with pytest.raises(Forgotten):
            await anext(client.watch("w/", first))
        lease = await client.grant(30)
        await client.keep_alive(lease)
        assert await client.claim("job", "me", lease) is not None
        assert await client.claim("job", "you", lease) is None
        await client.revoke(lease)
        assert await client.get("job") is None
        with pytest.raises(Refused):
            await client.keep_alive(lease)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("scenario", ["append", "watch", "lock", "lease"])
def test_its_transactions_watches_locks_and_leases_are_judged_too(scenario, tmp_path):
    """Long enough for a silence of the store to tell: twice ten seconds, and what is excused."""
    ring = Ring(tmp_path / "home")
    words = (scenario, "--system", "etcd", "--seed", "5", "--faults", "kill,pause")
    told = json.loads(ring("chaos", *words, "--time", "60", "--json", lasts_s=60).stdout)
    assert told["verdict"] == "valid"
    assert told["counts"]["ok"] > 50
