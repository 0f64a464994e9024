"""What all senders have in common: what is under way, until when to wait for it, when to give up.

             unsent ──► _limit() ──► under way ──► acknowledged
                        (the one      │      ▲
                         difference)  └──────┘ time-out or NAK: again

    segments   0 1 2 3 4 5 6 7 8 9
               ━━━━━ ─────────
               done  under way     next_index = 3, unsent = 8

A sender differs from another in one method, `_limit`: how far it may go before it hears more.
Everything else is here, and this is how it must be:

- One timer for all (RFC 6298 §5): it starts anew when the receiver has got further, or when
  something is sent again. If it runs out, what the receiver holds shows what is lost: all that
  was overtaken. If it holds nothing, that is all that is under way ("go back N").
- Only `next_index` of an Ack frees a segment. What the receiver merely holds it may yet drop
  (RFC 2018 §8).
- Karn's rule: an Ack for a segment that was sent twice does not say which of the two it answers,
  so it is no measurement; and a time-out that was doubled stays so until there is one (Karn and
  Partridge, 1987). Without the second half, a path that has become slower than the time-out would
  never be measured again.
- A NAK is obeyed unless it must have been sent before the last transmission came through: sooner
  than any answer ever came, it speaks of an earlier one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from netstack.arq.errors import GaveUp
from netstack.arq.segment import WINDOW_MAX, Ack, Answer, Nak, Segment
from netstack.transport.rtt import RttEstimator

# With a time-out that doubles each time, this lasts as long as 63 of the first.
TRIES_MAX: Final = 6

# RFC 6298 (2.1): wait a second, until there is a measurement. An estimator that starts from a
# third of it does: it adds four times the variation, which begins as half of the round trip.
INITIAL_RTT_S: Final = 1 / 3


@dataclass(slots=True)
class Flight:
    """A segment under way."""

    sent_at: float
    tries: int = 1
    answered: bool = False


class Sender(ABC):
    """One message on its way out. `start`, then `receive` and `on_deadline` until `done`.

    Args:
        segments: all of the message, as `cut` makes them.
        window: how many segments may be under way, 1 to WINDOW_MAX.
        timer: how long to wait for an answer; by default as in RFC 6298.
        tries_max: transmissions in a row without progress before giving up.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        window: int,
        *,
        timer: RttEstimator | None = None,
        tries_max: int = TRIES_MAX,
    ) -> None:
        if not 1 <= window <= WINDOW_MAX:
            raise ValueError(f"a window has 1 to {WINDOW_MAX} segments, not {window}")
        if tries_max < 1:
            raise ValueError(f"a segment must be sent once at least, not {tries_max} times")
        self.segments = segments
        self.message = segments[0].message
        self.window = window
        self.timer = timer or RttEstimator(INITIAL_RTT_S)
        self.tries_max = tries_max
        self.next_index = 0  # all before it are with the receiving application
        self.unsent = 0  # this one and all after it were never sent
        self.tries = 1  # in a row, without progress
        self.back_off = 0  # how often the time-out is doubled
        self.gave_up: GaveUp | None = None
        self.bytes_sent = 0  # payload
        self.bytes_sent_again = 0
        self.timeouts = 0
        self._deadline: float | None = None
        self._flights: dict[int, Flight] = {}  # next_index <= index < unsent
        self._held: frozenset[int] = frozenset()  # by the receiver, as it last said
        self._newest_ack = -1
        self._outputs: list[Segment] = []

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} message {self.message}: {self.next_index} of "
            f"{len(self.segments)} done, {len(self._flights)} under way>"
        )

    @property
    def done(self) -> bool:
        """Whether all of the message is acknowledged."""
        return self.next_index == len(self.segments)

    @abstractmethod
    def _limit(self) -> int:
        """One past the last segment that may be sent now."""

    # -- events

    def start(self, now: float) -> None:
        """Send what may be sent unheard."""
        self._fill(now)

    def receive(self, answer: Answer, now: float) -> None:
        """Take an answer; what is old, impossible or another message's changes nothing."""
        if self.done or self.gave_up or answer.message != self.message:
            return
        if isinstance(answer, Nak):
            for index in answer.missing:
                self._asked_for(index, now)
            return
        self._measure(answer.answers, now)
        end = answer.held[-1] + 1 if answer.held else answer.next_index
        if answer.number > self._newest_ack and end <= self.unsent:
            self._newest_ack = answer.number
            self._held = frozenset(answer.held)
            if answer.next_index > self.next_index:
                self._acknowledged(answer, now)

    def on_deadline(self, now: float) -> None:
        """Nothing has moved for the time-out: send what is lost again; raises GaveUp."""
        if self._deadline is None or now < self._deadline:
            return
        if self.tries >= self.tries_max:
            self._deadline = None
            self.gave_up = GaveUp(self.message, self.next_index, len(self.segments), self.tries)
            raise self.gave_up
        self.tries += 1
        self.timeouts += 1
        self.back_off += 1
        end = max(self._held, default=self.unsent)
        for index in range(self.next_index, end):
            if index not in self._held:
                self._again(index, now)

    def next_deadline(self) -> float | None:
        """When to call `on_deadline`."""
        return self._deadline

    def take_outputs(self) -> list[Segment]:
        """What is to be sent, in this order."""
        outputs, self._outputs = self._outputs, []
        return outputs

    def check(self) -> None:
        """Raises AssertionError if the books do not agree."""
        assert 0 <= self.next_index <= self.unsent <= len(self.segments), repr(self)
        assert self.unsent - self.next_index <= self.window, f"{self!r}: window {self.window}"
        assert list(self._flights) == list(range(self.next_index, self.unsent)), repr(self)
        waits = self._deadline is not None
        assert waits == bool(self._flights and not self.gave_up), f"{self!r}: timer {waits}"

    # -- what they mean

    def _acknowledged(self, ack: Ack, now: float) -> None:
        for index in range(self.next_index, ack.next_index):
            del self._flights[index]
        self.next_index = ack.next_index
        self.tries = 1
        self._fill(now)

    def _measure(self, index: int, now: float) -> None:
        flight = self._flights.get(index)
        if flight is None or flight.answered or flight.tries > 1:
            return
        flight.answered = True
        self.timer.sample(now - flight.sent_at)
        self.back_off = 0

    def _asked_for(self, index: int, now: float) -> None:
        flight = self._flights.get(index)
        if flight is None or index in self._held or flight.tries >= self.tries_max:
            return
        if not self.timer.samples or now - flight.sent_at >= self.timer.minimum:
            self._again(index, now)

    def _fill(self, now: float) -> None:
        limit = min(self._limit(), len(self.segments))
        for index in range(self.unsent, limit):
            self._flights[index] = Flight(now)
            self._put(self.segments[index])
        self.unsent = max(self.unsent, limit)
        self._restart_timer(now)

    def _again(self, index: int, now: float) -> None:
        flight, segment = self._flights[index], self.segments[index]
        flight.tries += 1
        flight.sent_at = now
        self.bytes_sent_again += len(segment.payload)
        self._put(segment)
        self._restart_timer(now)

    def _put(self, segment: Segment) -> None:
        self.bytes_sent += len(segment.payload)
        self._outputs.append(segment)

    def _restart_timer(self, now: float) -> None:
        self._deadline = now + self.timer.rto(self.back_off) if self._flights else None
