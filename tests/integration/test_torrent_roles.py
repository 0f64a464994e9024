"""The lecture's roles as real processes: they work together, and kill -9 costs nothing."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from torrent_roles_kit import HOST, PATIENCE_S, end, free_port, tree, until

CONTENT_BYTES = 4 << 20


def test_web_tracker_seeder_peers_and_a_peer_turns_seeder(roles, content, tmp_path):
    tracker = roles.tracker()
    torrent = roles.torrent(content, tracker.ready["http"], tracker.ready["udp"])
    web = roles.start("web", tmp_path, "--port", 0)
    url = web.wait_for("ready")["http"]
    seed = roles.seed(torrent, content)
    first = roles.get(f"{url}{torrent.name}", tmp_path / "one", seed=True)
    assert first.wait_for("complete")["role"] == "seeder"
    assert tree(tmp_path / "one" / content.name) == tree(content)
    assert end(seed) == 0
    second = roles.get(torrent, tmp_path / "two")
    second.wait_for("complete")
    assert second.status() == 0
    assert tree(tmp_path / "two" / content.name) == tree(content)
    says = tracker.wait_for("status", lambda says: says["seeds"] == 1 and not says["peers"])
    assert says["swarms"] == 1
    _, (found,), _ = roles.run("info", torrent, "--scrape")
    counts = {"seeds": 1, "completed": 2, "leeches": 0, "trouble": ""}
    assert found["swarm"] == [{"url": tracker.ready[s], **counts} for s in ("http", "udp")]
    assert [end(role) for role in (first, web, tracker)] == [0, 0, 0]
    assert list((roles.home / "run").glob("*")) == []


def test_a_leecher_that_is_killed_resumes_and_fetches_nothing_twice(roles, content, tmp_path):
    torrent = roles.torrent(content, piece_length=16384)
    seed = roles.seed(torrent, content, upload_limit=2_000_000)
    journal = lambda: list((tmp_path / "out").glob(".*.ringleader"))  # noqa: E731
    leecher = roles.get(torrent, tmp_path / "out", peer=seed.port)
    until(lambda: journal() and journal()[0].stat().st_size > 26 + 8 * 40, "forty pieces")
    leecher.kill()
    named = (journal()[0].stat().st_size - 26) // 8
    again = roles.get(torrent, tmp_path / "out", peer=seed.port)
    resumed = again.ready["resumed"]
    # What the journal names is there; of what was on its way not all had been named.
    assert 40 <= named == resumed < again.ready["pieces"]
    says = again.wait_for("complete")
    assert again.status() == 0
    assert tree(tmp_path / "out" / content.name) == tree(content)
    total = sum(len(data) for data in tree(content).values())
    assert says["downloaded"] <= total - (resumed - 1) * 16384


def test_what_was_damaged_meanwhile_is_fetched_again(roles, content, tmp_path):
    """The journal is not believed: what it names is hashed."""
    torrent = roles.torrent(content, piece_length=16384)
    seed = roles.seed(torrent, content)
    first = roles.get(torrent, tmp_path / "out", peer=seed.port)
    first.wait_for("complete")
    assert first.status() == 0
    with (tmp_path / "out" / content.name / "a.bin").open("r+b") as file:
        file.seek(100_000)
        file.write(b"damage")
    again = roles.get(torrent, tmp_path / "out", peer=seed.port)
    assert again.ready["resumed"] == again.ready["pieces"] - 1
    assert again.wait_for("complete")["downloaded"] == 16384
    assert again.status() == 0
    assert tree(tmp_path / "out" / content.name) == tree(content)


def test_over_netstack(roles, content, tmp_path):
    tracker = roles.tracker()
    torrent = roles.torrent(content, tracker.ready["http"])
    seed = roles.seed(torrent, content, over="netstack")
    got = roles.get(torrent, tmp_path / "out", over="netstack")
    got.wait_for("complete")
    assert got.status() == 0
    assert tree(tmp_path / "out" / content.name) == tree(content)
    assert end(seed) == 0


def test_two_processes_do_not_fetch_into_one_folder(roles, content, tmp_path):
    torrent = roles.torrent(content)
    roles.get(torrent, tmp_path / "out")
    status, _, errors = roles.run("get", torrent, "--to", tmp_path / "out")
    assert status == 2
    assert "another process fetches this torrent there" in errors


def test_a_seeder_without_all_of_it_says_so(roles, content, tmp_path):
    torrent = roles.torrent(content)
    (content / "a.bin").write_bytes(b"other")
    status, _, errors = roles.run("seed", torrent, "--from", content.parent)
    assert status == 2
    assert re.search(r"\d+ of \d+ pieces are right", errors)


@pytest.mark.parametrize(
    ("arguments", "status", "why"),
    [
        (["get", "nowhere.torrent"], 2, "No such file"),
        (["get", "magnet:?xt=urn:btih:12"], 2, "no info-hash"),
        (["get", "http://192.0.2.1/x.torrent"], 2, "not on this machine"),
        (["get", "magnet:?xt=urn:btih:" + "a" * 40, "--peer", "8.8.8.8:53"], 2, "no address here"),
        (["get", "magnet:?xt=urn:btih:" + "a" * 40, "--timeout", "0.2"], 4, ""),
        (["create", "nowhere"], 2, "no such file"),
        (["info", "/etc/hostname"], 2, "not a .torrent"),
        (["web", "nowhere"], 2, "no folder"),
    ],
)
def test_errors_are_one_sentence(roles, arguments, status, why):
    found, _, errors = roles.run(*arguments)
    assert found == status, errors
    assert why in errors
    assert errors.count("\n") <= 1


def test_a_taken_port_is_a_conflict(roles):
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        for role in (["tracker", "--port", port], ["web", ".", "--port", port]):
            status, _, errors = roles.run(*role)
            assert status == 5
            assert f"port {port} is taken" in errors


def test_a_symbolic_link_in_the_way_is_not_followed(roles, content, tmp_path):
    torrent = roles.torrent(content)
    seed = roles.seed(torrent, content)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / content.name).symlink_to(tmp_path / "elsewhere")
    status, _, errors = roles.run("get", torrent, "--to", tmp_path / "out", "--peer", seed.port)
    assert status == 2
    assert "symbolic link" in errors
    assert list((tmp_path / "elsewhere").iterdir()) == []


class TestRing:
    """`ring torrent`: what people type."""

    def ring(self, tmp_path, *arguments):
        return subprocess.Popen(
            [sys.executable, "-m", "cluster", "torrent", *map(str, arguments)],
            env=os.environ | {"RING_HOME": str(tmp_path / "home"), "NO_COLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def done(self, process):
        out, err = process.communicate(timeout=PATIENCE_S)
        return process.returncode, out, err

    def test_create_seed_status_get(self, content, tmp_path):
        torrent, port = tmp_path / "t.torrent", free_port()
        status, out, err = self.done(self.ring(tmp_path, "create", content, "--out", torrent))
        assert status == 0, err
        assert "magnet:?xt=urn:btih:" in out
        assert "try next   ring torrent seed" in err
        seed = self.ring(tmp_path, "seed", torrent, "--from", content.parent, "--port", port)
        assert seed.stderr.readline().startswith("✓ seeding album")
        status, out, err = self.done(self.ring(tmp_path, "status"))
        assert status == 0
        assert "seeder" in out
        get = self.ring(tmp_path, "get", torrent, "--to", tmp_path / "out", "--peer", port)
        status, out, err = self.done(get)
        assert status == 0, err
        assert "is complete" in err
        assert tree(tmp_path / "out" / content.name) == tree(content)
        seed.send_signal(signal.SIGINT)
        status, out, err = self.done(seed)
        assert status == 0, err
        assert "✓ stopped" in err

    def test_a_role_ends_with_its_command_however_that_ends(self, tmp_path):
        track = self.ring(tmp_path, "track", "--port", free_port(), "--json")
        pid = int(re.search(r'"pid": (\d+)', track.stdout.readline()).group(1))
        track.kill()
        track.communicate()
        until(lambda: not os.path.exists(f"/proc/{pid}"), "the end of the tracker")

    def test_errors(self, tmp_path):
        status, _, err = self.done(self.ring(tmp_path, "info", "/etc/hostname"))
        assert status == 2
        assert err.startswith("ring: not a .torrent")


def test_a_tracker_bears_with_slow_and_odd_callers(roles):
    """A hundred who send a byte and wait keep nobody out."""
    tracker = roles.tracker()
    port = int(tracker.ready["address"].rpartition(":")[2])
    slow = [socket.create_connection((HOST, port)) for _ in range(100)]
    try:
        for sock in slow:
            sock.sendall(b"G")
        for request, answer in (
            (b"GET /scrape HTTP/1.0\r\n\r\n", b"200 OK"),
            (b"POST / HTTP/1.1\r\n\r\n", b"405"),
            (b"nonsense\r\n\r\n", b"400"),
            (b"GET /announce?info_hash=x HTTP/1.1\r\n\r\n", b"failure reason"),
            (b"GET /etc/passwd HTTP/1.1\r\n\r\n", b"404"),
        ):
            with socket.create_connection((HOST, port), timeout=PATIENCE_S) as caller:
                caller.sendall(request)
                got = b""
                while part := caller.recv(4096):
                    got += part
            assert answer in got
        # And they themselves are ended in seconds.
        slow[0].settimeout(PATIENCE_S)
        began = time.monotonic()
        assert slow[0].recv(1) == b""
        assert time.monotonic() - began < PATIENCE_S
    finally:
        for sock in slow:
            sock.close()
    assert end(tracker) == 0
