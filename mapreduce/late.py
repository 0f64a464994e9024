"""Which late task gets a second copy: LATE (Zaharia et al., OSDI'08 §4), on any number of tasks.

The copy goes to the attempt that is expected to end last, `(1 - fraction) / rate`, if

    it has been running for a while                              AGE_S_MIN
    it progresses more slowly than three quarters of its kind    SLOW_TASK
    a fresh copy would end before it, as far as one knows        GAIN
    few copies run already                                       CAP of all slots, one at least
    somebody who is not slow himself has room                    SLOW_NODE

The paper's experiment behind it: a sort took 44 % longer without (OSDI'04 §5.4).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

# Younger attempts have not shown yet how fast they are.
AGE_S_MIN: Final = 1.0
SLOW_TASK: Final = 0.25
SLOW_NODE: Final = 0.25
CAP: Final = 0.1
# A copy must be expected to end this many times sooner than what it copies: else it only costs.
GAIN: Final = 1.25

# One that shows no progress at all may have one long step: it is late after so many fresh ones.
PATIENCE: Final = 2.0


@dataclass(frozen=True, slots=True)
class Running:
    """One attempt: where it runs, how far it is (0 to 1), and for how long it has run."""

    attempt: str
    worker: str
    fraction: float
    age_s: float
    copied: bool

    @property
    def rate(self) -> float:
        """Of the whole task, a second."""
        return self.fraction / self.age_s if self.age_s > 0 else 0.0

    @property
    def left_s(self) -> float:
        """Until it ends, if it goes on so."""
        return (1 - self.fraction) / self.rate if self.rate > 0 else float("inf")


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values are."""
    return sorted(values)[int(len(values) * share)]


def choose(
    running: Sequence[Running],
    finished_s: Mapping[str, Sequence[float]],
    free: Sequence[str],
    slots: int,
) -> tuple[Running, str] | None:
    """The attempt to copy, and the worker to run the copy; None if there is nothing to gain.

    running: attempts of one kind of one job. finished_s: by worker, how long its finished tasks of
    that kind took. free: workers with room. slots: of all workers together.
    """
    durations = [s for times in finished_s.values() for s in times]
    if not durations or not free:
        return None
    if sum(r.copied for r in running) // 2 >= max(1, int(slots * CAP)):
        return None
    rates = [r.rate for r in running] + [1 / max(s, 1e-9) for s in durations]
    slow = percentile(rates, SLOW_TASK)
    fresh_s = statistics.median(durations)
    late = [
        r
        for r in running
        if not r.copied
        and r.age_s >= max(AGE_S_MIN, 0 if r.fraction else PATIENCE * fresh_s)
        and r.rate <= slow
        and r.left_s > GAIN * fresh_s
    ]
    for candidate in sorted(late, key=lambda r: (-r.left_s, r.attempt)):
        for worker in free:
            if worker != candidate.worker and not _is_slow(worker, running, finished_s):
                return candidate, worker
    return None


def _is_slow(
    name: str, running: Sequence[Running], finished_s: Mapping[str, Sequence[float]]
) -> bool:
    """Whether a worker is among the slow quarter; one that is not known is not."""
    speeds: dict[str, list[float]] = {}
    for worker, times in finished_s.items():
        speeds.setdefault(worker, []).extend(1 / max(s, 1e-9) for s in times)
    for r in running:
        if r.age_s >= AGE_S_MIN:
            speeds.setdefault(r.worker, []).append(r.rate)
    if name not in speeds or len(speeds) < 2:
        return False
    means = {worker: statistics.mean(values) for worker, values in speeds.items()}
    if max(means.values()) < 2 * min(means.values()):
        return False  # nobody is: quarters of equals are noise
    return means[name] <= percentile(list(means.values()), SLOW_NODE)
