"""Clients and a tracker that nobody here wrote, as processes: libtorrent, aria2, Transmission,
opentracker. Each seeds a folder or fetches into one; a test is skipped where one is missing."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "integration"))

from torrent_roles_kit import HOST, PATIENCE_S, Roles, free_port, tree, until

LIBTORRENT = Path(__file__).with_name("libtorrent_peer.py")


def program(name, package):
    """Where it is; the test is skipped where it is not."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (apt-get install {package})")
    return path


class Foreign:
    """One process of another's program."""

    def __init__(self, folder, command, **options):
        self.port = 0
        self.log = folder / f"{Path(command[0]).name}-{free_port()}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                **options,
            )

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()


class Swarms(Roles):
    """Our roles and theirs."""

    def foreign(self, command, **options):
        process = Foreign(self.folder, command, **options)
        self._foreign.append(process)
        return process

    def __init__(self, folder):
        super().__init__(folder)
        self._foreign = []

    def close(self):
        for process in self._foreign:
            process.close()
        super().close()

    # -- trackers

    def a_tracker(self, kind, content):
        """Its URL: `ours-http`, `ours-udp`, `opentracker-http`, `opentracker-udp`.

        Debian's opentracker takes only swarms that it has a list of.
        """
        name, scheme = kind.split("-")
        if name == "ours":
            return self.tracker().ready[scheme]
        path, port = program("opentracker", "opentracker"), free_port()
        _, lines, _ = self.run("create", content, "--out", self.folder / "to-be-listed.torrent")
        allowed = self.folder / "allowed"
        allowed.write_text(lines[-1]["info_hash"] + "\n")
        for parent in (allowed, *allowed.parents):
            if parent.stat().st_uid == os.getuid():
                parent.chmod(parent.stat().st_mode | 0o555)  # it becomes nobody before it reads
        self.foreign([path, "-i", HOST, "-p", port, "-P", port, "-w", allowed])
        until(lambda: _listens(port), "opentracker")
        return f"{scheme}://{HOST}:{port}/announce"

    # -- clients: each takes a .torrent and a folder; with `peers`, whom to call

    def libtorrent(self, verb, torrent, folder, peers=(), **environment):
        if importlib.util.find_spec("libtorrent") is None:
            pytest.skip("libtorrent is not installed (pip install libtorrent)")
        port = free_port()
        found = self.foreign(
            [sys.executable, LIBTORRENT, verb, torrent, folder, port, *peers],
            env=os.environ | environment,
        )
        found.port = port
        until(lambda: found.log.read_text().startswith("ready"), "libtorrent")
        return found

    def aria2(self, verb, torrent, folder, peers=()):
        port = free_port()
        flags = {
            "dir": folder,
            "listen-port": port,
            # Its UDP trackers go over the DHT's socket: without the one there is not the other. It
            # is told of no other node, so the DHT itself stays empty.
            "enable-dht": "true",
            "dht-listen-port": port,
            "dht-file-path": self.folder / f"dht-{port}.dat",
            "enable-dht6": "false",
            "bt-enable-lpd": "false",
            "disable-ipv6": "true",
            "seed-time": "1000",
            "seed-ratio": "0.0",
            "check-integrity": "true" if verb == "seed" else "false",
            "file-allocation": "none",
            "no-conf": "true",
            "bt-tracker-interval": "2",
            "console-log-level": "notice",
            "auto-save-interval": "0",
        }
        path = program("aria2c", "aria2")
        found = self.foreign([path, *(f"--{k}={v}" for k, v in flags.items()), torrent])
        found.port = port
        until(lambda: _listens(port), "aria2")
        return found

    def transmission(self, verb, torrent, folder, peers=()):
        path = program("transmission-daemon", "transmission-daemon")
        port, rpc = free_port(), free_port()
        config = self.folder / f"transmission-{port}"
        (config / "watch").mkdir(parents=True)
        settings = {
            "bind-address-ipv4": HOST,
            "bind-address-ipv6": "::1",
            "dht-enabled": False,
            "download-dir": str(folder),
            "encryption": 0,
            "lpd-enabled": False,
            "pex-enabled": True,
            "peer-port": port,
            "peer-port-random-on-start": False,
            "port-forwarding-enabled": False,
            "rpc-bind-address": HOST,
            "rpc-port": rpc,
            "start-added-torrents": True,
            "utp-enabled": False,
            "watch-dir": str(config / "watch"),
            "watch-dir-enabled": True,
        }
        (config / "settings.json").write_text(json.dumps(settings))
        shutil.copy(torrent, config / "watch" / "it.torrent")
        found = self.foreign([path, "-f", "-g", config, "--log-debug"])
        found.port = port
        until(lambda: _listens(port), "transmission")
        return found


CLIENTS = ("libtorrent", "aria2", "transmission")


def _listens(port):
    import socket

    try:
        socket.create_connection((HOST, port), 1).close()
    except OSError:
        return False
    return True


def arrives(source, target):
    """Wait until `target` holds what `source` does, byte for byte.

    But for empty files, which belong to no piece: Transmission makes none.
    """
    wanted = _full(tree(source))

    def same():
        try:
            return target.is_dir() and _full(tree(target)) == wanted
        except OSError:
            return False  # a file was renamed meanwhile

    until(same, f"{target} with what is in {source}", PATIENCE_S)


def _full(files):
    return {name: data for name, data in files.items() if data}
