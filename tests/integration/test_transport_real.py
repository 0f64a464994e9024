"""The transport on real UDP sockets, between two processes, one of which is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from netstack.runtime.dgram_endpoint import DgramEndpoint
from netstack.runtime.raw_endpoint import RawEndpoint
from netstack.runtime.runtime import RealRuntime
from netstack.transport.errors import PeerRestarted
from netstack.transport.host import Host
from security import keystore
from security.identity import Authority

ECHO = """
import asyncio, sys
from pathlib import Path
from netstack.runtime.runtime import RealRuntime
from netstack.transport.host import Host
from security import keystore

async def main(home, port):
    def seen(peer):
        def opened(stream):
            stream.receiver = lambda data, fin: stream.push(data, fin=fin)
        peer.on_stream = opened
    identity = keystore.load_identity(home, "server")
    host = Host(RealRuntime("server", home / "server"), identity, service="echo", on_peer=seen)
    await host.start(("127.0.0.1", port))
    print(host.address[1], flush=True)
    await asyncio.Event().wait()

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


class Server:
    """The echo server in a process of its own."""

    def __init__(self, home):
        self.home = home
        self.process = None

    def start(self, port=0):
        command = [sys.executable, "-c", ECHO, str(self.home), str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        return int(self.process.stdout.readline())

    def kill(self):
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process = None


@pytest.fixture
def home(tmp_path):
    authority = Authority.create("test", now=time.time(), entropy=os.urandom)
    for name in ("server", "caller"):
        identity = authority.issue(name, "echo", now=time.time(), entropy=os.urandom)
        keystore.save_identity(tmp_path, identity)
    return tmp_path


@pytest.fixture
def server(home):
    server = Server(home)
    yield server
    server.kill()


@pytest.fixture(params=[RawEndpoint, DgramEndpoint])
async def caller(home, request, monkeypatch):
    """A host on either kind of endpoint."""

    async def bind_raw(self, address):
        return await request.param.bind(address)

    monkeypatch.setattr(RealRuntime, "bind_raw", bind_raw)
    runtime = RealRuntime("caller", home / "caller")
    host = Host(runtime, keystore.load_identity(home, "caller"), service="echo")
    await host.start(("127.0.0.1", 0))
    yield host
    await host.close()
    runtime.close()


async def ask(peer, data):
    stream = peer.open_stream()
    writing = asyncio.create_task(stream.write(data, fin=True))
    parts = []
    while part := await stream.read():
        parts.append(part)
    await writing
    return b"".join(parts)


async def test_megabytes_there_and_back(server, caller):
    port = server.start()
    peer = await caller.connect(("127.0.0.1", port), service="echo", expect="server")
    data = os.urandom(5_000_000)
    assert await ask(peer, data) == data
    assert peer.stats()["mtu"] > 1200  # loopback carries more, and that was found out


async def test_many_streams_at_once(server, caller):
    peer = await caller.connect(("127.0.0.1", server.start()), service="echo")
    messages = [os.urandom(20_000) for _ in range(100)]
    assert await asyncio.gather(*(ask(peer, m) for m in messages)) == messages


async def test_a_server_killed_and_restarted_is_noticed_by_its_reset(server, caller):
    port = server.start()
    peer = await caller.connect(("127.0.0.1", port), service="echo")
    ended = asyncio.get_running_loop().create_future()
    peer.on_close.append(ended.set_result)
    assert await ask(peer, b"x") == b"x"
    server.kill()
    server.start(port)
    peer.open_stream().push(b"are you there?")
    # The idle time-out is 15 s: only a reset can tell within this.
    error = await asyncio.wait_for(ended, 8.0)
    assert type(error) is PeerRestarted
    again = await caller.connect(("127.0.0.1", port), service="echo")
    assert await ask(again, b"y") == b"y"


async def test_a_server_that_stands_still_is_waited_for(server, caller):
    peer = await caller.connect(("127.0.0.1", server.start()), service="echo")
    os.kill(server.process.pid, signal.SIGSTOP)
    asking = asyncio.create_task(ask(peer, b"x" * 100_000))
    done, _ = await asyncio.wait([asking], timeout=1.0)
    assert not done
    os.kill(server.process.pid, signal.SIGCONT)
    assert await asyncio.wait_for(asking, 20) == b"x" * 100_000


async def test_garbage_of_all_sizes_harms_nobody(server, caller):
    port = server.start()
    peer = await caller.connect(("127.0.0.1", port), service="echo")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for size in (0, 1, 2, 8, 9, 16, 17, 32, 33, 100, 1199, 1200, 1201, 9000, 65_000):
            for first in (0, 1, 2, 3, 4, 5, 6, 7, 8, 0x40, 0x41, 0xFF):
                stranger.sendto((bytes([first]) + os.urandom(size))[:size], ("127.0.0.1", port))
    assert await ask(peer, b"unharmed") == b"unharmed"
    assert server.process.poll() is None


async def test_a_datagram_larger_than_any_packet_is_refused_here(server, caller):
    from netstack.transport.errors import TransportError

    peer = await caller.connect(("127.0.0.1", server.start()), service="echo")
    with pytest.raises(TransportError, match="fits no packet"):
        peer.send_datagram(bytes(70_000))
