"""The lecture's table: what each allreduce costs by formula, and which one to choose.

    time = α·rounds + β·bytes that the busiest rank sends + γ·bytes that it adds + δ·bytes that it
           has to copy first

`table` is the oracle of the tests: what the executors count must equal it. `CostModel` is fitted at
the start (calibration.py) from a ping-pong and a local sum, and chooses for `algorithm="auto"`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from ddp.schedules.catalogue import schedule_of
from ddp.schedules.checker import count

# Those that `auto` considers: each is best for some size and number of ranks.
CANDIDATES: Final = (
    "recursive-doubling",
    "halving-doubling",
    "double-tree",
    "ring",
    "sharded-server",
)


class Row(NamedTuple):
    """Costs by formula, for P ranks; bytes in units of N, the vector's."""

    rounds: int
    sent_max: float
    sent_mean: float
    fan_in: int


def table(algorithm: str, size: int) -> Row | None:
    """The row of `algorithm`; None where there is none: the double tree has bounds, and two of
    them want P to be a power of two."""
    p, logarithm = size, size.bit_length() - 1
    if p == 1:
        return Row(0, 0.0, 0.0, 0)
    share = 2 * (p - 1) / p
    if algorithm == "parameter-server":
        return Row(2, p - 1, share, p - 1)
    if algorithm == "dedicated-server":  # of p ranks, p - 1 are workers
        return Row(2, p - 1, share, p - 1)
    if algorithm == "sharded-server":
        return Row(2, share, share, p - 1)
    if algorithm == "naive-serial":
        return Row(p * (p - 1), p - 1, p - 1, 1)
    if algorithm == "naive-shift":
        return Row(p - 1, p - 1, p - 1, 1)
    if algorithm == "ring":
        return Row(2 * (p - 1), share, share, 1)
    if algorithm == "hierarchical":
        return _pairs(p)
    if p & (p - 1) == 0:
        if algorithm == "recursive-doubling":
            return Row(logarithm, logarithm, logarithm, 1)
        if algorithm == "halving-doubling":
            return Row(2 * logarithm, share, share, 1)
    return None


def _pairs(p: int) -> Row:
    """Hierarchical on hosts of two; with a rank alone on the last one only leaders talk."""
    hosts, share = -(-p // 2), 2 * (p - 1) / p
    if p % 2 == 0:
        return Row(2 + 2 * (hosts - 1), share, share, 1)
    return Row(2 + 2 * (hosts - 1), 1 + 2 * (hosts - 1) / hosts, share, 1)


def tree_bounds(size: int) -> Row:
    """Of the double tree: rounds and the mean exactly, bytes and fan-in at most."""
    return Row(2 * (size.bit_length() - 1), 2.0, 2 * (size - 1) / size, 2)


@dataclass(frozen=True, slots=True)
class CostModel:
    """α seconds a message, β seconds a byte sent, γ a byte added, δ a byte copied to new memory."""

    alpha: float
    beta: float
    gamma: float
    delta: float

    def __str__(self) -> str:
        return (
            f"α {self.alpha * 1e6:.1f} µs a message, 1/β {1e-9 / max(self.beta, 1e-15):.2f} GB/s, "
            f"1/γ {1e-9 / max(self.gamma, 1e-15):.2f} GB/s added, "
            f"1/δ {1e-9 / max(self.delta, 1e-15):.2f} GB/s copied"
        )

    def seconds(self, algorithm: str, size: int, nbytes: int) -> float:
        """What the model expects of one allreduce."""
        messages, sent, added, copied = _shape(algorithm, size)
        each = self.beta * sent + self.gamma * added + self.delta * copied
        return self.alpha * messages + each * nbytes

    def choose(self, size: int, nbytes: int, among: tuple[str, ...] = CANDIDATES) -> str:
        """The algorithm expected to be fastest."""
        return min(among, key=lambda algorithm: self.seconds(algorithm, size, nbytes))

    def explain(self, size: int, nbytes: int, among: tuple[str, ...] = CANDIDATES) -> str:
        """All candidates with what is expected of them, the chosen one first."""
        expected = sorted((self.seconds(a, size, nbytes), a) for a in among)
        return ", ".join(f"{name} {seconds * 1e6:.0f} µs" for seconds, name in expected)


@lru_cache(maxsize=1024)
def _shape(algorithm: str, size: int) -> tuple[int, float, float, float]:
    """Messages one behind the other; and as shares of the vector: what the busiest rank sends, what
    who adds most adds, and what the busiest has to copy, since it is overwritten too soon.

    Those that arrive at one rank in one round are one behind the other there.
    """
    schedule = schedule_of("allreduce", algorithm, size)
    cost = count(schedule, schedule.chunks)
    messages = cost.rounds if cost.fan_in <= 2 else cost.rounds * cost.fan_in
    busiest = cost.sent.index(cost.sent_max)
    lasting = schedule.lasting(busiest)
    copied = sum(
        t.hi - t.lo
        for number, transfers in enumerate(schedule.rounds)
        for t in transfers
        if t.src == busiest and (number, t.dst, t.lo) not in lasting
    )
    shares = (cost.sent_max, max(cost.added), copied)
    sent, added, copied_share = (share / schedule.chunks for share in shares)
    return messages, sent, added, copied_share


# Before anything is measured: a message in 60 µs, 1 GB/s sent, 5 GB/s added, 2 GB/s copied.
UNMEASURED: Final = CostModel(60e-6, 1e-9, 0.2e-9, 0.5e-9)
