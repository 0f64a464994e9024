"""Whole daemons of MapReduce under seeded faults; the sequential runner is the judge."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from mr_sim_kit import WORKERS, SimulatedCluster

from mapreduce import worker as worker_module
from mapreduce.client import Job, prepare
from mapreduce.local import run_local
from netstack.runtime.simulation.world import World


def parts(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("part-*"))]


async def misfortunes(world: World, dice: random.Random) -> None:
    """Crashes, pauses, cuts and losses, for as long as the job runs."""
    while True:
        await asyncio.sleep(dice.uniform(0.2, 1.5))
        name = dice.choice(("m1", *WORKERS))
        what = dice.choice(("crash", "crash", "pause", "cut", "loss"))
        node = world.nodes[name]
        if what == "crash" and node.running:
            world.crash(name)
            await asyncio.sleep(dice.uniform(0.1, 4))
            world.restart(name)
        elif what == "pause" and node.running:
            world.pause(name)
            await asyncio.sleep(dice.uniform(0.5, 5))
            world.resume(name)
        elif what == "cut":
            other = dice.choice([n for n in WORKERS if n != name])
            world.network.partition([[name], [other]])
            await asyncio.sleep(dice.uniform(0.5, 5))
            world.network.heal()
        elif what == "loss":
            before = world.network.base_policy
            world.network.base_policy = replace(before, loss=0.1)
            await asyncio.sleep(dice.uniform(0.5, 3))
            world.network.base_policy = before


def simulate(seed: int, folder: Path, shuffle: str = "files"):
    """One job in one world; what it wrote, what it should have, the log."""
    dice = random.Random(f"mr {seed}")
    words = [b"w%d" % i for i in range(60)]
    lines = [b" ".join(dice.choices(words, k=8)) for _ in range(300)]
    (folder / "in.txt").write_bytes(b"\n".join(lines))
    program = "mapreduce.examples.wordcount"

    def job(name: str) -> Job:
        return Job(
            program, [str(folder / "in.txt")], str(folder / name), split_bytes=1500, shuffle=shuffle
        )

    run_local(prepare(job("alone")))
    world = World(seed)

    async def scenario():
        cluster = SimulatedCluster(world, folder)
        client = await cluster.client()
        id = await client.submit(prepare(job("out")))
        trouble = asyncio.ensure_future(misfortunes(world, dice))
        try:
            async with asyncio.timeout(600):
                return await client.wait(id)
        finally:
            trouble.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await trouble

    try:
        outcome = world.run(scenario())
        log = world.log
    finally:
        world.close()
    return outcome, parts(folder / "out"), parts(folder / "alone"), log


@pytest.fixture(autouse=True)
def _memory_is_a_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(worker_module, "MEMORY", tmp_path / "no-such-folder")


@pytest.mark.parametrize("seed", range(6))
def test_a_job_ends_right_whatever_happens(seed, tmp_path):
    outcome, found, expected, _ = simulate(seed, tmp_path, "direct" if seed % 2 else "files")
    assert found == expected
    assert outcome.counters["mapreduce"]["map_output_records"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6, 200))
def test_many_jobs_end_right_whatever_happens(seed, tmp_path):
    _, found, expected, _ = simulate(seed, tmp_path, "direct" if seed % 2 else "files")
    assert found == expected


def test_one_seed_one_history(tmp_path):
    logs = []
    for _ in range(2):
        folder = tmp_path / "same"
        folder.mkdir()
        logs.append(simulate(3, folder)[3])
        shutil.rmtree(folder)
    assert logs[0] == logs[1]
