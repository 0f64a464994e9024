"""TCP-like: one stream of bytes, in order and once, to be opened, half-closed, closed or reset.

    socket = StreamSocket(runtime, identity, service="shop", backlog=16)
    await socket.start(("127.0.0.1", 7600))
    stream = await socket.accept()                           at one end
    stream = await socket.connect(("127.0.0.1", 7600))       at the other

    connect      OPEN  ───────>  accept              SYN, SYN-ACK
                       <───────  OPENED              (or a reset: nobody accepts)
    write        data  ───────>  read
    finish       FIN   ───────>  read gives b""      half-closed: the other direction goes on
    read         data  <───────  write
                 FIN   <───────  finish
    abort        RESET ───────>  StreamReset, in all that wait on either direction

A stream of the transport is all this already, but for its beginning: it opens in silence, and its
peer learns of it with the first bytes. Therefore the two bytes above. Streams to one address share
a connection: one handshake, one congestion window, and a lost packet of one holds up no other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from netstack.presets.connections import Connections
from netstack.runtime.endpoint import Address
from netstack.runtime.runtime import Runtime
from netstack.transport.config import TransportConfig
from netstack.transport.errors import TransportError
from netstack.transport.peer import Peer, Stream
from security.identity import Identity

OPEN: Final = b"\x01"
OPENED: Final = b"\x02"

# Codes of a reset, by which the other end knows why.
ABORTED, REFUSED, CLOSED = 0, 1, 2
LOST = -1  # never sent: the connection under the stream is over
REASONS: Final = {
    ABORTED: "reset by the other end",
    REFUSED: "refused: nobody accepts there",
    CLOSED: "reset by the other end: it had closed, and reads no more",
}

CONNECT_TIMEOUT_S = 5.0


class StreamReset(ConnectionError):
    """The stream is over before its end; `code` as the resetting side gave it."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class ByteStream:
    """Both directions of one stream.

    `on_reset`, if set, is called with the StreamReset when it breaks, whoever waits or not.
    """

    def __init__(self, stream: Stream, over: Callable[[ByteStream], None]) -> None:
        self.on_reset: Callable[[StreamReset], None] | None = None
        self.error: StreamReset | None = None
        self._stream = stream
        self._over = over
        self._finished = False  # we have sent our end
        self._ended = False  # and have read the other's
        stream.on_reset = self._reset_by_peer

    def __repr__(self) -> str:
        ends = [word for word, true in (("sent", self._finished), ("read", self._ended)) if true]
        state = "reset" if self.error else f"fin {' and '.join(ends)}" if ends else "open"
        return f"<ByteStream {self._stream.id} {state} buffered={self._stream.buffered}>"

    @property
    def address(self) -> Address:
        """Where the other end is."""
        return self._stream.peer.address

    async def read(self, most: int = 1 << 20) -> bytes:
        """What has arrived, at most `most` bytes; b"" at the end. Raises StreamReset."""
        try:
            data = await self._stream.read(most)
        except TransportError as error:
            raise self._broken(error) from None
        if not data and not self._ended:
            self._ended = True
            self._forget_if_over()
        return data

    async def write(self, data: bytes) -> None:
        """Queue bytes, waiting until half of the buffer is free. Raises StreamReset."""
        try:
            await self._stream.write(data)
        except TransportError as error:
            raise self._broken(error) from None

    def confirm(self) -> None:
        """Let the opener of this stream, which still waits, go on (see StreamSocket.next)."""
        if self.error is None:
            self._stream.push(OPENED)

    def finish(self) -> None:
        """Half-close: nothing more is written here; what the other end writes is still read."""
        if self.error is None and not self._finished:
            self._finished = True
            self._stream.push(b"", fin=True)
            self._forget_if_over()

    def close(self) -> None:
        """Write no more and read no more: what still comes is answered by a reset, as with TCP."""
        self.finish()
        if self.error is None and not self._ended:
            self._stream.receiver = self._nobody_reads

    def abort(self, code: int = ABORTED) -> None:
        """Reset: give up both directions, at once."""
        if self.error is None:
            self._stream.reset(code)
            self._break(StreamReset("the stream was reset here", code))

    def _nobody_reads(self, data: bytes | memoryview, fin: bool) -> None:
        if data:
            self.abort(CLOSED)
        elif fin:
            self._ended = True
            self._forget_if_over()

    def _reset_by_peer(self, code: int) -> None:
        self._break(StreamReset(REASONS.get(code, f"{REASONS[ABORTED]} (code {code})"), code))

    def lost(self, error: TransportError) -> None:
        """The connection under it is over."""
        self._break(StreamReset(str(error), LOST))

    def _broken(self, error: TransportError) -> StreamReset:
        return self.error or StreamReset(str(error), LOST)

    def _break(self, error: StreamReset) -> None:
        if self.error is None:
            self.error = error
            self._over(self)
            if self.on_reset is not None:
                self.on_reset(error)

    def _forget_if_over(self) -> None:
        if self._finished and self._ended:
            self._over(self)


