"""Ordered bytes: what waits to be sent, and what has arrived out of order.

A frame is owned by exactly one place at a time: the queue of its stream, or the packet that
carries it. When a packet is lost its frames return to the queue; they may leave again in other
sizes.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from typing import Final

from netstack.transport.errors import ProtocolViolation

# Pieces out of order that are kept of a stream: one for so many bytes of its window, and so many
# however small it is. Packets that are lost leave fewer; who cuts his bytes into crumbs, with gaps
# between them, would make us keep a hundred bytes for each.
PIECE_BYTES: Final = 512
PIECES_MAX: Final = 2048

# Up to this size a copy of bytes costs less than a view of them.
COPIED_MAX: Final = 2048


class SendStream:
    """One direction of a stream, at its sender."""

    __slots__ = (
        "_again",
        "_fin_queued",
        "_fresh",
        "_fresh_bytes",
        "_fresh_from",
        "buffered",
        "fin_acked",
        "fin_wanted",
        "id",
        "limit",
        "next_offset",
        "reset_code",
    )

    def __init__(self, id_: int, limit: int) -> None:
        self.id = id_
        self.limit = limit  # the peer's credit: offsets below it may be sent
        self.next_offset = 0
        self.buffered = 0  # bytes written and not yet acknowledged
        self.fin_wanted = False
        self.fin_acked = False
        self.reset_code: int | None = None
        self._fin_queued = False
        self._fresh: deque[bytes | memoryview] = deque()
        self._fresh_from = 0  # the first of them is taken up to here
        self._fresh_bytes = 0
        self._again: deque[tuple[int, bytes | memoryview, bool]] = deque()

    def __repr__(self) -> str:
        return f"<SendStream {self.id} next={self.next_offset} buffered={self.buffered}>"

    def write(self, data: bytes | memoryview, fin: bool) -> None:
        """Queue bytes behind those queued before. A view is lent: see `keep`."""
        if data:
            self._fresh.append(data)
            self._fresh_bytes += len(data)
            self.buffered += len(data)
        if fin:
            self.fin_wanted = self._fin_queued = True

    def keep(self) -> None:
        """Copy what was lent and has not left, so that its owner may write there again."""
        self._fresh = deque(bytes(data) for data in self._fresh)
        self._again = deque((offset, bytes(data), fin) for offset, data, fin in self._again)

    def has_something(self) -> bool:
        """Whether `take` would give a frame, the connection's credit aside."""
        if self.reset_code is not None:
            return False
        if self._again:
            return True
        if self._fresh_bytes:
            return self.next_offset < self.limit
        return self._fin_queued

    def take(self, room: int, credit: int) -> tuple[int, bytes | memoryview, bool] | None:
        """(offset, data, fin) of at most `room` bytes; new ones within `credit` and the limit."""
        if self._again:
            offset, data, fin = self._again.popleft()
            if len(data) > room:
                self._again.appendleft((offset + room, data[room:], fin))
                return offset, data[:room], False
            return offset, data, fin
        room = min(room, credit, self.limit - self.next_offset)
        if room <= 0 and (self._fresh_bytes or not self._fin_queued):
            return None
        data = self._gather(room)
        offset = self.next_offset
        self.next_offset += len(data)
        fin = self._fin_queued and not self._fresh_bytes
        if fin:
            self._fin_queued = False
        return offset, data, fin

    def take_full(self, size: int, count: int, credit: int) -> list[bytes | memoryview]:
        """Up to `count` pieces of exactly `size` fresh bytes, if they come from one write.

        The last bytes of a write are left to `take`, and so is whatever must be sent again.
        """
        if self._again or not self._fresh or self.reset_code is not None:
            return []
        data, start = self._fresh[0], self._fresh_from
        allowed = min(len(data) - 1 - start, credit, self.limit - self.next_offset)
        taken = min(count, allowed // size) * size
        if taken <= 0:
            return []
        self._fresh_from = start + taken
        self._fresh_bytes -= taken
        self.next_offset += taken
        whole = data if size <= COPIED_MAX else memoryview(data)
        return [whole[at : at + size] for at in range(start, start + taken, size)]

    def _gather(self, room: int) -> bytes | memoryview:
        """Up to `room` fresh bytes; each is copied once, however large the writes were."""
        fresh = self._fresh
        if not fresh:
            return b""
        start = self._fresh_from
        end = start + room
        if not start and self._fresh_bytes <= room and len(fresh) == 1:
            self._fresh_bytes = 0
            return fresh.popleft()  # one write, whole: a message
        if end < len(fresh[0]):
            self._fresh_from = end
            self._fresh_bytes -= room
            return fresh[0][start:end]
        parts = []
        left = min(room, self._fresh_bytes)
        self._fresh_bytes -= left
        while left:
            part = fresh[0][start : start + left]
            parts.append(part)
            left -= len(part)
            start += len(part)
            if start == len(fresh[0]):
                fresh.popleft()
                start = 0
        self._fresh_from = start
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def lost(self, offset: int, data: bytes | memoryview, fin: bool) -> None:
        """A frame did not arrive: send it again."""
        self._again.append((offset, data, fin))

    def acknowledged(self, data: bytes | memoryview, fin: bool) -> None:
        """A frame arrived."""
        if self.reset_code is not None:
            return
        self.buffered -= len(data)
        self.fin_acked = self.fin_acked or fin

    def reset(self, code: int) -> None:
        """Give up what is queued."""
        self.reset_code = code
        self._fresh.clear()
        self._again.clear()
        self._fresh_from = self._fresh_bytes = self.buffered = 0

    @property
    def finished(self) -> bool:
        """Whether nothing of this direction is left to do."""
        return self.reset_code is not None or (self.fin_acked and not self.buffered)


class ReceiveStream:
    """One direction of a stream, at its receiver: the buffering method of reassembly."""

    __slots__ = ("_held", "buffered", "final_size", "highest", "limit", "next_offset", "window")

    def __init__(self, window: int) -> None:
        self.window = window
        self.limit = window  # what we allowed the peer to send
        self.next_offset = 0
        self.highest = 0
        self.final_size: int | None = None
        self.buffered = 0
        self._held: list[tuple[int, bytes]] = []  # out of order, sorted by offset

    def __repr__(self) -> str:
        return f"<ReceiveStream next={self.next_offset} held={self.buffered}>"

    def receive(self, offset: int, data: bytes | memoryview, fin: bool) -> bytes | memoryview:
        """Take a frame; returns the bytes that are now in order. Raises ProtocolViolation."""
        end = offset + len(data)
        if end > self.limit:
            raise ProtocolViolation("more stream data than was allowed")
        final = self.final_size
        if (fin and final not in (None, end)) or (final is not None and end > final):
            raise ProtocolViolation("stream data beyond its end")
        if fin:
            self.final_size = end
            if self.highest > end:
                raise ProtocolViolation("stream data beyond its end")
        if end > self.highest:
            self.highest = end
        if offset == self.next_offset and not self._held:
            self.next_offset = end
            return data
        return self._reassemble(offset, bytes(data), end)  # of a view all that it is of would wait

    def _reassemble(self, offset: int, data: bytes, end: int) -> bytes:
        if data and end > self.next_offset:
            if offset < self.next_offset:
                data, offset = data[self.next_offset - offset :], self.next_offset
            insort(self._held, (offset, data))
            self.buffered += len(data)
        ready = []
        while self._held and self._held[0][0] <= self.next_offset:
            offset, data = self._held.pop(0)
            self.buffered -= len(data)
            end = offset + len(data)
            if end > self.next_offset:
                ready.append(data[self.next_offset - offset :])
                self.next_offset = end
        self._bound_held()
        return b"".join(ready)

    def reset(self, final_size: int) -> int:
        """Nothing comes any more. Returns how many of the bytes that were sent are not in order.

        Raises ProtocolViolation for an end that contradicts what came before.
        """
        known = final_size if self.final_size is None else self.final_size
        if final_size != known or not self.highest <= final_size <= self.limit:
            raise ProtocolViolation("a stream is reset beyond its end")
        missing = final_size - self.next_offset
        self.final_size = self.highest = self.next_offset = final_size
        self._held.clear()
        self.buffered = 0
        return missing

    def _bound_held(self) -> None:
        """Copies and crumbs must not pile up: once there are many, join what touches.

        Raises ProtocolViolation when that does not help.
        """
        pieces_max = max(PIECES_MAX, self.window // PIECE_BYTES)
        if self.buffered <= self.window and len(self._held) <= pieces_max:
            return
        joined: list[tuple[int, list[bytes]]] = []
        reach = 0
        for offset, data in self._held:
            end = offset + len(data)
            if not joined or offset > reach:
                joined.append((offset, [data]))
                reach = end
            elif end > reach:
                joined[-1][1].append(data[reach - offset :])
                reach = end
        self._held = [(offset, b"".join(parts)) for offset, parts in joined]
        self.buffered = sum(len(data) for _, data in self._held)
        if len(joined) > pieces_max:
            raise ProtocolViolation("a stream in too many pieces")

    @property
    def finished(self) -> bool:
        """Whether all bytes up to the end have been in order."""
        return self.final_size is not None and self.next_offset == self.final_size
