"""fsspec's own conformance tests, on a store of real processes."""

from __future__ import annotations

import pickle

import fsspec
import pytest
from chunk_real_kit import make_ring
from fsspec.tests import abstract
from ring_kit import alive

from mapreduce.store.filesystem import RingFileSystem


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    ring = make_ring(tmp_path_factory.mktemp("fsspec") / "home")
    yield ring
    pids = ring.pids()
    ring("down")
    assert not [pid for pid in pids if alive(pid)], "daemons were left behind"


@pytest.fixture(scope="module")
def shared(cluster):
    RingFileSystem.clear_instance_cache()
    found = fsspec.filesystem("ring", config=str(cluster.home / "cluster.toml"))
    yield found
    found.close()
    RingFileSystem.clear_instance_cache()


class Fixtures(abstract.AbstractFixtures):
    @pytest.fixture
    def fs(self, shared):
        return shared

    @pytest.fixture
    def fs_path(self, request, shared):
        path = f"test/{abs(hash(request.node.nodeid)):x}"
        shared.makedirs(path)
        return path


@pytest.mark.slow
class TestCopy(abstract.AbstractCopyTests, Fixtures):
    pass


@pytest.mark.slow
class TestGet(abstract.AbstractGetTests, Fixtures):
    pass


@pytest.mark.slow
class TestPut(abstract.AbstractPutTests, Fixtures):
    pass


class TestOpen(abstract.AbstractOpenTests, Fixtures):
    pass


class TestPipe(abstract.AbstractPipeTests, Fixtures):
    pass


def test_it_is_known_by_its_protocol(shared):
    with fsspec.open("ring://words", "w", config=shared.config) as file:
        file.write("one\ntwo\n")
    with fsspec.open("ring://words", config=shared.config) as file:
        assert file.readlines() == [b"one\n", b"two\n"]


def test_blocks_begin_and_end_at_lines(shared):
    lines = [f"line {i}\n".encode() for i in range(100_000)]
    shared.pipe_file("lines", b"".join(lines))
    size = shared.size("lines")
    parts = [
        shared.read_block("lines", at, 300_000, delimiter=b"\n") for at in range(0, size, 300_000)
    ]
    assert b"".join(parts) == b"".join(lines)
    assert all(part.endswith(b"\n") for part in parts)


def test_big_files_move_and_go(shared):
    data = bytes(range(256)) * 4096 * 3
    with shared.open("big", "wb", block_size=1_000_000) as file:
        for at in range(0, len(data), 77_777):
            file.write(data[at : at + 77_777])
    before = shared.info("big")["file"]
    shared.mv("big", "moved/there")
    assert not shared.exists("big")
    assert shared.info("moved/there")["file"] == before, "its chunks were copied"
    assert shared.cat_file("moved/there", -5) == data[-5:]
    assert shared.cat_file("moved/there", 10, -3) == data[10:-3]
    shared.rm("moved", recursive=True)
    assert not shared.exists("moved")


def test_half_a_file_is_none(shared):
    class Stop(Exception):
        pass

    def begin():
        with shared.open("half", "wb") as file:
            file.write(b"x" * 5_000_000)
            raise Stop

    with pytest.raises(Stop):
        begin()
    assert not shared.exists("half")


def test_a_transaction_is_all_or_nothing_until_it_ends(shared):
    with shared.transaction:
        with shared.open("t/a", "wb") as file:
            file.write(b"a")
        assert not shared.exists("t/a")
    assert shared.cat_file("t/a") == b"a"


def test_it_can_be_pickled(shared):
    again = pickle.loads(pickle.dumps(shared))
    assert again.config == shared.config


def test_files_do_not_grow(shared):
    shared.pipe_file("f", b"x")
    with pytest.raises(ValueError, match="no appending"):
        shared.open("f", "ab")
    shared.pipe_file("d/f", b"x")
    with pytest.raises(OSError, match="something in"):
        shared.rmdir("d")
