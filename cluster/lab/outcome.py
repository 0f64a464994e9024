"""What an experiment says: one sentence, numbers held against bounds, and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Check:
    """A number and the bounds between which the claim is true."""

    claim: str
    value: float
    unit: str = ""
    least: float | None = None
    most: float | None = None

    @property
    def holds(self) -> bool:
        """Whether it is."""
        above = self.least is None or self.value >= self.least
        return above and (self.most is None or self.value <= self.most)

    @property
    def bound(self) -> str:
        """For people."""
        if self.least is not None and self.most is not None:
            return f"{self.least:g} to {self.most:g}"
        return f"≥ {self.least:g}" if self.least is not None else f"≤ {self.most:g}"


@dataclass(frozen=True, slots=True)
class Curve:
    """Points, joined in their order unless `dots`."""

    label: str
    points: Sequence[tuple[float, float]]
    dots: bool = False
    dashed: bool = False


@dataclass(slots=True)
class Panel:
    """One pair of axes."""

    x: str
    y: str
    curves: list[Curve] = field(default_factory=list)
    log_x: bool = False
    log_y: bool = False
    square: bool = False  # both axes alike, from 0: for a plane of two shares


@dataclass(slots=True)
class Outcome:
    """All that an experiment has found."""

    name: str
    sentence: str
    checks: list[Check]
    panels: list[Panel]

    @property
    def holds(self) -> bool:
        """Whether every claim is true."""
        return all(check.holds for check in self.checks)

    def rows(self) -> list[dict[str, Any]]:
        """A row a check, in the shape of the benchmarks' (cluster/bench/harness.py)."""
        return [
            {
                "case": self.name,
                "metric": check.claim,
                "unit": check.unit,
                "ours": round(check.value, 6),
                "peer": "-",
                "theirs": None,
                "ratio": None,
                "bar": check.most if check.least is None else check.least,
                "least": check.least,
                "most": check.most,
                "holds": check.holds,
            }
            for check in self.checks
        ]


def jain(shares: Sequence[float]) -> float:
    """Jain's index of fairness: 1 if all are equal, 1/n if one has everything."""
    total = sum(shares)
    squares = sum(share * share for share in shares)
    return total * total / (len(shares) * squares) if squares else 1.0


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which `percent` of them are."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
