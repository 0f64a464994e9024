"""`ring net tunnel`: what it refuses, and its own authority: made once, renewed in time."""

from __future__ import annotations

import os
import socket
import stat
import time

import pytest

from cluster.cli import tunnel
from cluster.errors import Usage
from security import keystore
from security.identity import DAY_S


def test_is_made_at_the_first_use_and_kept(tmp_path):
    folder = tunnel.trust(tmp_path)
    first = tunnel.identity_of(folder, "exit")
    assert tunnel.trust(tmp_path) == folder
    again = tunnel.identity_of(folder, "exit")
    assert again.serial == first.serial
    assert os.listdir(tmp_path) == ["tunnel"]
    mode = (folder / "nodes" / "exit" / "key").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_both_ends_are_of_one_authority(tmp_path):
    folder = tunnel.trust(tmp_path)
    ends = [tunnel.identity_of(folder, name) for name in ("entry", "exit")]
    assert ends[0].authority == ends[1].authority
    assert ends[0].serial != ends[1].serial


def test_two_processes_that_make_it_at_once_make_one(tmp_path, monkeypatch):
    """The other one is faster: what this one has made is thrown away."""
    save = keystore.save_identity

    def overtaken(home, identity):
        monkeypatch.setattr(keystore, "save_identity", save)
        with monkeypatch.context() as other:
            other.setattr(os, "getpid", lambda: 1)
            tunnel.trust(tmp_path)
        save(home, identity)

    monkeypatch.setattr(keystore, "save_identity", overtaken)
    folder = tunnel.trust(tmp_path)
    assert os.listdir(tmp_path) == ["tunnel"]
    ends = [tunnel.identity_of(folder, name) for name in ("entry", "exit")]
    assert ends[0].authority == ends[1].authority


def test_a_certificate_is_renewed_before_it_expires(tmp_path, monkeypatch):
    folder = tunnel.trust(tmp_path)
    first = tunnel.identity_of(folder, "exit")
    later = time.time() + 70 * DAY_S
    monkeypatch.setattr(time, "time", lambda: later)
    renewed = tunnel.identity_of(folder, "exit")
    assert renewed.expires_at > first.expires_at
    assert tunnel.identity_of(folder, "exit").serial == renewed.serial


def test_a_damaged_key_is_told_with_what_to_do(tmp_path):
    folder = tunnel.trust(tmp_path)
    (folder / "nodes" / "exit" / "key").write_bytes(b"junk")
    with pytest.raises(Usage, match=f"delete {folder}, and it is made anew"):
        tunnel.identity_of(folder, "exit")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("exit", "--to", "10.0.0.1:80"), "10.0.0.1 is not this machine"),
        (("entry", "8080", "--via", "example.com:7600"), "example.com is not this machine"),
        (("both", "8080", "--to", "web"), "'web' is not an address; write a port"),
        (("both", "8080", "--to", "80", "--loss", "2"), "'2' is not a probability"),
        (("both", "8080", "--to", "80", "--delay", "20"), "'20' is not a time"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(ring, arguments, sentence):
    ring("net", "tunnel", *arguments).refused(2, sentence)


def test_a_taken_port_is_a_conflict(ring, tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        port = str(tcp.getsockname()[1])
        ring("net", "tunnel", "entry", port).refused(5, f"TCP port {port} is taken")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        port = str(udp.getsockname()[1])
        ring("net", "tunnel", "exit", port, "--to", "80").refused(5, f"UDP port {port}")
