"""Streams between the groups of two processes: who rings is put through, over one socket a daemon.

    switchboard = Switchboard(node)          one a process
    Line(connection, stream)                 the stream to one rank, as frames

The first frame on a stream is HELLO: group, epoch and rank. Who rings with an epoch that is over is
told so (FENCED); who rings before the group is here waits.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import msgpack

from ddp.engine import Engine
from ddp.errors import DdpError
from ddp.frames import NO_CALL, Decoder, Frame, Type
from netstack.rpc.connection import RpcConnection
from netstack.rpc.node import RpcNode
from netstack.transport.config import TransportConfig
from netstack.transport.errors import TransportError
from netstack.transport.peer import Stream

SERVICE: Final = "ddp"

# Silence after which a rank of another host is held for dead; a stopped one of this host, too.
IDLE_S: Final = 3.0
KEEP_ALIVE_S: Final = 0.5

# How long a group that is closed waits for its last words to arrive.
SETTLE_S: Final = 1.0
SETTLE_LOOKS: Final = 200

# Callers whose group is not here yet.
WAITING_MAX: Final = 256


def transport_config(suite: str = "AESGCM") -> TransportConfig:
    """Of sockets that carry groups."""
    return TransportConfig(suite=suite, idle_timeout_s=IDLE_S, keep_alive_s=KEEP_ALIVE_S)


class Answering(Protocol):
    """What a stream is put through to: one epoch of a group."""

    engine: Engine

    def accept(self, rank: int, line: Line) -> None:
        """`rank` is on the line."""


class Switchboard:
    """Puts streams through to the group and epoch that they ask for."""

    def __init__(self, node: RpcNode) -> None:
        self.node = node
        self._fabrics: dict[str, Answering] = {}
        self._waiting: deque[tuple[str, int, int, Line]] = deque(maxlen=WAITING_MAX)
        self._retiring: set[asyncio.Task[None]] = set()
        node.on_stream = self._opened

    def __repr__(self) -> str:
        return f"<Switchboard groups={sorted(self._fabrics)} waiting={len(self._waiting)}>"

    def register(self, group: str, fabric: Answering) -> None:
        """`fabric` is what this process now has of `group`; who asked before is put through."""
        self._fabrics[group] = fabric
        waiting, self._waiting = self._waiting, deque(maxlen=WAITING_MAX)
        for caller in waiting:
            self._route(*caller)

    def forget(self, group: str, fabric: Answering) -> None:
        """It is over."""
        if self._fabrics.get(group) is fabric:
            del self._fabrics[group]

    def retire(self, line: Line, epoch: int, *, dialled: bool) -> None:
        """Say the last words on a line, and end its connection if it was made for it."""
        task = self.node.runtime.spawn(line.retire(epoch, dialled=dialled), f"retire {line!r}")
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def settle(self) -> None:
        """Until the last words of all closed groups have arrived, or time is up."""
        if self._retiring:
            await asyncio.wait(self._retiring)

    def _opened(self, connection: RpcConnection, stream: Stream) -> None:
        line = Line(connection, stream)

        def first(frame: Frame) -> None:
            try:
                group, epoch, rank = msgpack.unpackb(frame.payload)
                if frame.type is not Type.HELLO or type(epoch) is not int or type(rank) is not int:
                    raise ValueError(frame)
            except (ValueError, TypeError, msgpack.exceptions.UnpackException):
                stream.reset(1)
                return
            self._route(group, epoch, rank, line)

        line.on_frame = first
        line.on_garbage = lambda error: stream.reset(1)
        stream.receiver = line.feed

    def _route(self, group: str, epoch: int, rank: int, line: Line) -> None:
        fabric = self._fabrics.get(group)
        if fabric is None or epoch > fabric.engine.epoch:
            line.hold()
            self._waiting.append((group, epoch, rank, line))
        elif epoch < fabric.engine.epoch:
            line.send(Frame(Type.FENCED, fabric.engine.epoch, 0, NO_CALL))
        else:
            fabric.accept(rank, line)


class Line:
    """The stream to one rank, as frames."""

    def __init__(self, connection: RpcConnection, stream: Stream) -> None:
        self.connection, self.stream = connection, stream
        self.on_frame: Callable[[Frame], None] | None = None
        self.on_fed: Callable[[], None] = lambda: None  # after all frames of a packet
        self.on_garbage: Callable[[DdpError], None] = lambda error: None
        self._decoder = Decoder(sealed=True)
        self._held: list[Frame] = []

    def __repr__(self) -> str:
        return f"<Line to {self.connection.peer_name} held={len(self._held)}>"

    def hold(self) -> None:
        """Keep what comes until there is a receiver; the peer's window bounds it."""
        self.on_frame = None

    def feed(self, data: bytes | memoryview, fin: bool) -> None:
        """Bytes have come."""
        try:
            for frame in self._decoder.feed(data):
                if self.on_frame is None:
                    self._held.append(frame)
                else:
                    self.on_frame(frame)
        except DdpError as error:
            self.on_garbage(error)
        self.on_fed()

    def use(self, on_frame: Callable[[Frame], None]) -> None:
        """From now on to `on_frame`, beginning with what was held."""
        self.on_frame = on_frame
        held, self._held = self._held, []
        for frame in held:
            on_frame(frame)

    def send(self, frame: Frame) -> None:
        """Queue a frame; a line that is gone swallows it: its end is told elsewhere."""
        with contextlib.suppress(TransportError):
            self.push(frame)

    def push(self, frame: Frame) -> None:
        """Queue a frame; raises TransportError."""
        self.stream.push(frame.head(sealed=True))
        if frame.payload:
            self.stream.push(frame.payload)

    async def retire(self, epoch: int, *, dialled: bool) -> None:
        """Say that we leave; then end the connection, if it was dialled for it."""
        with contextlib.suppress(TransportError):
            self.stream.push(Frame(Type.LEFT, epoch, 0, NO_CALL).head(sealed=True), fin=True)
            for _ in range(SETTLE_LOOKS):
                if not self.stream.buffered or self.connection.closed is not None:
                    break
                await asyncio.sleep(SETTLE_S / SETTLE_LOOKS)
        if dialled:
            await self.connection.close()
