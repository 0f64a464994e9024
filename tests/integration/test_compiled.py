"""The compiled twins of `make fast` compute what the sources compute."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

WHERE = "import netstack.transport.connection as module; print(module.__file__)"

EVERY_MODULE = """
import importlib, pkgutil
for name in ("security", "netstack", "raftd", "dht", "mapreduce", "ddp", "cluster"):
    package = importlib.import_module(name)
    for found in pkgutil.walk_packages(package.__path__, name + "."):
        if not found.name.endswith("__main__"):
            try:
                importlib.import_module(found.name)
            except ModuleNotFoundError as error:
                assert error.name in ("torch",), error  # an extra
"""

A_RUN = """
import hashlib
from cluster.chaos.simulate import simulate
for seed in (7, 8, 9):
    run = simulate("register", seed, seconds=6.0)
    told = run.events + run.history + str(run.verdict)
    print(hashlib.sha256(told.encode()).hexdigest(), len(told))
"""

# Longer than the ten seconds after which BBR asks anew how short the way is.
EVERY_CONTROLLER = """
from cluster.lab.dumbbell import Dumbbell
from cluster.lab.port import Line
from netstack.transport.controllers import CONTROLLERS
for name in sorted(CONTROLLERS):
    lab = Dumbbell(Line(250_000, 10_000), seed=1)
    flow = lab.add(name, rtt_s=0.05)
    lab.run(12.0)
    print(name, flow.samples[-1])
    assert flow.received > 12_000, name
"""


def python(program, *, pure):
    environment = {**os.environ, "RING_PURE": str(int(pure))}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def compiled():
    if not python(WHERE, pure=False).strip().endswith(".so"):
        pytest.skip("nothing is compiled, or the sources have changed since: make fast")


def test_ring_pure_runs_the_sources():
    assert python(WHERE, pure=True).strip().endswith("connection.py")


def test_every_module_finds_the_twins_it_stands_on():
    python(EVERY_MODULE, pure=False)


def test_a_cluster_in_virtual_time_tells_the_same_story_byte_for_byte():
    """Three daemons, their transport, logs and clients under faults: every event, every answer."""
    story = python(A_RUN, pure=True)
    assert len(story.splitlines()) == 3
    assert python(A_RUN, pure=False) == story


def test_every_controller_of_congestion_takes_the_same_course():
    assert python(EVERY_CONTROLLER, pure=False) == python(EVERY_CONTROLLER, pure=True)
