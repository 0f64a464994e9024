"""Dask's own collections, optimised by Dask, computed by our workers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))
from ring_kit import Ring, alive

from mapreduce.graph.client import SyncGraphClient

dask = pytest.importorskip("dask", reason="Dask is not installed: pip install 'dask[bag]'")


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    ring = Ring(tmp_path_factory.mktemp("dask") / "home")
    ring.up("graph=2")
    with SyncGraphClient(ring.home / "cluster.toml") as client:
        yield client
    pids = ring.pids()
    ring("down")
    assert not [pid for pid in pids if alive(pid)], "left behind"


def test_delayed(graph):
    add = dask.delayed(sum)
    parts = [add([i, i + 1]) for i in range(20)]
    whole = add(parts)
    assert whole.compute(scheduler=graph.get) == sum(2 * i + 1 for i in range(20))
    assert graph.report.ran > 0


def test_several_at_once(graph):
    one, other = dask.delayed(abs)(-1), dask.delayed(max)([1, 5])
    assert dask.compute(one, other, scheduler=graph.get) == (1, 5)


def test_bag(graph):
    bag = pytest.importorskip("dask.bag", reason="needs: pip install 'dask[bag]'")
    numbers = bag.from_sequence(range(1000), npartitions=8)
    found = numbers.map(lambda x: x * x).filter(lambda x: x % 2 == 0).sum()
    expected = sum(x * x for x in range(1000) if x % 2 == 0)
    assert found.compute(scheduler=graph.get) == expected
