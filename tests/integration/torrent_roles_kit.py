"""BitTorrent's roles as processes, for tests: started, read line by line, and all ended."""

from __future__ import annotations

import json
import queue
import random
import signal
import socket
import subprocess
import sys
import threading
import time

HOST = "127.0.0.1"

# How long real processes may take, on however busy a machine.
PATIENCE_S = 90


def free_port():
    """A TCP port that is free, and UDP's of the same number."""
    while True:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        ):
            tcp.bind((HOST, 0))
            port = tcp.getsockname()[1]
            try:
                udp.bind((HOST, port))
            except OSError:
                continue
            return port


def until(true, what, patience_s=PATIENCE_S):
    deadline = time.monotonic() + patience_s
    while not (found := true()):
        assert time.monotonic() < deadline, f"{what} did not come about"
        time.sleep(0.02)
    return found


def make_content(folder, name="album", size=1 << 20, seed=1):
    """A folder of files whose borders lie nowhere near those of pieces."""
    rng = random.Random(seed)
    root = folder / name
    (root / "deep" / "er").mkdir(parents=True)
    for path, length in {
        "a.bin": size,
        "deep/one-byte": 1,
        "deep/empty": 0,
        "deep/er/b.bin": size // 3 + 7,
        "z.txt": 16_385,
    }.items():
        (root / path).write_bytes(rng.randbytes(length))
    return root


def tree(root):
    """Every file below `root` with its bytes, but for what clients keep beside."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.suffix != ".aria2"
    }


class Role:
    """One process of `python -m dht.torrent`."""

    def __init__(self, home, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dht.torrent", "--home", str(home), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said = []
        self.errors = ""
        self._lines = queue.Queue()
        self._threads = [threading.Thread(target=self._read), threading.Thread(target=self._err)]
        for thread in self._threads:
            thread.start()

    def _read(self):
        for line in self.process.stdout:
            self._lines.put(json.loads(line))
        self._lines.put(None)

    def _err(self):
        self.errors = self.process.stderr.read()

    def wait_for(self, event, true=lambda says: True):
        """The next line of that event of which `true` is true."""
        while True:
            says = self._lines.get(timeout=PATIENCE_S)
            if says is None:
                self._threads[1].join()
                raise AssertionError(f"it ended before {event!r}: {self.errors}")
            self.said.append(says)
            if says["event"] == event and true(says):
                return says

    def status(self):
        """Its exit status, once it has ended."""
        status = self.process.wait(PATIENCE_S)
        for thread in self._threads:
            thread.join()
        return status

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        """kill -9."""
        self.process.kill()
        return self.status()

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.status()
        self.process.stdout.close()
        self.process.stderr.close()


class Roles:
    """All that a test starts."""

    def __init__(self, folder):
        self.folder = folder
        self.home = folder / "home"
        self._started = []

    def start(self, *arguments):
        role = Role(self.home, *arguments)
        self._started.append(role)
        return role

    def run(self, *arguments):
        """(exit status, lines, stderr) of what ends by itself."""
        role = self.start(*arguments)
        status = role.status()
        lines = []
        while (says := role._lines.get()) is not None:
            lines.append(says)
        return status, lines, role.errors

    def tracker(self, **options):
        role = self.start("tracker", "--port", 0, *_flags(options))
        role.ready = role.wait_for("ready")
        return role

    def torrent(self, content, *trackers, **options):
        """A .torrent of `content`."""
        out = self.folder / f"{content.name}.torrent"
        flags = [flag for url in trackers for flag in ("--tracker", url)]
        status, _, errors = self.run("create", content, "--out", out, *flags, *_flags(options))
        assert status == 0, errors
        return out

    def seed(self, torrent, content, **options):
        role = self.start("seed", torrent, "--from", content.parent, *_flags(options))
        role.ready = role.wait_for("ready")
        role.port = int(role.ready["address"].rpartition(":")[2])
        return role

    def get(self, torrent, to, **options):
        role = self.start("get", torrent, "--to", to, *_flags(options))
        role.ready = role.wait_for("ready")
        role.port = int(role.ready["address"].rpartition(":")[2])
        return role

    def close(self):
        for role in self._started:
            role.close()


def _flags(options):
    flags = []
    for name, value in options.items():
        flags.append("--" + name.replace("_", "-"))
        if value is not True:
            flags.append(value)
    return flags


def end(role, number=signal.SIGTERM):
    """Its exit status after a polite signal."""
    role.signal(number)
    return role.status()