class StreamSocket:
    """Opens streams to any address, and accepts them if it was given a backlog.

    Args:
        backlog: streams that wait to be accepted; beyond, they are refused. 0: it only connects.
    """

    def __init__(
        self,
        runtime: Runtime,
        identity: Identity,
        *,
        service: str,
        config: TransportConfig | None = None,
        backlog: int = 0,
    ) -> None:
        self._runtime = runtime
        self._connections = Connections(runtime, identity, service, config, self._adopt)
        self._backlog = backlog
        self._waiting: deque[ByteStream] = deque()
        self._arrival = asyncio.Event()
        self._open: dict[Peer, dict[ByteStream, None]] = {}

    def __repr__(self) -> str:
        count = sum(map(len, self._open.values()))
        return f"<StreamSocket {self._connections!r} streams={count} waiting={len(self._waiting)}>"

    @property
    def address(self) -> Address:
        """Where it is bound."""
        return self._connections.host.address

    async def start(self, address: Address) -> None:
        """Take the port; raises PortTaken or EndpointError."""
        await self._connections.host.start(address)

    async def connect(self, address: Address) -> ByteStream:
        """A stream that was accepted at `address`; raises StreamReset."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                peer = await self._connections.to(address, CONNECT_TIMEOUT_S)
                return await self._open_on(peer)
        except TimeoutError:
            raise StreamReset(f"no answer from {address[0]}:{address[1]}", LOST) from None
        except TransportError as error:
            raise StreamReset(str(error), LOST) from None

    async def _open_on(self, peer: Peer) -> ByteStream:
        stream = self._keep(peer, peer.open_stream())
        try:
            await stream.write(OPEN)
            if await stream.read(len(OPENED)) != OPENED:
                raise StreamReset("what answers there is no stream socket", ABORTED)
        except BaseException:
            stream.abort()
            raise
        return stream

    async def accept(self) -> ByteStream:
        """The next stream that somebody opened; the opener goes on."""
        stream = await self.next()
        stream.confirm()
        return stream

    async def next(self) -> ByteStream:
        """The next one, whose opener still waits: `confirm` it, or `abort` it with a code."""
        while not self._waiting:
            self._arrival.clear()
            await self._arrival.wait()
        return self._waiting.popleft()

    def _adopt(self, peer: Peer) -> None:
        self._open[peer] = {}
        peer.on_stream = lambda stream: self._opened(peer, stream)
        peer.on_close.append(lambda error: self._lost(peer, error))

    def _keep(self, peer: Peer, stream: Stream) -> ByteStream:
        streams = self._open.get(peer, {})
        kept = ByteStream(stream, over=lambda kept: streams.pop(kept, None))
        streams[kept] = None
        return kept

    def _opened(self, peer: Peer, stream: Stream) -> None:
        self._runtime.spawn(self._greet(self._keep(peer, stream)), "a stream's first byte")

    async def _greet(self, stream: ByteStream) -> None:
        try:
            wanted = await stream.read(len(OPEN)) == OPEN
        except StreamReset:
            return
        if wanted and len(self._waiting) < self._backlog:
            self._waiting.append(stream)
            self._arrival.set()
        else:
            stream.abort(REFUSED)

    def _lost(self, peer: Peer, error: TransportError) -> None:
        for stream in list(self._open.pop(peer, ())):
            stream.lost(error)

    async def close(self) -> None:
        """Reset all streams and release the port."""
        await self._connections.close()
