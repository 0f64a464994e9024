"""Ordinary BitTorrent clients and ours, in one swarm, both ways; their tracker and ours.

Transmission calls no peer on loopback that a tracker names (it holds them for forged), but takes
calls: so ours call it. The others find us through the tracker alone.
"""

from __future__ import annotations

import hashlib
import urllib.parse
import urllib.request

import pytest
from torrent_foreign_kit import CLIENTS, Swarms, arrives
from torrent_roles_kit import make_content, until

from dht.torrent import bencode

TRACKERS = (
    "ours-http",
    pytest.param("ours-udp", marks=pytest.mark.slow),
    pytest.param("opentracker-http", marks=pytest.mark.slow),
    pytest.param("opentracker-udp", marks=pytest.mark.slow),
)


@pytest.fixture
def swarms(tmp_path):
    found = Swarms(tmp_path)
    yield found
    found.close()


@pytest.fixture
def content(tmp_path):
    (tmp_path / "source").mkdir()
    return make_content(tmp_path / "source")


def info_hash_of(torrent):
    data = torrent.read_bytes()
    start, end = bencode.spans(data)[b"info",]
    return hashlib.sha1(data[start:end]).digest()


def scrape(url, info_hash):
    """(seeds, leeches) as the tracker counts them."""
    quoted = urllib.parse.quote(info_hash, safe="")
    with urllib.request.urlopen(f"{url.replace('announce', 'scrape')}?info_hash={quoted}") as reply:
        says = bencode.decode(reply.read())[b"files"][info_hash]
    return says[b"complete"], says[b"incomplete"]


@pytest.mark.parametrize("tracker", TRACKERS)
@pytest.mark.parametrize("client", CLIENTS)
class TestTheirs:
    def test_fetches_from_our_seed(self, swarms, content, tmp_path, client, tracker):
        url = swarms.a_tracker(tracker, content)
        torrent = swarms.torrent(content, url)
        (tmp_path / "out").mkdir()
        theirs = None
        if client == "transmission":
            theirs = swarms.transmission("get", torrent, tmp_path / "out")
        options = {"peer": theirs.port} if theirs else {}
        seed = swarms.seed(torrent, content, **options)
        if theirs is None:
            getattr(swarms, client)("get", torrent, tmp_path / "out")
        arrives(content, tmp_path / "out" / content.name)
        total = sum(len(path.read_bytes()) for path in content.rglob("*") if path.is_file())
        says = seed.wait_for("status", lambda says: says["uploaded"] >= total)
        assert says["uploaded"] <= 1.2 * total
        assert not says["trouble"]

    def test_seeds_to_ours(self, swarms, content, tmp_path, client, tracker):
        url = swarms.a_tracker(tracker, content)
        torrent = swarms.torrent(content, url)
        theirs = getattr(swarms, client)("seed", torrent, content.parent)
        options = {"peer": theirs.port} if client == "transmission" else {}
        got = swarms.get(torrent, tmp_path / "out", **options)
        says = got.wait_for("complete")
        assert got.status() == 0
        arrives(content, tmp_path / "out" / content.name)
        assert says["wasted"] == says["banned"] == 0


@pytest.mark.parametrize("tracker", TRACKERS)
def test_ours_fetches_from_ours(swarms, content, tmp_path, tracker):
    torrent = swarms.torrent(content, swarms.a_tracker(tracker, content))
    swarms.seed(torrent, content)
    got = swarms.get(torrent, tmp_path / "out")
    got.wait_for("complete")
    assert got.status() == 0
    arrives(content, tmp_path / "out" / content.name)


@pytest.mark.parametrize("scheme", ["http", pytest.param("udp", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("seeds", "fetches"),
    [
        ("libtorrent", "aria2"),
        ("aria2", "libtorrent"),
        # Transmission calls nobody on loopback: so the other one calls it.
        pytest.param("transmission", "libtorrent", marks=pytest.mark.slow),
        pytest.param("libtorrent", "transmission", marks=pytest.mark.slow),
        pytest.param("transmission", "aria2", marks=pytest.mark.slow),
        pytest.param("aria2", "transmission", marks=pytest.mark.slow),
        pytest.param("libtorrent", "libtorrent", marks=pytest.mark.slow),
        pytest.param("aria2", "aria2", marks=pytest.mark.slow),
    ],
)
def test_theirs_fetches_from_theirs_through_our_tracker(
    swarms, content, tmp_path, seeds, fetches, scheme
):
    tracker = swarms.tracker().ready
    torrent = swarms.torrent(content, tracker[scheme])
    info_hash = info_hash_of(torrent)
    (tmp_path / "out").mkdir()
    begin = [
        lambda: getattr(swarms, seeds)("seed", torrent, content.parent),
        lambda: getattr(swarms, fetches)("get", torrent, tmp_path / "out"),
    ]
    if fetches == "transmission":
        begin.reverse()  # who comes second is told of the first, and calls
    first, second = begin
    first()
    until(lambda: sum(scrape(tracker["http"], info_hash)) == 1, "the first one at the tracker")
    second()
    arrives(content, tmp_path / "out" / content.name)


@pytest.mark.parametrize("client", CLIENTS)
def test_our_tracker_counts_them(swarms, content, client):
    url = swarms.a_tracker("ours-http", content)
    torrent = swarms.torrent(content, url)
    getattr(swarms, client)("seed", torrent, content.parent)
    info_hash = info_hash_of(torrent)
    until(lambda: scrape(url, info_hash) == (1, 0), f"{client} at the tracker, as a seed")


class TestMagnetLinks:
    def test_libtorrent_gets_the_metadata_from_us(self, swarms, content, tmp_path):
        url = swarms.a_tracker("ours-http", content)
        torrent = swarms.torrent(content, url)
        _, (says,), _ = swarms.run("info", torrent)
        swarms.seed(torrent, content)
        (tmp_path / "out").mkdir()
        swarms.libtorrent("get", says["magnet"], tmp_path / "out")
        arrives(content, tmp_path / "out" / content.name)

    @pytest.mark.parametrize("client", ["libtorrent", "aria2"])
    def test_we_get_it_from_them(self, swarms, content, tmp_path, client):
        url = swarms.a_tracker("ours-http", content)
        torrent = swarms.torrent(content, url)
        _, (says,), _ = swarms.run("info", torrent)
        getattr(swarms, client)("seed", torrent, content.parent)
        got = swarms.get(says["magnet"], tmp_path / "out")
        got.wait_for("complete")
        arrives(content, tmp_path / "out" / content.name)


def test_a_torrent_that_libtorrent_makes_is_read(swarms, content, tmp_path):
    lt = pytest.importorskip("libtorrent", reason="pip install libtorrent")
    made = lt.create_torrent(lt.list_files(str(content)), 0, lt.create_torrent.v1_only)
    made.add_tracker("http://127.0.0.1:1/announce", 0)
    lt.set_piece_hashes(made, str(content.parent))
    path = tmp_path / "theirs.torrent"
    path.write_bytes(lt.bencode(made.generate()))
    status, (says,), errors = swarms.run("info", path)
    assert status == 0, errors
    theirs = lt.torrent_info(str(path))
    assert says["info_hash"] == str(theirs.info_hash())
    seed = swarms.seed(path, content)
    assert seed.ready["role"] == "seeder"
