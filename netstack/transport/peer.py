"""The asyncio faces of a connection: `Peer` for the whole, `Stream` for one stream of it.

They hold what waits on the application's side (readers, writers, callbacks) and nothing of the
protocol. Queueing anything tells the host, which sends at the end of this turn of the loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from netstack.runtime.endpoint import Address
from netstack.transport import events
from netstack.transport.connection import CLOSED, Connection
from netstack.transport.errors import TransportError
from security.identity import PeerIdentity

NEVER = float("inf")

# A write of so much is queued as it is, without the work of cutting it. Larger ones lose by that:
# a third of the rate of one stream at the largest MTU, measured.
UNCUT_MAX = 4096

# Of a handshake under way: where from, by which id, XX or IK (after a REFUSED, forged perhaps, the
# same initiator begins again).
InitialKey = tuple[Address, int, int]


class Flusher(Protocol):
    """What a peer needs of its host."""

    def touch(self, peer: Peer) -> None:
        """Something was queued: send it at the end of this turn of the loop."""

    def end(self, peer: Peer, code: int, reason: str) -> None:
        """Close the connection from this side."""


# Of a stream: told (data, fin). Of much at once it is a view, of memory that is not written again.
Receiver = Callable[[bytes | memoryview, bool], None]


class Challenge(NamedTuple):
    """Asked of the peer at an address from which it seems to speak now."""

    address: Address
    secret: bytes
    until: float  # not asked again before


class Peer:
    """The asyncio face of one connection."""

    def __init__(self, host: Flusher, connection: Connection, address: Address) -> None:
        self.connection = connection
        self.address = address
        self.identity = PeerIdentity("?", "?", "?", 0, 0.0, b"")
        self.on_stream: Callable[[Stream], None] | None = None
        self.on_datagram: Callable[[bytes], None] | None = None
        self.on_close: list[Callable[[TransportError], None]] = []
        self.deadline = NEVER  # when its connection wants to be called
        self.alarm_at = NEVER  # when the host will look; never later
        self.established: asyncio.Future[None] | None = None
        self.challenge: Challenge | None = None
        self.initial_key: InitialKey | None = None
        self._host = host
        self._streams: dict[int, Stream] = {}
        self._writers: dict[Stream, None] = {}

    def __repr__(self) -> str:
        return f"<Peer {self.identity} {self.address[0]}:{self.address[1]} {self.connection.state}>"

    @property
    def known(self) -> bool:
        """Whether the handshake has told who this is."""
        return bool(self.identity.static_key)

    @property
    def closed(self) -> bool:
        """Whether the connection is over."""
        return self.connection.state == CLOSED

    def open_stream(self) -> Stream:
        """A new stream; raises TransportError."""
        stream_id = self.connection.streams.open()
        stream = self._streams[stream_id] = Stream(self, stream_id)
        return stream

    def send_datagram(self, data: bytes) -> None:
        """Send unreliably; raises TransportError if it fits no packet."""
        self.connection.send_datagram(data)
        self.touch()

    async def close(self, code: int = 0, reason: str = "") -> None:
        """End the connection and tell the peer."""
        self._host.end(self, code, reason)

    def stats(self) -> dict[str, float]:
        """What the connection has measured."""
        connection = self.connection
        return {
            "rtt_ms": connection.rtt.smoothed * 1000,
            "cwnd": connection.recovery.congestion.cwnd,
            "mtu": connection.mtu.current,
            "lost": connection.recovery.losses,
            "marked": connection.outgoing.ecn.marks,
            "probes": connection.recovery.probes_sent,
            "sent": connection.sent_packets,
            "received": connection.received_packets,
        }

    def touch(self) -> None:
        """Something was queued."""
        self._host.touch(self)

    def handle(self, event: Any) -> None:
        """One event of the connection."""
        kind = type(event)
        if kind is events.StreamData:
            stream, pieces = self._streams.get(event.stream_id), event.pieces()
            last = len(pieces) - 1
            for at, data in enumerate(pieces):
                if stream is None:
                    self.connection.streams.consume(event.stream_id, len(data))
                else:
                    stream.received(data, event.fin and at == last)
        elif kind is events.StreamOpened:
            stream = self._streams[event.stream_id] = Stream(self, event.stream_id)
            if self.on_stream is not None:
                self.on_stream(stream)
        elif kind is events.DatagramReceived:
            if self.on_datagram is not None:
                self.on_datagram(event.data)
        elif kind in (events.StreamReset, events.StreamStopped):
            stream = self._streams.get(event.stream_id)
            if stream is not None:
                stream.cut(kind is events.StreamReset, event.code)
        elif kind is events.StreamOver:
            self._streams.pop(event.stream_id, None)

    def wait_for_room(self, stream: Stream) -> None:
        """Wake the stream's writers when its buffer has drained."""
        self._writers[stream] = None

    def wake_writers(self) -> None:
        """Acknowledgements may have made room."""
        if self._writers:
            for stream in list(self._writers):
                if stream.wake():
                    del self._writers[stream]

    def ended(self, error: TransportError) -> None:
        """The connection is over."""
        for stream in list(self._streams.values()):
            stream.fail(error)
        self._streams.clear()
        self._writers.clear()
        for callback in self.on_close:
            callback(error)


