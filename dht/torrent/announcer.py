"""When to call which tracker, without I/O (BEP 3, 12).

Trackers come in tiers. Each tier is shuffled once; the first that answers is moved to its front
and stays ours; a later tier is asked only if nobody before it answers. If nobody answers at all, it
begins again after 5, 10, 20 … s.

    started     the first call         completed    once, and not if we began with everything
    stopped     at the end, if any tracker knows us, after the answer to what was said before: a
                call that overtook would bring back who has left
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from dht.torrent.tracker_http import Reply

if TYPE_CHECKING:
    import random

RETRY_S: Final = 5.0
RETRY_MAX_S: Final = 300.0


class Call(NamedTuple):
    """Call this tracker, with this event."""

    url: str
    event: str


class Announcer:
    """One torrent's calls. One is under way at a time: `due`, then `answered` or `failed`."""

    def __init__(
        self, tiers: Iterable[Iterable[str]], *, complete: bool, now: float, rng: random.Random
    ) -> None:
        self._tiers = [list(tier) for tier in tiers]
        for tier in self._tiers:
            rng.shuffle(tier)
        self._at = (0, 0)
        self._next = now
        self._failures = 0  # rounds in a row in which nobody answered
        self._calling = ""
        self._known_to: str | None = None  # the tracker that knows us
        self._completed = complete  # told, or not to be told
        self._event = "started"
        self._leaving = False
        self.seeds = self.leeches = 0

    def __repr__(self) -> str:
        return f"<Announcer tracker={self._known_to} next={self._event or 'periodic'}>"

    def next_deadline(self) -> float | None:
        """When to call; None: there is no tracker, or a call is under way."""
        return None if self._calling or not self._tiers else self._next

    def due(self, now: float) -> Call | None:
        """The call to make now."""
        if self._calling or not self._tiers or now < self._next:
            return None
        if self._leaving:
            if self._known_to is None:
                return None
            self._calling = self._known_to
            return Call(self._calling, self._event or "stopped")
        tier, place = self._at
        self._calling = self._tiers[tier][place]
        event = "started" if self._calling != self._known_to else self._event
        return Call(self._calling, event)

    def answered(self, call: Call, reply: Reply, now: float) -> None:
        """It has answered."""
        if call.event == "stopped":
            self._calling, self._known_to = "", None
            return
        tier, place = self._at
        self._tiers[tier].insert(0, self._tiers[tier].pop(place))
        self._at = (0, 0)
        self._calling, self._known_to, self._failures = "", call.url, 0
        self.seeds, self.leeches = reply.seeds, reply.leeches
        if call.event == self._event:
            self._event = ""
        told = not self._event and not self._leaving
        self._next = now + reply.interval_s if told else now

    def failed(self, now: float) -> None:
        """It has not, or has said no: the next one."""
        self._calling = ""
        if self._leaving:
            self._known_to = None  # it will forget us by itself
            return
        tier, place = self._at
        if place + 1 < len(self._tiers[tier]):
            self._at = (tier, place + 1)
        elif tier + 1 < len(self._tiers):
            self._at = (tier + 1, 0)
        else:
            self._at = (0, 0)
            self._next = now + min(RETRY_MAX_S, RETRY_S * 2**self._failures)
            self._failures += 1

    def complete(self, now: float) -> None:
        """We have everything now."""
        if not self._completed:
            self._completed = True
            if self._known_to is not None or self._calling:
                self._event = "completed"
                self._next = now

    def leave(self, now: float) -> None:
        """No more calls but the last ones: `completed` if it is still to be told, and `stopped`."""
        self._leaving = True
        self._next = now

    @property
    def gone(self) -> bool:
        """We left, and no tracker that heard of us names us any more."""
        return self._leaving and not self._calling and self._known_to is None
