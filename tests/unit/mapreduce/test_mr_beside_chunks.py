"""What MapReduce has to do with the chunk store: where a split lies, and who reads it."""

from __future__ import annotations

import random
import sys

import fsspec
import pytest

from mapreduce.job import Job
from mapreduce.ring_urls import bytes_read_of, environment, leads_to
from mapreduce.splits import Split, plan
from mapreduce.store.blocks import BLOCK_BYTES
from mapreduce.store.chunk_files import ChunkFiles, chunk_path
from mapreduce.store.model import ChunkRecord, clean_path
from mapreduce.store.own_disk import SUMS_KEPT, OwnDisk
from netstack.runtime.disk import Disk
from netstack.runtime.os_disk import OsStorage

FILE = "00112233445566aa"
CHUNK = f"{FILE}/00000003"
DATA = random.Random(5).randbytes(3 * BLOCK_BYTES + 777)


def record(version=2, nodes=("w1", "w2"), chunk=CHUNK):
    return ChunkRecord(chunk, version, len(DATA), 2, nodes)


def write(folder, chunk=CHUNK):
    files = ChunkFiles(Disk(OsStorage(folder), lambda s: None))
    files.write(chunk, 2, 0, DATA)
    files.finish(chunk, 2, len(DATA))


@pytest.fixture
def own(tmp_path):
    write(tmp_path)
    return OwnDisk("w1", tmp_path)


# -- a worker's own disk


@pytest.mark.parametrize("offset", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, len(DATA) - 1])
@pytest.mark.parametrize("length", [1, BLOCK_BYTES, BLOCK_BYTES + 1])
def test_what_a_chunk_server_wrote_is_read_beside_it(own, offset, length):
    length = min(length, len(DATA) - offset)
    assert own.read(record(), offset, length) == DATA[offset : offset + length]


def test_what_is_not_here_is_asked_for_elsewhere(own, tmp_path):
    assert own.read(record(nodes=("w2", "w3")), 0, 10) is None
    assert own.read(record(version=3), 0, 10) is None
    assert own.read(record(chunk=f"{FILE}/00000004"), 0, 10) is None
    assert own.read(record(), len(DATA) - 5, 10) is None
    assert sorted(path.name for path in (tmp_path / "chunks").iterdir()) == [f"{FILE}-00000003"]


@pytest.mark.parametrize("at", [BLOCK_BYTES + 9, len(DATA) + 1, -1])
def test_no_bit_of_it_flips_unseen(own, tmp_path, at):
    path = tmp_path / chunk_path(CHUNK)
    bytes_ = bytearray(path.read_bytes())
    bytes_[at] ^= 0x40
    path.write_bytes(bytes_)
    assert own.read(record(), BLOCK_BYTES, 100) is None
    path.write_bytes(bytes_[:100])
    assert own.read(record(), 0, 10) is None


def test_a_chunk_that_came_anew_is_read_by_its_new_sums(own, tmp_path):
    assert own.read(record(), 0, 10) == DATA[:10]
    files = ChunkFiles(Disk(OsStorage(tmp_path), lambda s: None))
    files.recover()
    files.write(CHUNK, 3, 0, DATA[::-1])
    files.finish(CHUNK, 3, len(DATA))
    assert own.read(record(version=3), 0, 10) == DATA[::-1][:10]
    assert own.read(record(version=2), 0, 10) is None


def test_sums_of_some_chunks_are_kept_and_not_of_all(tmp_path):
    names = [f"{FILE}/{i:08x}" for i in range(SUMS_KEPT + 5)]
    own = OwnDisk("w1", tmp_path)
    for name in names:
        write(tmp_path, name)
        assert own.read(record(chunk=name), 0, 1) == DATA[:1]
    assert repr(own) == f"<OwnDisk of w1 sums={SUMS_KEPT}>"


# -- where a split lies


class Chunks:
    """Chunks of 100 bytes; the third is on w1 alone."""

    def locate(self, path):
        return [(0, 100, ["w1", "w2"]), (100, 100, ["w2", "w3"]), (200, 50, ["w1"])]


def planned(tmp_path, **more):
    (tmp_path / "in").write_bytes(b"x" * 250)
    job = Job("mapreduce.examples.wordcount", [str(tmp_path / "in")], "out", **more)
    return [(s.offset, s.length, s.hosts) for s in plan(job, Chunks())]


def test_a_split_ends_where_its_chunk_does(tmp_path):
    assert planned(tmp_path) == [
        (0, 100, ["w1", "w2"]),
        (100, 100, ["w2", "w3"]),
        (200, 50, ["w1"]),
    ]


def test_a_split_is_as_small_as_the_job_wants_it(tmp_path):
    assert planned(tmp_path, split_bytes=60)[:3] == [
        (0, 60, ["w1", "w2"]),
        (60, 60, ["w2", "w1", "w3"]),
        (120, 60, ["w2", "w3"]),
    ]


def test_local_files_lie_nowhere_in_particular(tmp_path):
    (tmp_path / "in").write_bytes(b"a b\n")
    job = Job("mapreduce.examples.wordcount", [str(tmp_path / "in")], "out")
    assert plan(job) == [Split(str(tmp_path / "in"), 0, 4, [])]
    assert bytes_read_of(str(tmp_path / "in")) == {}


# -- ring:// leads to the cluster of whoever runs the job


def test_a_path_may_bear_the_scheme():
    assert clean_path("ring://logs/monday/") == clean_path("logs/monday") == "logs/monday"
    assert clean_path("ring://") == clean_path("/") == ""


def test_urls_lead_to_the_cluster_of_the_last_who_said_so(tmp_path):
    def config():
        return fsspec.filesystem("ring").config

    one, two = tmp_path / "one.toml", tmp_path / "two.toml"
    before = config()
    with leads_to(one):
        with leads_to(one):
            assert config() == str(one)
        assert config() == str(one)
        with leads_to(two):
            assert config() == str(two)
        assert config() == before
    assert config() == before
    assert "ring" not in fsspec.config.conf


def test_children_of_a_worker_are_told_by_their_environment(tmp_path):
    import subprocess

    said = subprocess.run(
        [sys.executable, "-c", "import fsspec; print(fsspec.config.conf['ring'])"],
        env=environment(tmp_path / "cluster.toml", "w1"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == str({"config": str(tmp_path / "cluster.toml"), "beside": "w1"})
