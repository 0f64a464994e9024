"""One conversation: both sides may call, over one connection of the transport.

Calls of both directions share a stream, the *lane*, and so their packets: a reply carries the
acknowledgement of its request, and all that is sent in one turn of the loop leaves as one packet
train. Big one-way messages may take a second lane (`bulk=True`), lest a heartbeat wait behind a
snapshot.

    dialler    opens stream "lane" and stream "bulk", in this order
    both       send HELLO first on the lane: which life of the process this is
    either     may open raw streams after them, for bytes that are no calls (`open_stream`)

Queues are bounded: a caller waits when the lane is congested, a notify is dropped and says so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

from netstack.rpc import frames
from netstack.rpc.errors import (
    BadRequest,
    ConnectionLost,
    DeadlineExceeded,
    Interrupted,
    RpcError,
    Unavailable,
    brief,
    from_wire,
)
from netstack.rpc.incoming import END, Incoming, items
from netstack.rpc.service import STREAM_WINDOW_ITEMS, Call, RpcService
from netstack.runtime.runtime import Runtime
from netstack.transport.errors import BufferFull, TransportError
from netstack.transport.peer import Peer, Stream

# Above this, `call` waits for room and `notify` drops; `Stream.drain` waits for as much.
CONGESTED_BYTES = 8 * 1024 * 1024

# How often overdue calls are looked for. A time limit is met this late at the most.
SWEEP_S = 0.02


class RpcConnection:
    """The calls and answers of one connection, in both directions."""

    def __init__(self, runtime: Runtime, peer: Peer, service: RpcService) -> None:
        self._runtime = runtime
        self._peer = peer
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._next_id = 0
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._deadlines: dict[int, float] = {}
        self._streams: dict[int, Incoming] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._lane: Stream | None = None
        self._bulk: Stream | None = None
        self.calls_served: dict[int, Call] = {}
        self.counters: Counter[str] = Counter()
        self.dialled = False  # by this side
        self.peer_incarnation: bytes | None = None
        self.peer_name = peer.identity.name
        self.peer_service = peer.identity.service
        self.closed: RpcError | None = None
        self.on_close: list[Callable[[RpcConnection], None]] = []
        self.on_stream: Callable[[RpcConnection, Stream], None] | None = None  # a raw one came
        self.now = runtime.clock.now
        peer.on_close.append(self._lost)
        peer.on_stream = self._stream_opened

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return (
            f"<RpcConnection {self.peer_name} {state} pending={len(self._pending)} "
            f"serving={len(self.calls_served)}>"
        )

    # -- lanes

    def open_lanes(self) -> None:
        """Begin to talk, as the side that dialled; it may turn out that the connection is over."""
        self.dialled = True
        try:
            for _ in ("lane", "bulk"):
                self._stream_opened(self._peer.open_stream())
        except TransportError as error:
            self.abort(str(error))

    def _stream_opened(self, stream: Stream) -> None:
        if self._lane is None:
            self._lane = stream
        elif self._bulk is None:
            self._bulk = stream
        elif self.on_stream is not None:
            self.on_stream(self, stream)
            return
        else:
            stream.reset(1)
            return
        # A stream that carries nothing yet is unknown to the other side: name it by saying hello.
        self._push(frames.encode((frames.HELLO, self._service.incarnation)), stream)
        stream.on_reset = lambda code: self.abort(f"the peer gave up a lane (code {code})")
        stream.receiver = self._receiver()

    def open_stream(self) -> Stream:
        """A raw stream beside the lanes; the peer hears of it with its first byte.

        Raises Unavailable when the connection is over or has no lanes yet.
        """
        if self.closed is not None or self._bulk is None:
            raise Unavailable(str(self.closed or f"{self.peer_name} has not opened its lanes yet"))
        try:
            return self._peer.open_stream()
        except TransportError as error:
            raise Unavailable(str(error)) from error

    def _receiver(self) -> Callable[[bytes | memoryview, bool], None]:
        decoder = frames.Decoder()

        def received(data: bytes | memoryview, fin: bool) -> None:
            try:
                for message in decoder.feed(data):
                    if self.closed is not None:
                        return
                    self._dispatch(message)
            except frames.ProtocolError as error:
                self.counters["protocol_errors"] += 1
                self.abort(str(error))
            if fin:
                self.abort("the peer ended its lane")

        return received

    # -- sending

    def send(self, message: tuple[Any, ...]) -> None:
        """Queue one message on the lane; it leaves at the end of this turn of the loop.

        Raises what `frames.encode` does, and then nothing was queued.
        """
        self._push(frames.encode(message), self._lane)

    def _push(self, data: bytes, stream: Stream | None) -> None:
        if stream is None or self.closed is not None:
            return
        try:
            stream.push(data)
        except BufferFull:
            self.abort("its answers were not read")
        except TransportError as error:  # what has just arrived ended the stream, or everything
            self.abort(str(error))

    @property
    def ready(self) -> bool:
        """Whether a call may be made now."""
        return self.closed is None and self._lane is not None

    @property
    def congested(self) -> bool:
        """Whether the lane holds more than its bound of unsent and unacknowledged bytes."""
        lane = self._lane
        return lane is not None and self.closed is None and lane.buffered > CONGESTED_BYTES

    @property
    def bulk_under_way(self) -> bool:
        """Whether the peer has not acknowledged all that was sent with `bulk=True`."""
        bulk = self._bulk
        return bulk is not None and self.closed is None and bulk.buffered > 0

    async def drain(self) -> None:
        """Wait until the lane has room again, or is gone."""
        if self._lane is not None:
            with contextlib.suppress(TransportError):
                await self._lane.drain()

    def notify(self, message: bytes, *, bulk: bool = False) -> bool:
        """Send an encoded NOTIFY; False if it was dropped because the lane is full or gone."""
        stream = self._bulk if bulk else self._lane
        if stream is None or self.closed is not None or stream.buffered > CONGESTED_BYTES:
            self.counters["notify_dropped"] += 1
            return False
        self._push(message, stream)
        return self.closed is None

    async def call(
        self, method: str, body: Any, timeout_s: float, key: tuple[Any, ...] | None = None
    ) -> Any:
        """One request, one answer.

        Raises the service's RpcError, DeadlineExceeded, ConnectionLost, BadRequest for a request
        over MESSAGE_BYTES_MAX, or Unavailable when the connection had ended before, or had no room
        in time. A call whose task is cancelled is cancelled at the service too.
        """
        if self.congested:
            timeout_s = await self.wait_for_room(timeout_s)
        id_, future = self._begin(method, body, timeout_s, key)
        try:
            return await future
        except asyncio.CancelledError:
            self.send((frames.CANCEL, id_))
            raise
        finally:
            self._pending.pop(id_, None)
            self._deadlines.pop(id_, None)

    def begin(self, method: str, body: Any, timeout_s: float) -> asyncio.Future[Any]:
        """The same, sent now and not waited for: several at a time need no task each.

        Nobody has to look at what becomes of it. Cancelled, it is cancelled at the service too.
        """
        id_, future = self._begin(method, body, timeout_s, None)

        def ended(future: asyncio.Future[Any]) -> None:
            self._pending.pop(id_, None)
            self._deadlines.pop(id_, None)
            if future.cancelled():
                self.send((frames.CANCEL, id_))
            else:
                future.exception()  # seen, whoever else looks at it

        future.add_done_callback(ended)
        return future

    def _begin(
        self, method: str, body: Any, timeout_s: float, key: tuple[Any, ...] | None
    ) -> tuple[int, asyncio.Future[Any]]:
        id_, request = self._request(method, body, int(timeout_s * 1000), key)
        future: asyncio.Future[Any] = self._loop.create_future()
        self._pending[id_] = future
        self._deadlines[id_] = self.now() + timeout_s
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)
        self._push(request, self._lane)
        return id_, future

    def stream(self, method: str, body: Any, timeout_s: float) -> AsyncGenerator[Any, None]:
        """A server stream: its items, as they come; `timeout_s` bounds the wait for each one."""
        return items(self, method, body, timeout_s)

    def begin_stream(self, method: str, body: Any) -> tuple[int, Incoming]:
        """Ask for a stream; its id, and where its items arrive."""
        # For the service there is no limit to the whole: a watch lasts as long as it is wanted.
        id_, request = self._request(method, body, 2**31, None)
        incoming = self._streams[id_] = Incoming()
        self._push(request, self._lane)
        return id_, incoming

    def end_stream(self, id_: int, *, cancel: bool) -> None:
        """Nobody takes items of this stream any more; `cancel`: the service does not know yet."""
        del self._streams[id_]
        if cancel:
            self.send((frames.CANCEL, id_))

    async def wait_for_room(self, timeout_s: float) -> float:
        """Wait until the lane is not congested; returns how much of the time is left."""
        deadline = self.now() + timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                while self.congested:
                    await self.drain()
        except TimeoutError:
            raise Unavailable(f"no room in time on the lane to {self.peer_name}") from None
        return deadline - self.now()

    def _request(
        self, method: str, body: Any, timeout_ms: int, key: tuple[Any, ...] | None
    ) -> tuple[int, bytes]:
        """A new id, and the REQUEST under it."""
        if self._lane is None or self.closed is not None:
            raise Unavailable(str(self.closed or f"{self.peer_name} has not opened its lane yet"))
        self._next_id += 1
        request = (frames.REQUEST, self._next_id, method, body, timeout_ms, key)
        try:
            return self._next_id, frames.encode(request)
        except ValueError as error:
            raise BadRequest(f"{method}: {error} to send") from None

    def _sweep(self) -> None:
        """Fail what is overdue. One timer serves all calls: to arm one for each costs more."""
        now = self.now()
        for id_ in [i for i, deadline in self._deadlines.items() if deadline <= now]:
            self._give_up(id_, DeadlineExceeded("no answer in time"))
        self._sweeper = None
        if self._deadlines and self.closed is None:
            self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    def _give_up(self, id_: int, error: RpcError) -> None:
        """Fail a call that is not answered, and let the service stop."""
        future = self._pending.get(id_)
        if future is not None and not future.done():
            self.send((frames.CANCEL, id_))
            future.set_exception(error)

    # -- receiving

    def _dispatch(self, message: list[Any]) -> None:
        kind = message[0]
        if kind == frames.REPLY:
            future = self._pending.get(message[1])
            if future is None:
                self._failed(message[1], Interrupted("the method is no stream: call it"))
            elif not future.done():
                future.set_result(message[2])
        elif kind == frames.REQUEST:
            self._service.request(self, message, self.now())
        elif kind == frames.NOTIFY:
            self._service.notified(self, message[1], message[2])
        elif kind == frames.HELLO:
            self.peer_incarnation = message[1]
        elif kind == frames.ERROR:
            self._failed(message[1], from_wire(message[2]))
        elif kind == frames.ITEM or kind == frames.END:
            incoming = self._incoming(message[1])
            if incoming is not None:
                incoming.put(END if kind == frames.END else message[2])
            else:
                self._give_up(message[1], Interrupted("the method is a stream: do not call it"))
        else:
            call = self.calls_served.get(message[1])
            if call is not None:
                if kind == frames.CANCEL:
                    call.abandon()
                elif type(message[2]) is int and message[2] > 0:
                    call.add_credit(message[2])

    def _failed(self, id_: int, error: RpcError) -> None:
        future = self._pending.get(id_)
        if future is not None and not future.done():
            future.set_exception(error)
        incoming = self._incoming(id_)
        if incoming is not None:
            incoming.put(error)

    def _incoming(self, id_: int) -> Incoming | None:
        incoming = self._streams.get(id_)
        if incoming is not None and len(incoming.items) > STREAM_WINDOW_ITEMS:
            raise frames.ProtocolError("more items than there was room for")
        return incoming

    # -- ends

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A supervised task of the runtime."""
        return self._runtime.spawn(coroutine, name)

    def report(self, error: BaseException) -> None:
        """A handler raised what it should not have: an event for whoever reads the log."""
        self.counters["handler_errors"] += 1
        self._runtime.events.emit("rpc.handler_error", error=brief(error), peer=self.peer_name)

    def abort(self, reason: str) -> None:
        """End the connection; every call still open fails as indefinite."""
        if self.closed is None:
            self._lost(Interrupted(reason))
            self._runtime.spawn(self._peer.close(1, reason[:200]), "rpc abort")

    async def close(self) -> None:
        """Say goodbye and end the connection."""
        if self.closed is None:
            self._lost(None)
            await self._peer.close()

    def _lost(self, error: Exception | None) -> None:
        if self.closed is not None:
            return
        reason = error or "closed"
        self.closed = ConnectionLost(f"the connection to {self.peer_name} ended: {reason}")
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for call in list(self.calls_served.values()):
            call.connection_lost()
        for future in self._pending.values():
            if not future.done():
                future.set_exception(self.closed)
        for incoming in self._streams.values():
            incoming.put(self.closed)
        for callback in self.on_close:
            callback(self)
