"""Tunnels to test: both ends in this process, and as processes with ordinary programs around."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest

from netstack.runtime.policy import LinkPolicy
from netstack.runtime.runtime import RealRuntime
from netstack.tunnel.entry import Entry
from netstack.tunnel.exit import Exit
from security.identity import Authority

HOST = "127.0.0.1"

# How long real processes may take, on however busy a machine.
PATIENCE_S = 60


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def program(name):
    """Where it is; the test is skipped where it is not."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (apt-get install {name})")
    return path


class Tunnel:
    """Both ends in this process, to the TCP server that `serve` is."""

    def __init__(self, folder, monkeypatch):
        self.said = []
        self.monkeypatch = monkeypatch
        self._folder = folder
        self._authority = Authority.create("test", now=time.time(), entropy=os.urandom)
        self._runtimes = {}
        self._servers = []
        self._serving = []
        self._writers = []
        self.exit = self.entry = None

    async def target(self, serve):
        """The port of a TCP server that treats each connection so."""

        async def served(reader, writer):
            self._writers.append(writer)
            self._serving.append(asyncio.current_task())
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await serve(reader, writer)
            writer.close()

        server = await asyncio.start_server(served, HOST, 0)
        self._servers.append(server)
        return server.sockets[0].getsockname()[1]

    def _who(self, name):
        identity = self._authority.issue(name, "tunnel", now=time.time(), entropy=os.urandom)
        runtime = self._runtimes[name] = RealRuntime(name, self._folder / name)
        runtime.on_fatal = lambda error: pytest.fail(f"{name}: {error!r}")
        return runtime, identity

    async def start(self, target, via=None):
        self.exit = Exit(*self._who("exit"), (HOST, target), self.said.append)
        await self.exit.start((HOST, 0))
        self.entry = Entry(*self._who("entry"), via or self.exit.address, self.said.append)
        await self.entry.start(0)

    def impair(self, **link):
        for runtime in self._runtimes.values():
            for end in (self.exit, self.entry):
                runtime.faults.links.set(end.address, LinkPolicy(**link))

    async def connect(self):
        reader, writer = await asyncio.open_connection(HOST, self.entry.port)
        self._writers.append(writer)
        return reader, writer

    async def close(self):
        for writer in self._writers:
            writer.transport.abort()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        for end in (self.entry, self.exit):
            if end is not None:
                await end.close()
        for runtime in self._runtimes.values():
            await runtime.cancel_tasks()
            runtime.close()
        for server in self._servers:
            server.close()


async def until(true, what):
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, f"{what} did not come about"
        await asyncio.sleep(0.005)


class Processes:
    """What was started; all of it is killed in the end."""

    def __init__(self, folder):
        self.folder = folder
        self._started = []

    def start(self, *command, **options):
        process = subprocess.Popen(command, **options)
        self._started.append(process)
        return process

    def tunnel(self, *arguments):
        """An end (or both) of a tunnel, once it serves; `.port` is where it listens."""
        process = self.start(
            *(sys.executable, "-m", "cluster", "net", "tunnel", *map(str, arguments)),
            env=os.environ | {"RING_HOME": str(self.folder / "home"), "NO_COLOR": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        first = process.stderr.readline()
        assert first.startswith("✓"), first + process.stderr.read()
        process.stderr.readline()  # what to type next
        process.port = int(first.partition(HOST + ":")[2].split()[0].rstrip(","))
        return process

    def web(self, folder):
        """A web server of the standard library that serves `folder`; its port."""
        port = free_port()
        command = (sys.executable, "-m", "http.server", str(port), "--bind", HOST)
        self.start(*command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for_tcp(port)
        return port

    def iperf(self):
        """An iperf3 server; its port."""
        port = free_port()
        command = (program("iperf3"), "-s", "-B", HOST, "-p", str(port), "--forceflush")
        server = self.start(*command, stdout=subprocess.PIPE, text=True)
        while "listening" not in server.stdout.readline():
            assert server.poll() is None, "iperf3 has ended"
        return port

    def end(self):
        for process in self._started:
            process.kill()
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()


def wait_for_tcp(port):
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            socket.create_connection((HOST, port)).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, f"nothing listens on {port}"
            time.sleep(0.02)
        else:
            return
