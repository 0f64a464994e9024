"""What a link does to a datagram: written once, for simulated and for live networks alike.

A LinkPolicy describes one direction of one edge; a LinkShaper applies it. The order is that of a
real path: a cut or a loss takes the datagram, then it may be damaged or doubled, then it waits
for the link to be free (rate and queue), then it travels (delay, jitter), and may be overtaken
(reorder).

    deliver | drop, also in bursts | delay and jitter | duplicate | reorder | corrupt | rate,
    queue | cut

Bursts follow Gilbert and Elliott: a good state and a bad one; `burst_begin` and `burst_end` are
the chances to change between them at each datagram, and everything sent in the bad state is lost.
The mean burst is 1 / burst_end datagrams, the mean loss burst_begin / (burst_begin + burst_end).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from netstack.runtime.endpoint import CE, NOT_ECT

if TYPE_CHECKING:
    import random

    from netstack.runtime.endpoint import Address


CHANCES = ("loss", "burst_begin", "burst_end", "duplicate", "reorder", "corrupt")
AMOUNTS = ("delay_s", "jitter_s", "reorder_s", "rate_bytes_s", "queue_bytes", "mark_bytes")

# What has become of the datagrams of a link; and of which fault: `dropped` is the sum of cut, lost,
# burst and what found no room in the queue, `delayed` and `throttled` were really held up.
COUNTS = (
    "passed", "dropped", "duplicated", "corrupted", "reordered", "marked",
    "cut", "lost", "burst", "delayed", "throttled",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LinkPolicy:
    """One direction of one edge. Probabilities lie in 0..1; the default delivers everything."""

    cut: bool = False
    loss: float = 0.0
    burst_begin: float = 0.0
    burst_end: float = 1.0
    delay_s: float = 0.0
    jitter_s: float = 0.0  # uniform in 0..jitter_s on top of the delay; order is kept
    duplicate: float = 0.0
    reorder: float = 0.0  # chance to be held back by `reorder_s`, and so overtaken
    reorder_s: float = 0.005
    corrupt: float = 0.0  # chance that one bit is flipped
    rate_bytes_s: float = 0.0  # 0: as fast as it comes
    queue_bytes: int = 64 * 1024  # what may wait for a busy link; the rest is dropped at the tail
    mark_bytes: int = 0  # beyond so much queue a packet that allows it is marked (ECN); 0: never

    def __post_init__(self) -> None:
        for name in CHANCES:
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise ValueError(f"{name} is a probability between 0 and 1, not {value!r}")
        for name in AMOUNTS:
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be 0 or more, not {value!r}")
        if type(self.cut) is not bool:
            raise ValueError(f"cut is true or false, not {self.cut!r}")

    @classmethod
    def parse(cls, values: dict[str, Any]) -> LinkPolicy:
        """A policy from a map of its fields; raises ValueError naming what it does not know."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"a link has no {unknown[0]!r}; it has {', '.join(sorted(known))}")
        return cls(**values)

    def changed(self, values: dict[str, Any]) -> LinkPolicy:
        """This policy with some fields set anew."""
        LinkPolicy.parse(values)
        return replace(self, **values)

    def describe(self) -> dict[str, Any]:
        """The fields that differ from a perfect link."""
        perfect = asdict(PERFECT)
        return {name: value for name, value in asdict(self).items() if value != perfect[name]}


PERFECT = LinkPolicy()


class LinkShaper:
    """Applies a policy to datagrams in order: says when each is to be delivered, if at all."""

    __slots__ = ("_bad", "_free_at", "_last_at", "_rng", "counts", "policy")

    def __init__(self, policy: LinkPolicy, rng: random.Random) -> None:
        self.policy = policy
        self._rng = rng
        self._bad = False
        self._free_at = 0.0
        self._last_at = 0.0
        self.counts = dict.fromkeys(COUNTS, 0)

    def shape(self, datagram: bytes, now: float) -> list[tuple[float, bytes]]:
        """(when, what) for each copy that is to arrive; empty if the datagram is lost."""
        policy, rng, counts = self.policy, self._rng, self.counts
        if cause := self._lost():
            counts["dropped"] += 1
            counts[cause] += 1
            return []
        if policy.corrupt and rng.random() < policy.corrupt:
            datagram = flip_bit(datagram, rng)
            counts["corrupted"] += 1
        departs = now
        if policy.rate_bytes_s:
            backlog = max(0.0, self._free_at - now) * policy.rate_bytes_s
            if backlog and backlog + len(datagram) > policy.queue_bytes:
                counts["dropped"] += 1
                counts["throttled"] += 1
                return []
            departs = max(now, self._free_at) + len(datagram) / policy.rate_bytes_s
            self._free_at = departs
        arrives = departs + policy.delay_s
        if policy.jitter_s:
            arrives += rng.random() * policy.jitter_s
        counts["delayed"] += arrives > departs
        arrives = max(arrives, self._last_at)
        if policy.reorder and rng.random() < policy.reorder:
            arrives += policy.reorder_s
            counts["reordered"] += 1
        else:
            self._last_at = arrives
        counts["passed"] += 1
        counts["throttled"] += departs > now
        if policy.duplicate and rng.random() < policy.duplicate:
            counts["duplicated"] += 1
            return [(arrives, datagram), (arrives, datagram)]
        return [(arrives, datagram)]

    def mark(self, mark: int, now: float) -> int:
        """The two ECN bits of a packet that joins the queue now: CE, if that is long."""
        limit = self.policy.mark_bytes
        if not limit or mark == NOT_ECT:
            return mark
        if (self._free_at - now) * self.policy.rate_bytes_s <= limit:
            return mark
        self.counts["marked"] += 1
        return CE

    def _lost(self) -> str:
        """Which fault takes it; empty if none does."""
        policy, rng = self.policy, self._rng
        if policy.cut:
            return "cut"
        if policy.burst_begin:
            chance = policy.burst_end if self._bad else policy.burst_begin
            if rng.random() < chance:
                self._bad = not self._bad
            if self._bad:
                return "burst"
        return "lost" if policy.loss > 0 and rng.random() < policy.loss else ""


def flip_bit(datagram: bytes, rng: random.Random) -> bytes:
    """The datagram with one bit changed."""
    if not datagram:
        return datagram
    position = rng.randrange(len(datagram) * 8)
    changed = bytearray(datagram)
    changed[position // 8] ^= 1 << position % 8
    return bytes(changed)


class LinkTable:
    """The policies of one node's outgoing edges, by destination; empty costs nothing."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.shapers: dict[Address, LinkShaper] = {}

    def set(self, destination: Address, policy: LinkPolicy) -> None:
        """Let datagrams to `destination` be treated so from now on."""
        if policy == PERFECT:
            self.shapers.pop(destination, None)
        elif destination in self.shapers:
            self.shapers[destination].policy = policy
        else:
            self.shapers[destination] = LinkShaper(policy, self._rng)

    def get(self, destination: Address) -> LinkPolicy:
        """The policy towards `destination`."""
        shaper = self.shapers.get(destination)
        return shaper.policy if shaper else PERFECT

    def clear(self) -> None:
        """All links perfect."""
        self.shapers.clear()

    def describe(self) -> dict[str, Any]:
        """Policy and counts of each edge that is not perfect."""
        return {
            f"{host}:{port}": shaper.policy.describe() | {"counts": dict(shaper.counts)}
            for (host, port), shaper in sorted(self.shapers.items())
        }
