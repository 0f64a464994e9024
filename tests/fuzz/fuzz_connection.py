"""Fuzz target: one whole connection, and a peer that holds the right keys and means harm.

An input is a program for that peer and for the application beside the connection, steps of

    kind:1  argument:1  length:2  body

    SEAL   body as the frames of a packet, sealed; the argument says how often, how numbered, marked
    RAW    body as a datagram of anybody
    TIME   2^argument milliseconds pass
    WRITE  the application opens a stream and writes
    APP    it reads, stops reading, resets, stops, sends a datagram, closes
    ACK    the peer acknowledges everything, as an honest one does

What a stream carries at an offset is a function of the two (PATTERN), and is written into the
frames before they are sealed: so every byte delivered can be told from one that was never
written, however it was cut, repeated or overlapped. What the connection itself sends must be
frames that the parser takes, with the bytes that the application wrote.
"""

from __future__ import annotations

import random
from typing import Any, Final

from fuzz_parsers import NOW, frame_cuts, parsed, some_frame

from netstack.transport import events, packet
from netstack.transport import frames as f
from netstack.transport.config import TransportConfig
from netstack.transport.connection import CLOSED, CONTROL_WAITING_MAX, OPEN, Connection
from netstack.transport.errors import TransportError
from netstack.transport.handshake import Context, Initiator, Parameters, Responder
from netstack.transport.packet import Malformed
from netstack.transport.streams import PIECES_MAX
from security.channel import Session
from security.errors import SecurityError
from security.identity import Authority, Identity

SEAL, RAW, TIME, WRITE, APP, ACK = range(6)
STEP_HEAD: Final = 4
REPEATS: Final = (1, 1, 1, 1, 1, 2, 16, 64)
JUMPS: Final = (1, 2, 1000, 0)
DATAGRAMS_MAX: Final = 400  # an input that sends more has said what it has to say
TIMERS_MAX: Final = 100  # in a row, at one time

PERIOD: Final = 8191
PATTERN: Final = random.Random("pattern").randbytes(PERIOD) * 10

# Streams below are the peer's, whichever side it plays.
LOW_IDS: Final = 4

# Small windows: a bound that is missed is missed soon.
CONFIG: Final = TransportConfig(
    stream_window=4096, connection_window=16_384, stream_buffer=8192, max_streams=8
)
# What a peer may make us hold.
HELD_BYTES_MAX: Final = 2 * CONFIG.connection_window
HELD_PIECES_MAX: Final = PIECES_MAX * CONFIG.max_streams


def pattern(stream_id: int, offset: int, count: int) -> bytes:
    """The bytes of a stream from `offset` on."""
    at = (stream_id * 31 + offset) % PERIOD
    return PATTERN[at : at + count]


def entropy(seed: str) -> Any:
    return random.Random(seed).randbytes


def identities() -> tuple[Identity, Identity]:
    authority = Authority.create("fuzz", now=NOW, entropy=entropy("authority"))
    issue = authority.issue
    return (
        issue("client", "echo", now=NOW, entropy=entropy("client")),
        issue("server", "echo", now=NOW, entropy=entropy("server")),
    )


def context(identity: Identity, local_id: int) -> Context:
    return Context(
        identity=identity,
        service="echo",
        config=CONFIG,
        entropy=entropy(f"handshake {local_id}"),
        wall=NOW,
        local_id=local_id,
        parameters=Parameters.of(CONFIG, bytes([local_id]) * 16, local_id),
    )


def agreed() -> tuple[Initiator, Responder]:
    """Both sides of a real handshake that has come to its end."""
    client, server = identities()
    initiator = Initiator(context(client, 11), remote_static=None, token=b"", now=0.0)
    responder = Responder(context(server, 22), initiator.take()[0], 0.0)
    initiator.receive(responder.take()[0], 0.0)
    responder.receive(initiator.take()[0], 0.0)
    return initiator, responder


def keys(side: Initiator | Responder) -> tuple[bytes, bytes]:
    """Those it sends and receives with."""
    assert side.session is not None
    return side.session._send_key, side.session._receive_key


def step(kind: int, argument: int, body: bytes = b"") -> bytes:
    return bytes([kind, argument]) + len(body).to_bytes(2, "big") + body


def steps(data: bytes) -> list[tuple[int, int, bytes]]:
    """The program in an input; a length beyond its end means all that is left."""
    found = []
    for at in step_cuts(data)[:-1]:
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        begin = at + STEP_HEAD
        found.append((data[at] % 6, data[at + 1], data[begin : begin + length]))
    return found


def step_cuts(data: bytes) -> list[int]:
    cuts = [1 if data else 0]  # before the first step: whose side is played
    while cuts[-1] + STEP_HEAD <= len(data):
        length = int.from_bytes(data[cuts[-1] + 2 : cuts[-1] + 4], "big")
        cuts.append(min(len(data), cuts[-1] + STEP_HEAD + length))
    return cuts


