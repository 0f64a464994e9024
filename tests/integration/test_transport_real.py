"""The transport on real UDP sockets, between two processes and within one."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from netstack.transport.config import TransportConfig
from netstack.transport.errors import (
    ConnectionClosed,
    ConnectTimeout,
    NobodyThere,
    PeerRestarted,
    TransportError,
)

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


# Strangers at many addresses. For each line that comes in, all of them knock, and again with the
# token that they get; when the server is silent they say so. In the end they count the bytes.
FLOOD = """
import os, select, socket, sys
from netstack.transport import packet

def knock(source_id, token):
    # A key, and an empty payload: the server can tell it from none only when it goes on.
    message = os.urandom(32) + b"\\x91\\xc4\\x00"
    return packet.initial(packet.INITIAL_XX, source_id, token, message, 1200)

def say(stranger, data):
    try:
        return stranger.sendto(data, server)
    except BlockingIOError:
        return 0  # the server has not read yet what this one said before

server = ("127.0.0.1", int(sys.argv[1]))
sockets = []
for i in range(200):
    stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    stranger.bind((f"127.66.0.{i + 1}", 0))
    stranger.setblocking(False)
    sockets.append(stranger)
sent, received, knocks = 0, 0, 0
for number, _ in enumerate(sys.stdin):
    for i, stranger in enumerate(sockets):
        length = say(stranger, knock(number * 1000 + i, b""))
        knocks += length > 0
        sent += length
    while heard := select.select(sockets, (), (), 0.05)[0]:
        for stranger in heard:
            answer = stranger.recv(2000)
            received += len(answer)
            if answer[0] == packet.RETRY:
                source_id = packet.destination_id(answer)
                length = say(stranger, knock(source_id, answer[9:]))
                knocks += length > 0
                sent += length
    print("silence", flush=True)
print(knocks, sent, received)
"""

CONNECTIONS = 1000

# Of 200 strangers each.
WAVES = 30

# What a server may grow by for a thousand connections, and for a flood that leaves nothing.
GROWN_BYTES_MAX = 48 << 20
FLOODED_BYTES_MAX = 16 << 20


class Server:
    """The echo server in a process of its own."""

    def __init__(self, home):
        self.home = home
        self.process = None

    def start(self, port=0):
        command = [sys.executable, "-c", ECHO, str(self.home), str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        return int(self.process.stdout.readline())

    def resident_bytes(self):
        """What it holds of the machine's memory."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def kill(self):
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process = None


@pytest.fixture
def server(home):
    server = Server(home)
    yield server
    server.kill()


@pytest.fixture
async def caller(start_host):
    return await start_host("caller")


def answer(peer):
    """An echo server's part, in this process."""

    def opened(stream):
        stream.receiver = lambda data, fin: stream.push(data, fin=fin)

    peer.on_stream = opened


async def until(true):
    """Let the sockets work until `true()`, however busy the machine is."""
    for _ in range(30_000):
        if true():
            return
        await asyncio.sleep(0.001)
    pytest.fail("it did not come about")


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


async def test_a_peer_that_is_silent_or_gone_harms_no_other_connection(server, caller):
    peer = await caller.connect(("127.0.0.1", server.start()), service="echo")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        address = taken.getsockname()
        dial = asyncio.create_task(caller.connect(address, service="echo", timeout_s=0.5))
        for i in range(20):
            assert await ask(peer, b"%d" % i) == b"%d" % i
        with pytest.raises(ConnectTimeout):
            await dial
    with pytest.raises(NobodyThere):
        await caller.connect(address, service="echo")
    assert await ask(peer, b"still here") == b"still here"


async def test_a_process_that_was_killed_is_missed_as_soon_as_it_is_asked(server, caller):
    peer = await caller.connect(("127.0.0.1", server.start()), service="echo")
    assert await ask(peer, b"x") == b"x"
    server.kill()
    with pytest.raises(NobodyThere):
        await asyncio.wait_for(ask(peer, b"anybody?"), caller._config.idle_timeout_s / 3)


async def test_both_ends_in_one_process(start_host):
    server, caller = await start_host("server", on_peer=answer), await start_host("caller")
    peer = await caller.connect(server.address, service="echo", expect="server")
    data = os.urandom(3_000_000)
    assert await ask(peer, data) == data
    ends = [end.connection for end in (peer, *server._peers.values())]
    # What crosses the CLOSE would be answered by a reset, of which the server knows nothing more.
    await until(lambda: not any(end.acks.owed or end.recovery.in_flight for end in ends))
    await peer.close(7, "enough")
    await until(lambda: not server._peers)
    assert not caller._peers
    assert not server.counters - Counter(retries=1, knocks=1)


async def test_a_writer_waits_for_a_reader_that_does_not_read(start_host):
    config = TransportConfig(stream_window=200_000, stream_buffer=400_000)
    streams = []
    server = await start_host(
        "server", config=config, on_peer=lambda peer: setattr(peer, "on_stream", streams.append)
    )
    caller = await start_host("caller", config=config)
    peer = await caller.connect(server.address, service="echo")
    stream, data, held = peer.open_stream(), os.urandom(3_000_000), []
    writing = asyncio.create_task(stream.write(data, fin=True))

    def arrived():
        held.append(stream.buffered)
        return sum(map(len, streams[0]._arrived)) if streams else 0

    await until(lambda: arrived() == config.stream_window)  # the reader's credit is used up
    assert not writing.done()
    got = bytearray()
    while part := await streams[0].read():
        got += part
        held.append(stream.buffered)
    await writing
    assert got == data
    assert max(held) <= config.stream_buffer


