"""All streams of a connection: their ids, who may open how many, and whose turn it is to send.

Streams of the side that dialled have even ids, of the other odd ones; naming one opens all below
it, so the peer's streams are always opened in order. A stream is forgotten when both directions
are over.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from netstack.transport import frames as f
from netstack.transport.config import TransportConfig
from netstack.transport.errors import BufferFull, ProtocolViolation, TransportError
from netstack.transport.events import (
    StreamData,
    StreamOpened,
    StreamOver,
    StreamReset,
    StreamStopped,
)
from netstack.transport.flow import ReceiveCredit, SendCredit
from netstack.transport.handshake import Parameters
from netstack.transport.streams import ReceiveStream, SendStream


class StreamSet:
    """The streams of one side; events and control frames go into the connection's queues."""

    def __init__(
        self,
        config: TransportConfig,
        is_initiator: bool,
        events: list[Any],
        control: deque[tuple[int, bytes]],
    ) -> None:
        self._config = config
        self._events = events
        self._control = control
        self._sending: dict[int, SendStream] = {}
        self._receiving: dict[int, ReceiveStream] = {}
        self.sendable: dict[int, SendStream] = {}  # in the order of their turns
        self._next_local = 0 if is_initiator else 1
        self._next_remote = 1 if is_initiator else 0
        self._remote_limit = config.max_streams
        self._remote_closed = 0
        self._local_limit = 0
        self._window_of_peer = 0
        self.send_credit = SendCredit(0)
        self._receive_credit = ReceiveCredit(config.connection_window)

    def __repr__(self) -> str:
        return f"<StreamSet open={len(self._sending)} sendable={len(self.sendable)}>"

    def __len__(self) -> int:
        return len(self._sending)

    def established(self, parameters: Parameters) -> None:
        """What the peer allows is known."""
        self.send_credit = SendCredit(parameters.connection_window)
        self._window_of_peer = parameters.stream_window
        self._local_limit = parameters.max_streams

    # -- the application's calls

    @property
    def allowed(self) -> int:
        """How many streams may still be opened."""
        return self._local_limit - self._next_local // 2

    def open(self) -> int:
        """A new stream's id; raises TransportError when the peer allows no more."""
        if self.allowed <= 0:
            raise TransportError("the peer allows no more streams at the moment")
        stream_id = self._next_local
        self._next_local += 2
        self._add(stream_id)
        return stream_id

    def write(self, stream_id: int, data: bytes | memoryview, fin: bool) -> None:
        """Queue bytes on a stream; raises BufferFull, and then nothing was taken."""
        stream = self._sending.get(stream_id)
        if stream is None or stream.fin_wanted or stream.reset_code is not None:
            raise TransportError(f"stream {stream_id} is closed for writing")
        if stream.buffered + len(data) > self._config.stream_buffer:
            raise BufferFull(f"stream {stream_id} holds {stream.buffered} bytes")
        stream.write(data, fin)
        self.sendable[stream_id] = stream

    def sending(self, stream_id: int) -> SendStream | None:
        """Our direction of a stream, while it is known."""
        return self._sending.get(stream_id)

    def buffered(self, stream_id: int) -> int:
        """Bytes written to the stream and not yet acknowledged."""
        stream = self._sending.get(stream_id)
        return stream.buffered if stream is not None else 0

    def consume(self, stream_id: int, count: int) -> bool:
        """The application has taken `count` bytes: let the peer send as many more.

        Returns whether that is worth a frame: there is something to send then.
        """
        news = self._receive_credit.consume(count)
        if news:
            limit = self._receive_credit.announce()
            self._control.append((f.MAX_DATA, f.CREDIT.pack(f.MAX_DATA, limit)))
        stream = self._receiving.get(stream_id)
        if stream is None or stream.final_size is not None:
            return news
        if stream.limit - stream.next_offset <= stream.window // 2:
            stream.limit = stream.next_offset + stream.window
            frame = f.ID_CREDIT.pack(f.MAX_STREAM, stream_id, stream.limit)
            self._control.append((f.MAX_STREAM, frame))
            return True
        return news

    def reset(self, stream_id: int, code: int) -> None:
        """Give up sending on a stream."""
        stream = self._sending.get(stream_id)
        if stream is not None and not stream.finished:
            stream.reset(code)
            frame = f.RESET_HEAD.pack(f.RESET_STREAM, stream_id, code, stream.next_offset)
            self._control.append((f.RESET_STREAM, frame))
            self.forget_if_over(stream_id)

    def stop(self, stream_id: int, code: int) -> None:
        """Ask the peer to send no more on a stream."""
        if stream_id in self._receiving:
            self._control.append((f.STOP, f.ID_CODE.pack(f.STOP, stream_id, code)))

    # -- frames

    def on_stream(self, stream_id: int, offset: int, data: bytes | memoryview, fin: bool) -> None:
        """Stream bytes."""
        stream = self._receiving.get(stream_id) or self._known(stream_id)
        if stream is None:
            return
        before = stream.highest
        told = stream.final_size is not None and stream.finished
        ready = stream.receive(offset, data, fin)
        new = stream.highest - before
        if new:
            self._receive_credit.receive(new)
        ended = stream.final_size is not None and stream.finished
        if ready or (ended and not told):
            last = self._events[-1] if self._events else None
            if type(last) is StreamData and last.stream_id == stream_id:
                last.parts.append(ready)
                last.fin = ended
            else:
                self._events.append(StreamData(stream_id, [ready], ended))
        if ended:
            self.forget_if_over(stream_id)

    def on_reset(self, stream_id: int, code: int, final_size: int) -> None:
        """The peer gave up a stream, of which it had sent `final_size` bytes."""
        stream = self._known(stream_id)
        if stream is not None and not stream.finished:
            unseen = final_size - stream.highest
            missing = stream.reset(final_size)
            self._receive_credit.receive(unseen)
            self.consume(stream_id, missing)
            self._events.append(StreamReset(stream_id, code))
            self.forget_if_over(stream_id)

    def on_stop(self, stream_id: int, code: int) -> None:
        """The peer wants no more of a stream."""
        if stream_id in self._sending:
            self._events.append(StreamStopped(stream_id, code))
            self.reset(stream_id, code)

    def on_max_data(self, limit: int) -> None:
        """More credit for the connection."""
        self.send_credit.limit = max(self.send_credit.limit, limit)

    def on_max_stream(self, stream_id: int, limit: int) -> None:
        """More credit for a stream."""
        stream = self._sending.get(stream_id)
        if stream is not None and limit > stream.limit:
            stream.limit = limit
            if stream.has_something():
                self.sendable[stream_id] = stream

    def on_max_streams(self, count: int) -> None:
        """More streams may be opened."""
        self._local_limit = max(self._local_limit, count)

    # -- bookkeeping

    def _known(self, stream_id: int) -> ReceiveStream | None:
        """The stream, opened if it is the peer's and new; None if it is over."""
        stream = self._receiving.get(stream_id)
        if stream is not None:
            return stream
        if stream_id % 2 != self._next_remote % 2:
            if stream_id >= self._next_local:
                raise ProtocolViolation(f"stream {stream_id} was never opened by us")
            return None
        if stream_id // 2 >= self._remote_limit:
            raise ProtocolViolation("more streams than were allowed")
        while self._next_remote <= stream_id:
            new_id = self._next_remote
            self._next_remote += 2
            self._add(new_id)
            self._events.append(StreamOpened(new_id))
        return self._receiving.get(stream_id)

    def _add(self, stream_id: int) -> None:
        self._sending[stream_id] = SendStream(stream_id, self._window_of_peer)
        self._receiving[stream_id] = ReceiveStream(self._config.stream_window)

    def forget_if_over(self, stream_id: int) -> None:
        """Drop a stream both of whose directions are over, and let the peer open another."""
        sending = self._sending.get(stream_id)
        receiving = self._receiving.get(stream_id)
        if sending is None or receiving is None:
            return
        if not (sending.finished and receiving.finished):
            return
        del self._sending[stream_id], self._receiving[stream_id]
        self._events.append(StreamOver(stream_id))
        self.sendable.pop(stream_id, None)
        if stream_id % 2 == self._next_remote % 2:
            self._remote_closed += 1
            limit = self._remote_closed + self._config.max_streams
            if limit - self._remote_limit >= self._config.max_streams // 2:
                self._remote_limit = limit
                self._control.append((f.MAX_STREAMS, f.COUNT.pack(f.MAX_STREAMS, limit)))

    def check(self) -> None:
        """Invariants; raises AssertionError."""
        for stream in self._sending.values():
            assert stream.buffered >= 0, f"{stream!r}"
            assert stream.next_offset <= stream.limit, f"{stream!r} is beyond its credit"
        credit = self.send_credit
        assert credit.used <= credit.limit, f"{self!r}: the connection is beyond its credit"
