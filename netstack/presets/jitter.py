"""Segments that were sent in step and arrive out of step are played in step again.

    sent       0   1   2   3   4   5                 one each headway
    arrive         0  12     3     54                delays between D_short and D_long
    played                 0   1   2   3   4   5     one each headway again
                   |<----->|
                   segments × headway: what the first one waits

Saltzer and Kaashoek (Principles of Computer System Design, §7.5.7): the buffer must hold

    segments = ceil((D_long - D_short) / D_headway)

The lecture's notes divide by the "mean delay". It is the headway that belongs there, the mean gap
between two arrivals: the numerator says how long the first segment must wait so that the slowest
still comes in time, and one segment comes each headway meanwhile. A path from here to the Moon has
a huge mean delay; if all its delays are alike it needs no buffer at all.

The first segment to arrive, with a delay d, is played `segments` headways later; so any other
is in time exactly if its delay is at most d + segments × headway. The worst case is d = D_short
before D_long: then the formula is enough, and one segment less is not.

Times are integers in ticks of the media clock (8,000 a second for telephony), so that a boundary is
a boundary. At most 2 × segments are held, as long as the delays are what the buffer was sized
for. The sender's clock is taken to run as fast as the receiver's.
"""

from __future__ import annotations

from typing import Final, NamedTuple

# Slots in a row with nothing to play after which play-out ends: the stream is over, or its delays
# have changed for good. 50 are one second of 20 ms segments. The next arrival begins anew.
STALL_SLOTS: Final = 50

# How far ahead of the play-out a segment is kept: bounds the memory, whatever the sender does.
AHEAD_MAX: Final = 1_000

# Concealed slots that are remembered, to tell a late segment from a second copy.
MISSED_MAX: Final = 1_000


def segments_needed(longest: int, shortest: int, headway: int) -> int:
    """The smallest buffer that never runs dry, for delays in shortest..longest (any unit).

    Raises ValueError for numbers that describe no path.
    """
    if not 0 <= shortest <= longest or headway <= 0:
        raise ValueError(
            f"delays of {shortest} to {longest} each {headway} make no sense: "
            "0 <= shortest <= longest, and a headway above 0"
        )
    return -((shortest - longest) // headway)


class Slot(NamedTuple):
    """What is to be played, and when."""

    sequence: int
    due: int
    payload: bytes | None  # None: nothing is there, and whoever plays conceals it


class JitterBuffer:
    """Play-out of one stream, `segments` headways after its first arrival.

        buffer.receive(index, payload, now)      in any order
        buffer.next_deadline()                   when to call play; None while nothing is due
        buffer.play(now)                         the slots that are due, in order

    A segment that comes when its slot has been concealed is late, and dropped: an under-run. One
    that never comes leaves a gap too: `concealed` counts both, `late` those that came after all.

    Args:
        segments: how many headways the first segment waits.
        headway: ticks between two segments at the sender.
    """

    def __init__(self, segments: int, headway: int) -> None:
        if segments < 0 or headway <= 0:
            raise ValueError(f"{segments} segments each {headway} ticks make no buffer")
        self.segments = segments
        self.headway = headway
        self.played = 0
        self.concealed = 0
        self.late = 0
        self.unwanted = 0  # copies, and segments from before the first that is played
        self.refused = 0  # too far ahead
        self._held: dict[int, bytes] = {}
        self._missed: dict[int, None] = {}  # concealed, the oldest first
        self._next = 0  # the slot to be played next
        self._due: int | None = None  # and when; None while nothing is played
        self._begun = False  # whether a slot has been played since the beginning
        self._silent = 0  # slots in a row that were concealed

    def __repr__(self) -> str:
        return (
            f"<JitterBuffer {len(self._held)} held next={self._next} played={self.played} "
            f"concealed={self.concealed} late={self.late}>"
        )

    def __len__(self) -> int:
        return len(self._held)

    def receive(self, index: int, payload: bytes, now: int) -> None:
        """The segment of slot `index` arrives."""
        if self._due is None and (index >= self._next or index in self._missed):
            self._begin(index, now)
        elif not self._begun and index < self._next:
            self._begin_earlier(index, now)
        if index < self._next:
            self._come_late(index)
        elif index in self._held:
            self.unwanted += 1
        elif index - self._next > AHEAD_MAX:
            self.refused += 1
        else:
            self._held[index] = payload

    def _begin(self, index: int, now: int) -> None:
        self._next, self._due = index, now + self.segments * self.headway
        self._begun, self._silent = False, 0

    def _begin_earlier(self, index: int, now: int) -> None:
        """One that was sent before the first to arrive: it is played, if its time is to come."""
        if self._due is not None:
            due = self._due - (self._next - index) * self.headway
            if due >= now:
                self._next, self._due = index, due

    def _come_late(self, index: int) -> None:
        if index in self._missed:
            del self._missed[index]
            self.late += 1
        else:
            self.unwanted += 1

    def next_deadline(self) -> int | None:
        """When the next slot is due."""
        return self._due

    def play(self, now: int) -> list[Slot]:
        """All slots that are due by `now`, in order."""
        slots = []
        while self._due is not None and self._due <= now:
            slots.append(self._play_next(self._due))
        return slots

    def _play_next(self, due: int) -> Slot:
        index = self._next
        payload = self._held.pop(index, None)
        if payload is None:
            self._conceal(index)
        else:
            self.played += 1
            self._silent = 0
        self._begun = True
        self._next, self._due = index + 1, due + self.headway
        if self._silent >= STALL_SLOTS and not self._held:
            self._due = None
        return Slot(index, due, payload)

    def _conceal(self, index: int) -> None:
        self.concealed += 1
        self._silent += 1
        self._missed[index] = None
        if len(self._missed) > MISSED_MAX:
            del self._missed[next(iter(self._missed))]


class JitterEstimate:
    """The interarrival jitter of RFC 3550 (§6.4.1, A.8): what a receiver reports to its sender.

    With D the difference between two segments' transit times, J += (|D| - J) / 16: a mean that
    follows the newest dozen or two. It smooths, so it says how restless a path is, and not how
    large a buffer must be: that is what `spread` says, the longest transit less the shortest. The
    clocks of both ends need not agree, since only differences count.
    """

    def __init__(self) -> None:
        self._scaled = 0  # 16 × J, as in A.8: so that rounding does not pile up
        self._last: int | None = None
        self._shortest = self._longest = 0

    def __repr__(self) -> str:
        return f"<JitterEstimate {self.jitter} spread={self.spread}>"

    @property
    def jitter(self) -> int:
        """J, in ticks."""
        return self._scaled >> 4

    @property
    def spread(self) -> int:
        """D_long - D_short as seen so far, in ticks."""
        return self._longest - self._shortest

    def segments_needed(self, headway: int) -> int:
        """What the formula says of the path as seen so far."""
        return segments_needed(self.spread, 0, headway)

    def receive(self, timestamp: int, now: int) -> None:
        """A segment of this media time (not wrapped) arrives; `now` in ticks of any origin."""
        transit = now - timestamp
        if self._last is None:
            self._shortest = self._longest = transit
        else:
            self._scaled += abs(transit - self._last) - ((self._scaled + 8) >> 4)
        self._last = transit
        self._shortest = min(self._shortest, transit)
        self._longest = max(self._longest, transit)