async def test_what_does_not_belong_is_counted_and_dropped(start_host):
    seen = []
    server = await start_host("server", on_peer=lambda peer: (seen.append(peer), answer(peer)))
    caller = await start_host("caller")
    peer = await caller.connect(server.address, service="echo")
    assert await ask(peer, b"x") == b"x"
    await until(lambda: not peer.connection.recovery.in_flight)
    before = sum(server.counters.values())
    peer.connection.write(peer.open_stream().id, b"never sent by its owner" * 10)
    (true,) = peer.connection.datagrams_to_send(caller._now())
    (theirs,) = seen

    async def send(datagrams, through):
        for datagram in datagrams:
            counted = sum(server.counters.values())
            through(datagram)
            await until(lambda counted=counted: sum(server.counters.values()) == counted + 1)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        copied = [true[:40], true + bytes(1000), true]
        await send(copied, lambda data: stranger.sendto(data, server.address))
        # The last is genuine: it is read, and its sender is asked to show that it is the peer.
        assert (server.counters["tampered"], server.counters["challenges"]) == (2, 1)
        assert theirs.address == caller.address
        await until(lambda: not theirs.connection.recovery.in_flight)
        received = theirs.connection.received_packets
        junk = [b"", b"\0", bytes(8), bytes([9]) * 100, bytes([1]) + bytes(100), bytes(65_507)]
        await send(junk, lambda data: stranger.sendto(data, server.address))
    changed = [true[:at] for at in (20, 40, len(true) - 1)]
    changed += [true[:at] + bytes([true[at] ^ 1]) + true[at + 1 :] for at in (0, 12, 20, 100)]
    await send(
        [*changed, true + b"\0"], lambda data: caller._endpoint.send((data,), server.address)
    )
    assert theirs.connection.received_packets == received
    assert sum(server.counters.values()) == before + 3 + 6 + 8
    assert await ask(peer, b"unharmed") == b"unharmed"


async def test_a_host_that_closed_leaves_its_port_to_the_next(start_host):
    first = await start_host("server", on_peer=answer)
    caller = await start_host("caller")
    peer = await caller.connect(first.address, service="echo")
    assert await ask(peer, b"x") == b"x"
    ended = []
    peer.on_close.append(ended.append)
    address = first.address
    await first.close()
    await until(lambda: ended)
    assert type(ended[0]) is ConnectionClosed
    await start_host("server", address[1], on_peer=answer)
    assert await ask(await caller.connect(address, service="echo"), b"y") == b"y"


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
    peer = await caller.connect(("127.0.0.1", server.start()), service="echo")
    with pytest.raises(TransportError, match="fits no packet"):
        peer.send_datagram(bytes(70_000))


async def dial_until(caller, port, peers, count):
    """So many connections; who finds all places for handshakes taken comes again."""
    while len(peers) < count:
        some = min(50, count - len(peers))
        dials = (caller.connect(("127.0.0.1", port), service="echo") for _ in range(some))
        for done in await asyncio.gather(*dials, return_exceptions=True):
            if isinstance(done, ConnectTimeout):
                continue
            if isinstance(done, BaseException):
                raise done
            peers.append(done)


@pytest.mark.slow
async def test_a_thousand_connections_on_one_socket(server, caller):
    port = server.start()
    peers = []
    await dial_until(caller, port, peers, 1)
    before = server.resident_bytes()
    await asyncio.wait_for(dial_until(caller, port, peers, CONNECTIONS), 90)
    questions = [b"%d" % i * 100 for i in range(CONNECTIONS)]
    asked = (ask(peer, q) for peer, q in zip(peers, questions, strict=True))
    assert await asyncio.wait_for(asyncio.gather(*asked), 60) == questions
    await asyncio.sleep(6)  # each has sent its sign of life
    assert not any(peer.closed for peer in peers)
    assert await ask(peers[0], b"the first") == b"the first"
    assert server.resident_bytes() - before < GROWN_BYTES_MAX


@pytest.mark.slow
async def test_a_flood_of_handshakes_leaves_those_who_talk_served(server, caller):
    port = server.start()
    peers = []
    await dial_until(caller, port, peers, 20)
    for peer in peers:
        assert await ask(peer, b"before") == b"before"
    before = server.resident_bytes()
    command = [sys.executable, "-c", FLOOD, str(port)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    flood = await asyncio.create_subprocess_exec(*command, **pipes)
    try:
        for wave in range(WAVES):
            flood.stdin.write(b"now\n")
            # It comes while they talk, in front of them and behind them, and each is answered.
            for peer in (peers[wave % len(peers)], peers[-1 - wave % len(peers)]):
                assert await ask(peer, b"during") == b"during"
            assert await flood.stdout.readline() == b"silence\n"
        flood.stdin.close()
        knocks, sent, received = map(int, (await flood.communicate())[0].split())
    finally:
        if flood.returncode is None:
            flood.kill()
            await flood.wait()
    assert knocks > 10 * TransportConfig().max_half_open
    assert received < sent / 2
    assert not any(peer.closed for peer in peers)
    assert server.resident_bytes() - before < FLOODED_BYTES_MAX
    await asyncio.sleep(TransportConfig().handshake_timeout_s)  # the places are free again
    await asyncio.wait_for(dial_until(caller, port, peers, 21), 60)
    assert await ask(peers[-1], b"after") == b"after"
