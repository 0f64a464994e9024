"""Three etcd members on this machine, for `ring bench raft --peers`.

Load comes from h2load (a C program that costs etcd's side of the machine little), which speaks
gRPC over cleartext HTTP/2 with a prepared message: the same put and the same range, N
connections, each sending its next request when the last is answered. So etcd is measured with a
better client than ours is; and then with one like ours, in Python (etcd_client.py).
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import math
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cluster.bench.harness import Load
from cluster.etcd import member_command

CLIENT_PORT, PEER_PORT = 23790, 23890
MEMBERS = 3
START_S = 15.0

# What a call of it may end with: then there are no figures of etcd's.
FAILURES = (RuntimeError, OSError, ValueError, subprocess.SubprocessError)


def missing() -> str:
    """What is not installed, with the command that installs it; empty if all is."""
    absent = [
        p for p, n in (("etcd-server", "etcd"), ("nghttp2-client", "h2load")) if not shutil.which(n)
    ]
    return f"apt-get install {' '.join(absent)}" if absent else ""


class EtcdCluster:
    """Started on entry, killed on exit; nothing is left."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ring-etcd-")
        self._members: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> EtcdCluster:
        for i in range(MEMBERS):
            self.start(i)
        deadline = time.monotonic() + START_S
        while self.leader() is None:
            if time.monotonic() > deadline:
                self.__exit__()
                raise RuntimeError("etcd did not elect a leader")
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._members.values():
            process.kill()
            process.wait()
        self._folder.cleanup()

    def start(self, i: int) -> None:
        """Start member `i`."""
        peers = {f"m{j}": f"http://127.0.0.1:{PEER_PORT + j}" for j in range(MEMBERS)}
        client = f"http://127.0.0.1:{CLIENT_PORT + i}"
        self._members[i] = subprocess.Popen(
            member_command(f"m{i}", Path(self._folder.name), client, peers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def kill_leader(self) -> int:
        """kill -9; returns which member it was."""
        leader = self._leader()
        self._members[leader].send_signal(signal.SIGKILL)
        self._members[leader].wait()
        return leader

    def leader(self) -> int | None:
        """The member that leads."""
        for i in range(MEMBERS):
            answer = self._post(i, "/v3/maintenance/status", {})
            if answer and answer.get("leader") == answer["header"]["member_id"]:
                return i
        return None

    def _leader(self) -> int:
        leader = self.leader()
        if leader is None:
            raise RuntimeError("nobody leads")
        return leader

    def put(self, i: int, key: str, value: str, timeout_s: float) -> bool:
        """One put through member `i`'s JSON gateway; whether it was acknowledged."""
        body = {"key": _b64(key), "value": _b64(value)}
        return self._post(i, "/v3/kv/put", body, timeout_s) is not None

    def _post(
        self, i: int, path: str, body: dict[str, Any], timeout_s: float = 1.0
    ) -> dict[str, Any] | None:
        connection = http.client.HTTPConnection("127.0.0.1", CLIENT_PORT + i, timeout=timeout_s)
        failures = contextlib.suppress(OSError, ValueError, http.client.HTTPException)
        with failures, contextlib.closing(connection):
            connection.request("POST", path, json.dumps(body))
            response = connection.getresponse()
            answer: dict[str, Any] = json.loads(response.read())
            return answer if response.status == 200 and "header" in answer else None
        return None

    def load(self, method: str, message: bytes, clients: int, seconds: float) -> Load:
        """Closed-loop load on the leader; raises RuntimeError if requests fail."""
        folder = Path(self._folder.name)
        (folder / "message").write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
        log = folder / "latencies"
        log.unlink(missing_ok=True)
        leader = self._leader()
        seconds = math.ceil(seconds)  # h2load takes whole ones only
        subprocess.run(
            [
                "h2load",
                f"--clients={clients}",
                "--max-concurrent-streams=1",
                f"--duration={seconds}",
                "--warm-up-time=1",
                f"--data={folder / 'message'}",
                "--header=content-type: application/grpc",
                "--header=te: trailers",
                f"--log-file={log}",
                f"http://127.0.0.1:{CLIENT_PORT + leader}/etcdserverpb.KV/{method}",
            ],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        rows = [line.split("\t") for line in log.read_text().splitlines()]
        latencies = [int(row[2]) / 1e6 for row in rows if row[1] == "200"]
        if len(latencies) < len(rows) * 0.99 or not latencies:
            raise RuntimeError(f"etcd failed {len(rows) - len(latencies)} of {len(rows)} requests")
        return Load(len(latencies), seconds, latencies)

    def load_from_python(self, operation: str, clients: int, seconds: float) -> Load:
        """The same, by a Python program with grpcio (etcd_client.py)."""
        port = str(CLIENT_PORT + self._leader())
        command = [sys.executable, "-m", "cluster.bench.etcd_client"]
        answer = subprocess.run(
            [*command, port, operation, str(clients), str(seconds)],
            stdout=subprocess.PIPE,
            check=True,
        )
        return Load(*json.loads(answer.stdout))


def put_message(key: bytes, value: bytes) -> bytes:
    """etcdserverpb.PutRequest: key = 1, value = 2."""
    return _field(1, key) + _field(2, value)


def range_message(key: bytes) -> bytes:
    """etcdserverpb.RangeRequest: key = 1; linearizable by default."""
    return _field(1, key)


def _field(number: int, data: bytes) -> bytes:
    length, varint = len(data), b""
    while length > 127:
        varint += bytes([length & 127 | 128])
        length >>= 7
    return bytes([number << 3 | 2]) + varint + bytes([length]) + data


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
