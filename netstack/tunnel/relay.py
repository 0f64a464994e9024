"""One TCP connection and one stream, joined: what goes into either comes out of the other.

    TCP                        stream
    bytes       ── outward ──> bytes       waits while the stream's buffer is full:
    FIN         ─────────────> FIN         then nothing is read, and TCP's window closes
    RST         ─────────────> RESET
    bytes       <── inward ─── bytes       waits while TCP takes nothing:
    FIN         <───────────── FIN         then no credit is given, and the far end waits
    RST         <───────────── RESET

Either direction may end while the other goes on. However slow a program is, no more than
STREAM_BUFFER + 3 × READ_AHEAD wait on the way out and 2 × STREAM_WINDOW on the way in.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Final

from netstack.presets.bytestream import ABORTED, ByteStream, StreamReset
from netstack.transport.config import TransportConfig

CONNECTIONS_MAX: Final = 128

# While nothing is read of a TCP connection, asyncio does not tell of its end: it is looked for.
LOOK_S: Final = 1.0

STREAM_WINDOW: Final = 1 << 20  # sustains 20 MB/s at 50 ms
STREAM_BUFFER: Final = 2 << 20
READ_AHEAD: Final = 1 << 18  # of TCP, at a time

# A program that reads nothing keeps a stream's window of unread bytes. The connection's holds them
# all, so that it keeps nobody else waiting. Allowances for streams come back by the half, so twice
# as many are allowed as there may be. And a dead exit is worth knowing of in seconds.
CONFIG: Final = TransportConfig(
    stream_window=STREAM_WINDOW,
    connection_window=2 * CONNECTIONS_MAX * STREAM_WINDOW,
    stream_buffer=STREAM_BUFFER,
    max_streams=2 * CONNECTIONS_MAX,
    idle_timeout_s=6.0,
    keep_alive_s=2.0,
)

# Codes of a reset, beside those of presets/bytestream.py: why the exit carries nothing.
TARGET_REFUSES, BUSY = 16, 17
REASONS: Final = {
    TARGET_REFUSES: "nothing answers at the exit's target",
    BUSY: f"the exit carries {CONNECTIONS_MAX} connections already",
}


def cause(error: OSError) -> str | None:
    """Why a connection broke, for people; None if one of the two programs has reset it."""
    if not isinstance(error, StreamReset) or error.code == ABORTED:
        return None
    return REASONS.get(error.code, str(error))


GONE = "the program has reset its connection"


class Relay:
    """Joins them."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: ByteStream
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._stream = stream

    def __repr__(self) -> str:
        return f"<Relay {self._stream!r}>"

    async def run(self) -> None:
        """Carry until both directions are over; raises OSError if one of the two was reset.

        Then the other is reset, too.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                watch = tasks.create_task(self._watch())
                pumps = (self._outward(), self._inward())
                await asyncio.wait([tasks.create_task(pump) for pump in pumps])
                watch.cancel()
        except BaseException as error:
            self._stream.abort()
            reset(self._writer)
            if isinstance(error, BaseExceptionGroup):
                raise error.exceptions[0] from None
            raise
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _watch(self) -> None:
        """Notice a reset of either side: a pump that waits for the other side would not."""
        broken = asyncio.Event()
        self._stream.on_reset = lambda error: broken.set()
        while self._stream.error is None:
            sock = _socket(self._writer)
            if sock is None or sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise ConnectionResetError(GONE)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(broken.wait(), LOOK_S)
        raise self._stream.error

    async def _outward(self) -> None:
        while data := await self._reader.read(READ_AHEAD):
            await self._stream.write(data)
        self._stream.finish()

    async def _inward(self) -> None:
        while data := await self._stream.read():
            self._refuse_if_gone()
            self._writer.write(data)
            await self._writer.drain()
        self._refuse_if_gone()
        self._writer.write_eof()

    def _refuse_if_gone(self) -> None:
        if self._writer.is_closing():
            raise ConnectionResetError(GONE)


def reset(writer: asyncio.StreamWriter) -> None:
    """End a TCP connection with RST instead of FIN, so that nobody takes a part for the whole."""
    sock = _socket(writer)
    if sock is not None:  # else the program was faster
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _socket(writer: asyncio.StreamWriter) -> socket.socket | None:
    """The connection's socket; None if that is closed already."""
    sock: socket.socket | None = writer.get_extra_info("socket")
    return sock if sock is not None and sock.fileno() >= 0 else None
