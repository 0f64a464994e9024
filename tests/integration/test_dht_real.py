"""Real peers in real processes: the command line, kill -9, a ring that heals."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time

import pytest
from ring_kit import PATIENCE, Ring

from dht.client import DhtClient, DhtError, View, flaws, key_id, owner
from netstack.rpc.errors import RpcError


def ideal(ring: Ring) -> bool:
    return ring("dht", "nodes", status=None).returncode == 0


@pytest.mark.timeout(600)
def test_five_peers_from_the_command_line(ring):
    ring.up("dht=5")
    ring.wait(lambda: ideal(ring), "an ideal ring")
    said = ring("dht", "put", "greeting", "hello").stderr
    assert "✓ version 1, kept by " in said
    assert ring("dht", "get", "greeting").stdout == "hello\n"
    absent = ring("dht", "get", "nothing", status=1)
    assert "'nothing' is absent" in absent.stderr
    ring("dht", "put", "greeting", "hi", "--expect", "7", status=1)
    ring("dht", "put", "greeting", "hi", "--expect", "1")
    found = json.loads(ring("dht", "get", "greeting", "--json").stdout)
    assert (found["value"], found["version"], found["sure"]) == ("hi", 2, True)
    owners = set()
    for mode in ("iterative", "recursive", "walk"):
        shown = json.loads(ring("dht", "lookup", "greeting", "--mode", mode, "--json").stdout)
        owners.add(shown["owner"]["id"])
        assert shown["hops"][-1] == shown["owner"]
    assert len(owners) == 1
    assert "owner" in ring("dht", "lookup", "greeting", "--trace").stdout
    keys = json.loads(ring("dht", "keys", "--json").stdout)
    assert [key["key"] for key in keys] == ["greeting"]
    assert len(set(keys[0]["holders"])) == 3

    # kill -9, and the ring heals without anybody's help.
    holder = keys[0]["owner"]
    ring("kill", holder)
    assert ring("dht", "get", "greeting").stdout == "hi\n"
    ring.wait(lambda: all(
        holder not in node["says"]["successors"]
        for name, node in ring.status().items() if name != holder
    ), "a healed ring")  # fmt: skip

    # It comes back, two more join, four go; every time the key is there.
    ring("restart", holder)
    ring("up", "dht=7", "--wait", str(PATIENCE))
    ring.wait(lambda: ideal(ring), "an ideal ring of seven")
    assert ring("dht", "get", "greeting").stdout == "hi\n"
    ring("up", "dht=3", "--wait", str(PATIENCE))
    assert ring("dht", "get", "greeting").stdout == "hi\n"
    ring("dht", "del", "greeting")
    ring("dht", "get", "greeting", status=1)


@pytest.mark.timeout(600)
def test_what_was_acknowledged_survives_a_power_cut_of_all(ring):
    ring.up("dht=3", "--power-cut")
    for i in range(2):
        ring("dht", "put", f"k{i}", f"v{i}")
    ring("kill", "all")
    ring("restart", "all")
    ring.healthy()
    for i in range(2):
        assert ring("dht", "get", f"k{i}").stdout == f"v{i}\n"


def test_without_a_cluster_and_without_peers(ring):
    assert "ring up" in ring("dht", "get", "k", status=6).stderr
    assert "no experiment 'nonsense'" in ring("dht", "lab", "nonsense", status=2).stderr
    assert "path-length" in ring("dht", "lab").stdout


# -- many at once


async def views(client: DhtClient, alive: set[str]) -> dict:
    nodes = [n for n in await client.nodes(timeout_s=5) if n.contact.name in alive]
    return {n.contact: View(n.pred, n.succ) for n in nodes if n.state == "member"}


async def until_ideal(client: DhtClient, alive: set[str], identifiers: int) -> tuple[float, dict]:
    """(how long it took, the ring that was)."""
    began = time.monotonic()
    while True:
        seen = await views(client, alive)
        if len(seen) == identifiers and not flaws(seen, 8):
            return time.monotonic() - began, seen
        assert time.monotonic() - began < 6 * PATIENCE, flaws(seen, 8)[:5]
        await asyncio.sleep(0.2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_64_identifiers_in_16_processes_lose_ten_to_fifty_percent_at_once(ring):
    """No wrong owner once the ring is ideal; what had a copy left is there; time is reported."""
    processes, vnodes = 16, 4
    ring.up(f"dht={processes}")
    dice = random.Random(os.environ.get("SEED", "64"))

    async def rounds() -> list[str]:
        report = []
        names = {f"d{i}" for i in range(1, processes + 1)}
        async with DhtClient.connect(ring.home / "cluster.toml") as client:
            await until_ideal(client, names, processes * vnodes)
            for share in (0.125, 0.25, 0.375, 0.5):
                stored = {}
                for i in range(100):
                    key = f"{share}/{i}".encode()
                    stored[key] = await client.put(key, b"value of " + key, timeout_s=30)
                victims = set(dice.sample(sorted(names), int(share * processes)))
                await asyncio.to_thread(ring, "kill", ",".join(sorted(victims)))
                alive = names - victims
                took, ideal_ring = await until_ideal(client, alive, len(alive) * vnodes)
                wrong = 0
                for key in stored:
                    path = await client.lookup(key, timeout_s=30)
                    wrong += path.owner != owner(ideal_ring, key_id(key))
                assert wrong == 0
                lost = 0
                for key, written in stored.items():
                    if set(written.acks) <= victims:
                        lost += 1
                        continue
                    found = await client.get(key, timeout_s=30)
                    assert found is not None, (key, written.acks, victims)
                    assert found.value == b"value of " + key
                report.append(f"{share:.0%} killed: ideal after {took:.1f} s, {lost} of 100 lost")
                await asyncio.to_thread(ring, "restart", ",".join(sorted(victims)))
                await until_ideal(client, names, processes * vnodes)
        return report

    print("\n".join(asyncio.run(rounds())))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_kill_and_restart_over_and_over_without_a_hang(ring):
    """Real processes, one killed a round; every round writes and reads within its time."""
    rounds = int(os.environ.get("ROUNDS", "60"))
    ring.up("dht=4")
    dice = random.Random(7)

    async def go() -> None:
        async with DhtClient.connect(ring.home / "cluster.toml") as client:
            for turn in range(rounds):
                key, value = b"k%d" % (turn % 10), b"%d" % turn
                async with asyncio.timeout(3 * PATIENCE):
                    try:
                        await client.put(key, value, timeout_s=2 * PATIENCE)
                        known = True
                    except (DhtError, RpcError):
                        known = False
                    victim = f"d{dice.randrange(1, 5)}"
                    await asyncio.to_thread(ring, "kill", victim)
                    found = await client.get(key, timeout_s=2 * PATIENCE)
                    assert not known or found.value == value, turn
                    await asyncio.to_thread(ring, "restart", victim)
                await asyncio.to_thread(ring.healthy)

    asyncio.run(go())
