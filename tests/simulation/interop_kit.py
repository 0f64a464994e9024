"""The QUIC interop runner's line in virtual time, what goes wrong on it, and files to fetch.

    client ──> queue of 25 packets ──> 10 Mbit/s ──> 15 ms ──> what goes wrong ──> server
    client <── what goes wrong <── 15 ms <── 10 Mbit/s <── queue of 25 packets <── server

The faults are those of the runner's network simulator, at the receiving end as there. `Wire`
keeps what its packet capture would: verdicts are taken from the wire, not from what an end says.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import NamedTuple

from host_kit import SERVER, Net

from netstack.transport import packet

BANDWIDTH_BITS_S = 10_000_000
DELAY_S = 0.015
QUEUE_PACKETS = 25

# Ethernet's 1,500 bytes less the IPv4 and UDP headers; larger datagrams do not pass.
PAYLOAD_MAX = 1472
HEADERS_BYTES = 28

KB, MB = 1 << 10, 1 << 20


class Seen(NamedTuple):
    """A datagram as it was put on the wire."""

    at: float
    to_server: bool
    client: tuple[str, int]
    kind: int  # its first byte
    connection: int  # the id that it begins with
    size: int
    mark: int
    fate: str  # "arrived", "queue full", "too large", "lost" or "damaged"
    head: bytes  # of a handshake's datagrams all of it, of DATA the header


class Wire:
    """Everything that was put on the line, in order."""

    def __init__(self):
        self.seen = []

    def of(self, kind, *, to_server=None, fate=None):
        """Those of one kind (DATA: in any phase), of one direction, of one fate."""
        return [
            s
            for s in self.seen
            if (s.kind & packet.DATA if kind == packet.DATA else s.kind == kind)
            and to_server in (None, s.to_server)
            and fate in (None, s.fate)
        ]

    def handshakes(self):
        """How many there were: connection ids for which a server has answered, and was answered."""
        initials = (packet.INITIAL_XX, packet.INITIAL_IK)
        asked = {(s.client, s.connection) for k in initials for s in self.of(k)}
        answered = {(s.client, s.connection) for s in self.of(packet.RESPONSE)}
        return len(asked & answered)

    def count(self, fate):
        """How many had this fate."""
        return sum(s.fate == fate for s in self.seen)

    def amplification(self):
        """Per client address, what the server sent over what had reached it, at the worst moment
        before that client has shown its token."""
        got, sent, valid, worst = {}, {}, set(), 0.0
        for s in self.seen:
            if s.client in valid:
                continue
            if s.to_server:
                got[s.client] = got.get(s.client, 0) + s.size * (s.fate in ("arrived", "damaged"))
                initial = s.kind in (packet.INITIAL_XX, packet.INITIAL_IK)
                if initial and s.fate == "arrived" and packet.parse_initial(s.head)[1]:
                    valid.add(s.client)
            else:
                sent[s.client] = sent.get(s.client, 0) + s.size
                worst = max(worst, sent[s.client] / max(1, got.get(s.client, 0)))
        return worst


# -- what goes wrong: (datagram, when it would arrive) -> the datagram, another, or None


def nothing(data, at):
    return data


class DropRate:
    """`rate` of the packets, at most `burst` in a row: the simulator's own comparison lets one more
    go than its option says, and so does this."""

    def __init__(self, rate, burst, rng):
        self.rate, self.burst, self.rng, self.row = rate, burst, rng, 0

    def strikes(self):
        struck = self.row <= self.burst and self.rng.random() < self.rate
        self.row = self.row + 1 if struck else 0
        return struck

    def __call__(self, data, at):
        return None if self.strikes() else data


class CorruptRate(DropRate):
    """As often, one of the first 51 bytes becomes another: most often in a header."""

    def __call__(self, data, at):
        if not self.strikes():
            return data
        place = self.rng.randint(0, min(50, len(data) - 1))
        other = (data[place] + self.rng.randint(1, 255)) % 256
        return data[:place] + bytes([other]) + data[place + 1 :]


def faults(make, *options, seed=1):
    """One of these for each direction, with dice of their own."""
    return [make(*options, random.Random(f"{seed}/{way}")) for way in ("up", "down")]


class Droplist:
    """Exactly these, counted from 1."""

    def __init__(self, *numbers):
        self.numbers, self.count = numbers, 0

    def __call__(self, data, at):
        self.count += 1
        return None if self.count in self.numbers else data


class Blackhole:
    """All is well for `on_s`, then everything is lost for `off_s`; once."""

    def __init__(self, on_s, off_s):
        self.begins, self.ends = on_s, on_s + off_s

    def __call__(self, data, at):
        return None if self.begins <= at < self.ends else data


class Line:
    """One direction; stands where the simulated network has its LinkShaper."""

    def __init__(self, wire, to_server, fault=nothing, *, delay_s=DELAY_S, mark_packets=None):
        self.policy = None  # set by the network, and not looked at
        self.fault = fault
        self.highest_queue = 0
        self._wire, self._to_server = wire, to_server
        self._delay_s = delay_s
        self._mark_packets = mark_packets  # beyond so long a queue packets are marked (ECN)
        self._departures = deque()
        self._mark = 0
        self.client = None  # whose datagram is next, and is told by Site

    def mark(self, mark, now):
        """The two bits: CE instead of ECT if the queue is long. `shape` is called next."""
        self._leave(now)
        if mark and self._mark_packets is not None and len(self._departures) > self._mark_packets:
            mark = 3
        self._mark = mark
        return mark

    def shape(self, data, now):
        """See LinkShaper."""
        arrives, fate, arrived = self._carry(data, now)
        head = data[:17] if data[0] & packet.DATA else data
        self._wire.seen.append(
            Seen(
                now, self._to_server, self.client, data[0], packet.destination_id(data),
                len(data), self._mark, fate, head,
            )
        )  # fmt: skip
        return [] if arrived is None else [(arrives, arrived)]

    def _leave(self, now):
        while self._departures and self._departures[0] <= now:
            self._departures.popleft()

    def _carry(self, data, now):
        if len(data) > PAYLOAD_MAX:
            return now, "too large", None
        if len(self._departures) >= QUEUE_PACKETS + 1:  # and one that is being sent
            return now, "queue full", None
        last = self._departures[-1] if self._departures else now
        departs = last + (len(data) + HEADERS_BYTES) * 8 / BANDWIDTH_BITS_S
        self._departures.append(departs)
        self.highest_queue = max(self.highest_queue, len(self._departures))
        arrives = departs + self._delay_s
        arrived = self.fault(data, arrives)
        if arrived is None:
            return arrives, "lost", None
        return arrives, "arrived" if arrived == data else "damaged", arrived


# -- files


def contents(size):
    """The file of `size` bytes."""
    return random.Random(size).randbytes(size)


def serve_files(peer):
    """A stream that says a number and ends is answered with a file of so many bytes."""

    def opened(stream):
        asked = bytearray()

        def request(data, fin):
            asked.extend(data)
            if fin:
                stream.push(contents(int(asked)), fin=True)

        stream.receiver = request

    peer.on_stream = opened


async def fetch(peer, size):
    """The file of `size` bytes; raises if it is not the one that was asked for."""
    stream = peer.open_stream()
    stream.push(str(size).encode(), fin=True)
    got = bytearray()
    while part := await stream.read():
        got += part
    assert got == contents(size), f"{len(got)} of {size} bytes, or others"


class Site(Net):
    """A server of files, clients, and the runner's line between them.

    All clients share the line, as they would behind one router. `to_server`, `to_client`: what
    goes wrong there.
    """

    def __init__(self, to_server=nothing, to_client=nothing, *, delay_s=DELAY_S,
                 mark_packets=None, **config):  # fmt: skip
        config.setdefault("stream_buffer", 32 * MB)
        super().__init__(**config)
        self.wire = Wire()
        self.accepted = asyncio.Event()  # the server has its first connection
        options = {"delay_s": delay_s, "mark_packets": mark_packets}
        self.up = Line(self.wire, True, to_server, **options)
        self.down = Line(self.wire, False, to_client, **options)
        self._renamed = {}  # by the router: what a client's datagrams seem to come from
        network = self.world.network
        send, deliver = network.send, network._deliver

        def send_named(endpoint, data, destination, mark):
            self.up.client, self.down.client = endpoint.address, destination
            send(endpoint, data, destination, mark)

        def deliver_renamed(data, source, destination, mark):
            deliver(data, self._renamed.get(source, source), destination, mark)

        network.send, network._deliver = send_named, deliver_renamed

    async def server(self, name="server", address=SERVER):
        """The server of files."""

        def seen(peer):
            self.peers_seen.append(peer)
            self.accepted.set()
            serve_files(peer)

        return await self.host(name, address, seen)

    async def client(self, name="client", server="server"):
        """A host at the client's end of the line to `server`."""
        shapers = self.world.network._shapers
        shapers[name, server], shapers[server, name] = self.up, self.down
        return await self.host(name)

    async def dial(self):
        """(server, client, a connection that is open at both)."""
        server, client = await self.server(), await self.client()
        peer = await client.connect(SERVER, service="echo", timeout_s=60.0)
        await self.accepted.wait()
        return server, client, peer

    async def rebind(self, client, host="127.0.0.1"):
        """The router gives the client another address, and has forgotten the old one.

        What is under way to the server comes from the new one; what was sent to the old is lost.
        """
        old = client._endpoint
        old.close()
        await move(client, (host, 0))
        for address, name in list(self._renamed.items()):
            if name == old.address:
                self._renamed[address] = client.address
        self._renamed[old.address] = client.address


async def move(client, address):
    """The client's own doing: it sends from another socket from now on."""
    client._endpoint = await client._runtime.bind(address)
    client._endpoint.set_receiver(client._receive)


def run(scenario, *line, **options):
    """Play `scenario(site)` over a line with these faults; returns what it returns."""
    return Site(*line, **options).run(scenario)


def fifty_connections(line):
    """The runner's multiconnect: a file of 1 KB each, one after the other, in 300 s. The site."""

    async def scenario(site):
        server, client = await site.server(), await site.client()
        for _ in range(50):
            client._known.clear()  # each time as strangers
            peer = await client.connect(SERVER, service="echo", timeout_s=60.0)
            await fetch(peer, KB)
            await peer.close()
        assert site.world.now < 300
        await asyncio.sleep(61)
        assert server._half_open == len(server._peers) == len(client._peers) == 0
        assert site.wire.amplification() < 3
        return site

    return run(scenario, *line, handshake_timeout_s=60.0, idle_timeout_s=60.0)
