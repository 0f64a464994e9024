"""What all receivers have in common: deliver in order, once, and answer every segment.

                 ┌─ before next_index ──► came already: counted, answered again
    segment ──►──┼─ next_index ─────────► to the application, and all held behind it
                 └─ after it ───────────► _out_of_order(): the one difference

    segments   0 1 2 3 4 5 6 7
               ━━━━━   ──   ─
            delivered   held        next_index = 3: what is held waits in memory for it

A receiver differs from another in what it does with a segment that comes before its turn (lecture
19, item 24). The memory it waits in is the system's, shared by all applications, so it has a
limit, and `high_water_bytes` tells how much of it was ever needed at once.

Even a segment that is not taken is answered: the last answer may have been lost, and a sender who
hears nothing sends for ever, or gives up.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from netstack.arq.segment import WINDOW_MAX, Ack, Answer, Segment

BUFFER_BYTES = 1 << 20


class Receiver(ABC):
    """One message on its way in: the first whose segment is received.

    Args:
        buffer_bytes: how much may wait for its turn.
    """

    def __init__(self, buffer_bytes: int = BUFFER_BYTES) -> None:
        if buffer_bytes < 0:
            raise ValueError(f"a buffer has 0 bytes or more, not {buffer_bytes}")
        self.buffer_bytes = buffer_bytes
        self.message: int | None = None
        self.count = 0  # of its segments; 0 until the first has come
        self.next_index = 0
        self.held_bytes = 0
        self.high_water_bytes = 0
        self.received = 0  # segments of this message, duplicates among them
        self.duplicates = 0
        self.dropped = 0  # came before their turn and were not kept, or were thrown away later
        self._held: dict[int, bytes] = {}
        self._answers = 0
        self._outputs: list[Answer] = []
        self._delivered: list[bytes] = []

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} message {self.message}: {self.next_index} of {self.count} "
            f"delivered, {len(self._held)} held>"
        )

    @property
    def done(self) -> bool:
        """Whether all of the message was delivered."""
        return 0 < self.count == self.next_index

    @abstractmethod
    def _out_of_order(self, segment: Segment) -> None:
        """Keep a segment whose turn has not come (`_hold`), or do not (`_drop`)."""

    # -- events

    def receive(self, segment: Segment) -> None:
        """Take a segment; one of another message changes nothing, and is not answered."""
        if self.message is None:
            self.message, self.count = segment.message, segment.count
        if (segment.message, segment.count) != (self.message, self.count):
            return
        self.received += 1
        index = segment.index
        if index < self.next_index or index in self._held:
            self._duplicate(index)
        elif index == self.next_index:
            self._deliver(segment.payload)
        elif index > self.next_index + WINDOW_MAX:
            self._drop()
        else:
            self._out_of_order(segment)
        self._answer(index)

    def take_outputs(self) -> list[Answer]:
        """What is to be sent, in this order."""
        outputs, self._outputs = self._outputs, []
        return outputs

    def take_data(self) -> bytes:
        """What the application gets: the bytes of the message, in order, each once."""
        data = b"".join(self._delivered)
        self._delivered.clear()
        return data

    def check(self) -> None:
        """Raises AssertionError if the books do not agree."""
        assert self.held_bytes == sum(map(len, self._held.values())), repr(self)
        assert self.held_bytes <= self.buffer_bytes, f"{self!r}: more than {self.buffer_bytes}"
        assert self.held_bytes <= self.high_water_bytes, repr(self)
        assert all(self.next_index < i < self.count for i in self._held), repr(self)

    # -- what they mean

    def _deliver(self, payload: bytes) -> None:
        self._delivered.append(payload)
        self.next_index += 1
        while (waiting := self._held.pop(self.next_index, None)) is not None:
            self.held_bytes -= len(waiting)
            self._delivered.append(waiting)
            self.next_index += 1

    def _has_room(self, segment: Segment) -> bool:
        return self.held_bytes + len(segment.payload) <= self.buffer_bytes

    def _hold(self, segment: Segment) -> None:
        self._held[segment.index] = segment.payload
        self.held_bytes += len(segment.payload)
        self.high_water_bytes = max(self.high_water_bytes, self.held_bytes)

    def _drop(self) -> None:
        self.dropped += 1

    def _duplicate(self, index: int) -> None:
        self.duplicates += 1

    def _answer(self, index: int) -> None:
        assert self.message is not None
        held = tuple(sorted(self._held))
        self._outputs.append(Ack(self.message, self._answers, index, self.next_index, held))
        self._answers += 1
