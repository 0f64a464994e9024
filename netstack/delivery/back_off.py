"""How much longer to wait each time there was no answer, and why not everybody the same.

    level          0       1           2                   3
    exponential    ├─T─┤   ├──2T──┤    ├──────4T──────┤    ...       T: what the estimator says
    with jitter    ├─T─┤~  ├──2T──┤~~  ├──────4T──────┤~~~~          ~: up to `jitter` of it more

Doubling makes room on a server that is too slow for the questions it gets. Jitter is for when
many clients began at one moment (the power came back, the hour struck): without it they also
come back at one moment, in waves, with an idle server between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random

# Beyond 2**6 = 64 times the timer a person would rather hear that nobody answers.
LEVEL_MAX: Final = 6


@dataclass(frozen=True, slots=True)
class BackOff:
    """A pure formula: the timer, times factor ** level, plus up to `jitter` of that."""

    factor: float = 2.0
    jitter: float = 0.5
    level_max: int = LEVEL_MAX

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise ValueError(f"back-off must not shorten the timer: factor {self.factor} < 1")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter is a share between 0 and 1, not {self.jitter}")

    def wait_s(self, timer_s: float, level: int, rng: random.Random) -> float:
        """Seconds to wait for an answer; never less than `timer_s`."""
        wait_s = timer_s * self.factor ** min(level, self.level_max)
        if self.jitter:
            wait_s *= 1 + self.jitter * rng.random()
        return float(wait_s)


EXPONENTIAL: Final = BackOff()
WITHOUT_JITTER: Final = BackOff(jitter=0.0)
NONE: Final = BackOff(factor=1.0, jitter=0.0)
