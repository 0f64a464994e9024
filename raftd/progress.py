"""What a leader knows of one follower's log, and what it may send (etcd's three states).

PROBE       one AppendEntries at a time, to find where the logs agree
REPLICATE   pipelined: next_index runs ahead of match_index, up to max_inflight messages
SNAPSHOT    what it needs is compacted: chunks, then PROBE behind the snapshot
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

PROBE, REPLICATE, SNAPSHOT = "probe", "replicate", "snapshot"


@dataclass(slots=True)
class Progress:
    """One follower, as its leader sees it."""

    next_index: int
    match_index: int = 0
    state: str = PROBE
    paused: bool = False  # PROBE: an AppendEntries is under way
    inflight: deque[int] = field(default_factory=deque)  # last index of each message under way
    advanced_at: float = 0.0  # when match last grew or something was first sent
    heard_at: float = float("-inf")  # when it last answered anything
    repeats: int = 0  # how often something was sent again since it last answered anything new
    read_context: int = 0  # highest heartbeat context it has answered
    snapshot_index: int = 0
    snapshot_offset: int = 0  # acknowledged
    snapshot_wanted: int = 0  # as of its last reply: lower again if it was restarted
    snapshot_sent: int = 0

    def __repr__(self) -> str:
        return f"<Progress {self.state} match={self.match_index} next={self.next_index}>"

    def may_send(self, max_inflight: int) -> bool:
        """Whether another AppendEntries may leave now."""
        if self.state == REPLICATE:
            return len(self.inflight) < max_inflight
        return self.state == PROBE and not self.paused

    def sent(self, last_index: int, now: float) -> None:
        """An AppendEntries with entries up to `last_index` has left."""
        if self.state == REPLICATE:
            if not self.inflight:
                self.advanced_at = now
            self.inflight.append(last_index)
            self.next_index = last_index + 1
        else:
            self.paused = True
            self.advanced_at = now

    def accepted(self, index: int, now: float) -> bool:
        """The follower holds everything up to `index`; True if that is news."""
        inflight = self.inflight
        while inflight and inflight[0] <= index:
            inflight.popleft()
        news = index > self.match_index
        if news:
            self.repeats = 0
            self.match_index = index
            self.advanced_at = now
        self.next_index = max(self.next_index, index + 1)
        if self.state == PROBE or (
            self.state == SNAPSHOT and self.match_index >= self.snapshot_index
        ):
            self._become(REPLICATE)
            self.next_index = self.match_index + 1
        return news

    def refused(self, prev_index: int, next_index: int) -> bool:
        """The follower's log does not agree at `prev_index`; False for a refusal of long ago."""
        self.repeats = 0
        if self.state == REPLICATE:
            if prev_index <= self.match_index:
                return False
            self.back_to_probe()
            return True
        if self.state == SNAPSHOT or prev_index != self.next_index - 1:
            return False
        self.next_index = max(min(prev_index, next_index), self.match_index + 1)
        self.paused = False
        return True

    def back_to_probe(self) -> None:
        """Something was lost: find out where the follower stands."""
        self._become(PROBE)
        self.next_index = self.match_index + 1

    def start_snapshot(self, index: int, now: float) -> None:
        """Send the snapshot at `index` from its beginning."""
        self._become(SNAPSHOT)
        self.snapshot_index = index
        self.snapshot_offset = self.snapshot_sent = self.snapshot_wanted = 0
        self.advanced_at = now

    def _become(self, state: str) -> None:
        self.state = state
        self.paused = False
        self.inflight.clear()
