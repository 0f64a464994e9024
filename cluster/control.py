"""How a command talks to the supervisor of a home, and how it gets one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cluster.errors import NotInTime, NotRunning, RingError, Unhealthy

# A Unix socket's path has 107 bytes at the most.
PATH_BYTES_MAX = 100
START_S = 10.0
# A request that is longer makes no sense.
REQUEST_BYTES_MAX = 16 << 20


def socket_path(home: Path) -> Path:
    """Where the supervisor listens: in the home, or under a short name where that is too long."""
    path = home / "run" / "supervisor.sock"
    if len(os.fsencode(path)) <= PATH_BYTES_MAX:
        return path
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"ring-{digest}.sock"


class Control:
    """A connection to the supervisor."""

    def __init__(self, home: Path, timeout_s: float = 30.0) -> None:
        self._home = home
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(str(socket_path(home)))
        except (FileNotFoundError, ConnectionRefusedError):
            self._socket.close()
            raise NotRunning(f"no cluster is running in {home}; start one with: ring up") from None
        self._file = self._socket.makefile("rwb")

    def __enter__(self) -> Control:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def ask(self, do: str, **fields: Any) -> dict[str, Any]:
        """One request; raises RingError with what the supervisor says is wrong."""
        try:
            self._file.write(json.dumps({"do": do, **fields}).encode() + b"\n")
            self._file.flush()
            line = self._file.readline()
        except TimeoutError:
            raise NotInTime("the supervisor did not answer in time") from None
        except OSError as error:
            raise NotRunning(f"the supervisor has gone: {error}") from None
        if not line:
            raise NotRunning("the supervisor has gone")
        answer: dict[str, Any] = json.loads(line)
        if not answer.pop("ok"):
            raise Unhealthy(answer["error"])
        return answer


def running(home: Path) -> bool:
    """Whether a supervisor answers for `home`."""
    with contextlib.suppress(RingError), Control(home):
        return True
    return False


def start_supervisor(home: Path, module: str = "cluster.supervisor") -> subprocess.Popen[bytes]:
    """Start one in the background and wait until it answers; NotInTime has its last words.

    Args:
        module: the zoo's supervisor, whose nodes have a bug, stands elsewhere.
    """
    (home / "run").mkdir(parents=True, exist_ok=True)
    log = home / "run" / "supervisor.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, "--home", str(home)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if running(home):
            return process
        if process.poll() is not None:
            break
        time.sleep(0.02)
    words = log.read_text(errors="replace").splitlines()[-5:]
    raise NotInTime("the supervisor did not start: " + " / ".join(words))