class Stream:
    """One stream: bytes in order, both ways.

    Either set `receiver`, which is called with what arrives as it arrives, or `await read()`.
    `on_reset`, if set, is called with the code when the peer gives up one direction or both: once,
    and not after we did so ourselves, when the peer's part is but an answer.
    """

    def __init__(self, peer: Peer, id_: int) -> None:
        self.id = id_
        self.peer = peer
        self.on_reset: Callable[[int], None] | None = None
        self._reset_told = False
        self._receiver: Receiver | None = None
        self._connection = peer.connection
        self._loop = asyncio.get_running_loop()
        self._arrived: deque[bytes] = deque()
        self._ended = False
        self._error: TransportError | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<Stream {self.id} of {self.peer.identity} buffered={self.buffered}>"

    @property
    def buffered(self) -> int:
        """Bytes pushed and not yet acknowledged."""
        return self._connection.streams.buffered(self.id)

    @property
    def receiver(self) -> Receiver | None:
        """Called with (data, fin); the peer's credit returns at once."""
        return self._receiver

    @receiver.setter
    def receiver(self, receiver: Receiver) -> None:
        self._receiver = receiver
        if self._ended and not self._arrived:
            receiver(b"", True)
        while self._arrived:
            data = self._arrived.popleft()
            self._connection.streams.consume(self.id, len(data))
            receiver(data, self._ended and not self._arrived)
        self.peer.touch()

    def push(self, data: bytes | memoryview, *, fin: bool = False) -> None:
        """Queue without waiting; raises BufferFull over the bound, or the connection's error.

        A view is sent from where it is, and again from there if it is lost: what it shows must
        not change until the peer has it, or `keep` was called.
        """
        self._connection.write(self.id, data, fin=fin)
        self.peer.touch()

    def keep(self) -> None:
        """Copy what was pushed as a view and is not acknowledged: it may change from here on."""
        stream = self._connection.streams.sending(self.id)
        if stream is not None:
            self._connection.outgoing.keep(stream)

    async def write(self, data: bytes, *, fin: bool = False) -> None:
        """Queue, in pieces that fit the buffer, waiting for the peer as long as need be."""
        piece = self._connection.config.stream_buffer // 4
        if len(data) <= UNCUT_MAX and self._has_room():
            self.push(bytes(data), fin=fin)
            return
        view = memoryview(data)
        for start in range(0, max(len(data), 1), piece):
            await self.drain()
            part = bytes(view[start : start + piece])
            self.push(part, fin=fin and start + piece >= len(data))

    async def drain(self) -> None:
        """Wait until half of the buffer is free."""
        while not self._has_room():
            if self._error is not None:
                raise self._error
            if self._writer is None or self._writer.done():
                self._writer = self._loop.create_future()
            self.peer.wait_for_room(self)
            await asyncio.shield(self._writer)

    async def read(self, most: int = 1 << 20) -> bytes:
        """What has arrived, at most `most` bytes; b"" at the end. Raises the connection's error."""
        while not self._arrived:
            if self._ended:
                return b""
            if self._error is not None:
                raise self._error
            self._reader = self._loop.create_future()
            await self._reader
        data = self._arrived.popleft()
        if len(data) > most:
            self._arrived.appendleft(data[most:])
            data = data[:most]
        if self._connection.streams.consume(self.id, len(data)):
            self.peer.touch()
        return data

    def reset(self, code: int = 0) -> None:
        """Give up sending, and ask the peer to send no more; what came unread is dropped."""
        self._reset_told = True
        self._connection.streams.reset(self.id, code)
        self._connection.streams.stop(self.id, code)
        self._give_up(TransportError(f"stream {self.id} was given up here (code {code})"))

    # -- called by Peer

    def received(self, data: bytes | memoryview, fin: bool) -> None:
        """Bytes in order."""
        self._ended = self._ended or fin
        if self._receiver is not None:
            self._connection.streams.consume(self.id, len(data))
            self._receiver(data, fin)
            return
        if data:
            self._arrived.append(bytes(data))
        self._wake_reader()

    def cut(self, receiving: bool, code: int) -> None:
        """One direction was given up by the peer."""
        if receiving:
            self._give_up(TransportError(f"the peer reset stream {self.id} (code {code})"))
        # Who gives up both sends a RESET and a STOP, and a STOP is answered by a RESET.
        if self.on_reset is not None and not self._reset_told:
            self._reset_told = True
            self.on_reset(code)

    def fail(self, error: TransportError) -> None:
        """Nothing will come any more."""
        self._error = error
        self._wake_reader()
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    def _give_up(self, error: TransportError) -> None:
        # Bytes that nobody is going to read would hold back the credit of all other streams.
        self.receiver = _drop
        self.fail(error)

    def wake(self) -> bool:
        """Wake a waiting writer if there is room now."""
        if not self._has_room():
            return False
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)
        return True

    def _has_room(self) -> bool:
        connection = self._connection
        buffered = connection.streams.buffered(self.id)
        return buffered <= connection.config.stream_buffer // 2 and self._error is None

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


def _drop(data: bytes | memoryview, fin: bool) -> None:
    """The receiver of a stream that was given up."""
