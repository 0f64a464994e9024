"""Messages between two ranks: send and receive, matched by tag in the order of sending.

A send is over when the message is whole at the other rank, whether or not that has asked for it
yet; so two ranks may both send first. A message that is received as something else than it was
sent (type, count) is a Mismatch, for both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np

from ddp.call import Call
from ddp.elements import TYPES, Array
from ddp.errors import BadCall, Corrupted, DdpError, Mismatch, RankLate
from ddp.frames import SEGMENT_BYTES, Frame, Type

if TYPE_CHECKING:
    from ddp.engine import Engine

# Messages that may lie here unasked for, from one rank.
UNASKED_MAX: Final = 1024


class Message:
    """A send or a receive under way."""

    def __init__(self, call: Call, peer: int, tag: int, vector: Array, deadline: float) -> None:
        self.call, self.peer, self.tag, self.vector = call, peer, tag, vector
        self.deadline = deadline
        self.error: DdpError | None = None
        self.ended = False
        self.on_end: Callable[[Message], None] | None = None

    def __repr__(self) -> str:
        return f"<Message peer={self.peer} tag={self.tag} {self.call.count} × {self.call.dtype}>"

    def end(self, error: DdpError | None) -> None:
        """It is over."""
        if not self.ended:
            self.ended, self.error = True, error
            if self.on_end is not None:
                self.on_end(self)


def message_call(dtype: str, count: int) -> Call:
    """What a message says of itself."""
    return Call("message", "ring", "sum", dtype, count)


class Mailbox:
    """All messages of one rank."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._next: dict[int, int] = {}  # by destination
        self._sending: dict[tuple[int, int], Message] = {}  # by (peer, number)
        self._arriving: dict[int, list[Frame]] = {}  # by source
        self._arrived: dict[tuple[int, int], deque[tuple[Call, bytes]]] = {}  # by (source, tag)
        self._asked: dict[tuple[int, int], deque[Message]] = {}

    def __repr__(self) -> str:
        return f"<Mailbox sending={len(self._sending)} asked={sum(map(len, self._asked.values()))}>"

    def send(self, vector: Array, dtype: str, dst: int, tag: int, deadline: float) -> Message:
        """Send to `dst`."""
        self._check(dst)
        message = Message(message_call(dtype, len(vector)), dst, tag, vector, deadline)
        number = self._next[dst] = self._next.get(dst, -1) + 1
        self._sending[dst, number] = message
        data = vector.view(np.uint8)
        self._engine.counters["sent_bytes"] += len(data)
        for offset in range(0, max(len(data), 1), SEGMENT_BYTES):
            piece = data[offset : offset + SEGMENT_BYTES].tobytes()
            frame = Frame(
                Type.SEND, self._engine.epoch, number, message.call,
                lo=tag, offset=offset, payload=piece,
            )  # fmt: skip
            self._engine.emit(dst, frame)
        return message

    def ask(self, vector: Array, dtype: str, src: int, tag: int, deadline: float) -> Message:
        """Receive from `src` into `vector`."""
        self._check(src)
        message = Message(message_call(dtype, len(vector)), src, tag, vector, deadline)
        self._asked.setdefault((src, tag), deque()).append(message)
        return message

    def match(self, src: int, tag: int, now: float) -> None:
        """Hand over what is both here and asked for."""
        arrived = self._arrived.get((src, tag), deque())
        asked = self._asked.get((src, tag), deque())
        while arrived and asked:
            (call, data), message = arrived.popleft(), asked.popleft()
            if call != message.call:
                rank = self._engine.rank
                error = Mismatch(
                    f"rank {src} sent {call.count} × {call.dtype} to rank {rank} under tag {tag}, "
                    f"which asked for {message.call.count} × {message.call.dtype}"
                )
                message.end(error)
                self._engine.fail(error, now)
                return
            message.vector[...] = np.frombuffer(data, TYPES[call.dtype])
            message.end(None)

    def receive(self, src: int, frame: Frame, now: float) -> None:
        """A frame of a message; raises Corrupted."""
        if frame.type is Type.TAKEN:
            message = self._sending.pop((src, frame.sequence), None)
            if message is not None:
                message.end(None)
            return
        frames = self._arriving.setdefault(src, [])
        frames.append(frame)
        size = sum(len(f.payload) for f in frames)
        if size < frame.call.nbytes:
            return
        del self._arriving[src]
        if size != frame.call.nbytes or any(f.sequence != frame.sequence for f in frames):
            raise Corrupted(f"a message of rank {src} came in pieces that do not fit")
        waiting = self._arrived.setdefault((src, frame.lo), deque())
        if len(waiting) >= UNASKED_MAX:
            raise Corrupted(f"{UNASKED_MAX} messages of rank {src} were not received")
        waiting.append((frame.call, b"".join(f.payload for f in frames)))
        taken = Frame(Type.TAKEN, self._engine.epoch, frame.sequence, frame.call)
        self._engine.emit(src, taken)
        self.match(src, frame.lo, now)

    def lost(self, rank: int, error: DdpError) -> None:
        """Nothing comes from `rank`, or goes there, any more."""
        self.fail(error, only=rank)

    def fail(self, error: DdpError, only: int | None = None) -> None:
        """Messages to and from `only` (None: all) are over."""
        ending = [key for key in self._sending if only in (None, key[0])]
        for key in ending:
            self._sending.pop(key).end(error)
        for (src, _), messages in self._asked.items():
            while messages and only in (None, src):
                messages.popleft().end(error)

    def expire(self, now: float) -> None:
        """Fail what is past its deadline."""
        late = [m for m in self._sending.values() if m.deadline <= now]
        late += [m for messages in self._asked.values() for m in messages if m.deadline <= now]
        if late:
            message = late[0]
            verb = "taken" if message in self._sending.values() else "sent"
            error = RankLate(f"rank {message.peer} has not {verb} {message!r} in time")
            message.end(error)
            self._engine.fail(error, now)

    def _check(self, peer: int) -> None:
        engine = self._engine
        if engine.broken is not None:
            raise engine.broken
        if not 0 <= peer < engine.size or peer == engine.rank:
            raise BadCall(f"rank {peer} is no other rank of this group of {engine.size}")