def as_written(frames: bytes, theirs: int) -> bytes:
    """The same frames; each STREAM has the bytes that its stream has there.

    The lowest ids are made the peer's (`theirs` is their parity): one that names a stream which we
    never opened ends the connection, and nothing comes after.
    """
    out = bytearray(frames)
    head = f.STREAM_HEAD
    for at in frame_cuts(frames)[:-1]:
        if frames[at] in (f.STREAM, f.STREAM_FIN):
            kind, stream_id, offset, length = head.unpack_from(frames, at)
            if stream_id < LOW_IDS:
                stream_id = stream_id & ~1 | theirs
                head.pack_into(out, at, kind, stream_id, offset, length)
            out[at + head.size : at + head.size + length] = pattern(stream_id, offset, length)
    return bytes(out)


def some_data(rng: random.Random) -> bytes:
    """A piece of a stream near its beginning, so that pieces meet."""
    offset, length = (
        rng.choice((0, 0, 1, 40, 300)) + rng.randrange(3),
        rng.choice((0, 1, 2, 40, 300)),
    )
    kind = f.STREAM if rng.random() < 0.98 else f.STREAM_FIN
    return f.STREAM_HEAD.pack(kind, rng.randrange(LOW_IDS), offset, length) + bytes(length)


class Reader:
    """The application: what it was told must be what was written."""

    def __init__(self) -> None:
        self.read: dict[int, int] = {}  # bytes of each stream so far
        self.over: set[int] = set()
        self.closed = False
        self.unread: list[tuple[int, int]] = []

    def take(self, connection: Connection) -> None:
        for event in connection.take_events():
            assert not self.closed, f"{type(event).__name__} after Closed"
            kind = type(event)
            if kind is events.Closed:
                self.closed = True
            elif kind is events.StreamOpened:
                assert event.stream_id not in self.read, "a stream is opened twice"
                self.read[event.stream_id] = 0
            elif kind is events.StreamData:
                self._data(event.stream_id, event.data, event.fin)
            elif kind is events.StreamReset:
                assert event.stream_id not in self.over, "a reset after the end"
                self.over.add(event.stream_id)

    def _data(self, stream_id: int, data: bytes, fin: bool) -> None:
        assert stream_id not in self.over, "bytes after the end of a stream"
        begin = self.read.get(stream_id, 0)
        assert data == pattern(stream_id, begin, len(data)), "bytes that were never written"
        self.read[stream_id] = begin + len(data)
        self.unread.append((stream_id, len(data)))
        if fin:
            self.over.add(stream_id)


class Play:
    """One input, played to its end."""

    def __init__(self, connection: Connection, theirs: Session) -> None:
        self.connection = connection
        self.reader = Reader()
        self.reads = True
        self.now = 0.0
        self._theirs = theirs
        self._number = 0
        self._budget = DATAGRAMS_MAX
        self._written: dict[int, int] = {}
        self._deliver(self._sealed(b"\x01"))
        self.settle()

    def do(self, kind: int, argument: int, body: bytes) -> None:
        """One step, and a look at what it has done."""
        if kind == SEAL:
            self._seal(argument, as_written(body, int(self.connection.is_initiator)))
        elif kind == RAW and body:
            self._deliver(body)
        elif kind == TIME:
            self.now += 2 ** (argument % 15) / 1000
            self._timers()
        elif kind == WRITE:
            self._write(argument)
        elif kind == APP:
            self._application(argument)
        elif kind == ACK and self.connection.sent_packets:
            everything = f.ACK_ONE.pack(f.ACK, 0, 1, 0, self.connection.sent_packets - 1)
            self._deliver(self._sealed(everything))
        self.settle()

    def _seal(self, argument: int, frames: bytes) -> None:
        for _ in range(REPEATS[argument & 7]):
            datagram = self._sealed(frames, JUMPS[argument >> 3 & 3])
            self._deliver(datagram, mark=argument >> 6)
            if argument >> 5 & 1:
                self._deliver(datagram)
            if argument & 7 < 7:  # else a train: the host hears the connection at its end
                self.settle()

    def _sealed(self, frames: bytes, jump: int = 1) -> bytes:
        self._number += jump
        head = packet.HEADER.pack(packet.DATA, self.connection.local_id, self._number)
        if jump == 0:  # the same number again: a fresh seal is refused, a forged tag is not known
            return head + frames + bytes(16)
        return head + self._theirs.seal(self._number, head, frames)

    def _deliver(self, datagram: bytes, mark: int = 0) -> None:
        self._budget -= 1
        if self._budget > 0:
            try:
                self.connection.receive_datagram(datagram, self.now, mark)
            except (SecurityError, Malformed):
                return

    def _timers(self) -> None:
        for _ in range(TIMERS_MAX):
            at = self.connection.next_deadline()
            if at is None or at > self.now:
                return
            self.connection.on_deadline(self.now)
            self.settle()
        raise AssertionError("a timer that never comes to rest")

    def _write(self, argument: int) -> None:
        try:
            stream_id = self.connection.streams.open()
            data = pattern(stream_id, 0, argument * 37)
            self.connection.write(stream_id, data, fin=bool(argument & 1))
        except TransportError:
            return
        self._written[stream_id] = len(data)

    def _application(self, argument: int) -> None:
        connection, stream_id = self.connection, argument >> 3
        if connection.state == CLOSED:
            return
        try:
            match argument & 7:
                case 0 | 1:
                    self.reads = not argument & 1
                case 2:
                    connection.streams.reset(stream_id, 5)
                case 3:
                    connection.streams.stop(stream_id, 5)
                case 4:
                    connection.send_datagram(bytes(argument))
                case 5:
                    if connection.state == OPEN:
                        connection.challenge(b"answer 1")
                case 6:
                    connection.receive_reset(bytes([argument]) * 16)
                case 7 if argument == 255:
                    connection.close(1, "enough", self.now)
        except TransportError:
            return

    def settle(self) -> None:
        """What a host does after anything has happened, and what must hold then."""
        connection = self.connection
        self.reader.take(connection)
        if self.reads:
            unread, self.reader.unread = self.reader.unread, []
            for stream_id, count in unread:
                connection.streams.consume(stream_id, count)
        for datagram in connection.datagrams_to_send(self.now):
            self._sent(datagram)
        connection.check()
        self._bounded()
        if connection.state == CLOSED:
            assert connection.next_deadline() is None, "a closed connection waits for something"

    def _sent(self, datagram: bytes) -> None:
        """What leaves is well-formed, and says what the application wrote."""
        assert len(datagram) <= packet.OVERHEAD + self.connection.mtu.maximum, "too large"
        if not datagram[0] & packet.DATA:
            return
        _, _, number = packet.HEADER.unpack_from(datagram)
        head = packet.HEADER.size
        said = parsed(self._theirs.open(number, 0, datagram[:head], datagram[head:]))
        for call in said.calls:
            if call[0] == "on_stream":
                _, stream_id, offset, data, _ = call
                assert data == pattern(stream_id, offset, len(data)), "sends what was not written"
                assert offset + len(data) <= self._written.get(stream_id, 0), "sends too much"

    def _bounded(self) -> None:
        connection = self.connection
        streams = connection.streams._receiving.values()
        held = sum(stream.buffered for stream in streams)
        pieces = sum(len(stream._held) for stream in streams)
        assert held <= HELD_BYTES_MAX, "bytes out of order pile up"
        assert pieces <= HELD_PIECES_MAX, "pieces out of order pile up"
        assert len(connection.outgoing.control) <= 2 * CONTROL_WAITING_MAX, (
            "frames to be sent pile up"
        )
        theirs = 1 if connection.is_initiator else 0
        opened = sum(1 for stream_id in connection.streams._receiving if stream_id % 2 == theirs)
        assert opened <= CONFIG.max_streams, "streams pile up"
        unread = sum(count for _, count in self.reader.unread)
        assert unread <= CONFIG.connection_window, "more was delivered than there was credit for"


class HostileConnection:
    """`connection.Connection`, as either side."""

    def __init__(self) -> None:
        initiator, responder = agreed()
        self._sides = {True: initiator, False: responder}
        self._keys = {dials: keys(side) for dials, side in self._sides.items()}

    def seeds(self) -> list[bytes]:
        rng = random.Random(type(self).__name__)
        frames = [some_frame(rng) for _ in range(40)]
        return [bytes([side]) + step(SEAL, 0, frame) for frame in frames for side in (0, 1)]

    def cuts(self, data: bytes) -> list[int]:
        return step_cuts(data)

    def invent(self, rng: random.Random) -> bytes:
        if rng.random() < 0.7:
            some = rng.choice((some_frame, some_data))
            frames = b"".join(some(rng) for _ in range(rng.choice((1, 1, 2, 3, 30))))
            return step(SEAL, rng.choice((0, rng.randrange(256))), frames)
        kind = rng.choice((RAW, TIME, TIME, WRITE, WRITE, APP, APP, ACK, ACK))
        return step(kind, rng.randrange(256), rng.randbytes(40) if kind == RAW else b"")

    def run(self, data: bytes) -> None:
        play = self._play(bool(data and data[0] & 1))
        for kind, argument, body in steps(data):
            play.do(kind, argument, body)
        # Silence: what is left must come to an end by itself.
        for _ in range(8):
            play.do(TIME, 14, b"")
        assert play.connection.state == CLOSED, "outlives its idle time-out"

    def _play(self, dials: bool) -> Play:
        """A fresh connection under the keys that the two have agreed on."""
        handshake, (send, receive) = self._sides[dials], self._keys[dials]
        handshake.session = Session(CONFIG.suite, send, receive)
        handshake.parameters = Parameters.of(CONFIG, b"r" * 16, 33)
        handshake.take()
        connection = Connection(CONFIG, handshake, 11 if dials else 22, 0.0)
        connection.new_token = None if dials else bytes(24)
        if dials:
            # Anything but DATA makes an initiator look at what its handshake has come to.
            connection.receive_datagram(bytes([packet.RESPONSE]), 0.0)
        return Play(connection, Session(CONFIG.suite, receive, send))
