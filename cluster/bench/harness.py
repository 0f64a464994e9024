"""How a benchmark is taken, and the one shape in which all of them report.

Figures of different days do not compare on a shared machine; ratios taken in one run do. So each
case runs several rounds, ours and the peer's in turn, and a row holds the median of each. The
ratio is always "higher is better for us", whatever the metric.

    {"bench", "machine", "rows": [{"case", "metric", "unit", "ours", "peer", "theirs", "ratio",
    "bar",
                                   "holds"}]}
"""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# Metrics of which less is better; for all others more is.
SMALLER_IS_BETTER = frozenset({"p50", "p99", "median", "worst", "time"})


@dataclass(frozen=True, slots=True)
class Row:
    """One case against one peer. `theirs` None: the peer is not installed, or there is none."""

    case: str
    metric: str
    unit: str
    ours: float
    peer: str = "-"
    theirs: float | None = None
    bar: float | None = None  # least ratio (with a peer), or the limit for ours (without one)
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times better than the peer; None without a figure of the peer's."""
        if self.theirs is None or self.theirs <= 0 or self.ours <= 0:
            return None
        better = self.theirs / self.ours if self.metric in SMALLER_IS_BETTER else None
        return better if better is not None else self.ours / self.theirs

    @property
    def holds(self) -> bool | None:
        """Whether the bar is met; None where there is no bar or nothing to hold it against."""
        if self.bar is None:
            return None
        if self.peer == "-":
            smaller = self.metric in SMALLER_IS_BETTER
            return self.ours <= self.bar if smaller else self.ours >= self.bar
        return None if self.ratio is None else self.ratio >= self.bar

    def to_json(self) -> dict[str, Any]:
        """The row as `ring bench --json` prints it."""
        figures = asdict(self) | {"ratio": self.ratio, "holds": self.holds}
        return {
            key: round(value, 4) if isinstance(value, float) else value
            for key, value in figures.items()
        }


class Failed(Row):
    """A peer that crashed, or found something else: no figure, and no success either."""

    @property
    def holds(self) -> bool | None:
        """It does not."""
        return False


@dataclass(slots=True)
class Report:
    """All rows of one benchmark."""

    bench: str
    rows: list[Row] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether no bar was missed."""
        return all(row.holds is not False for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """As `ring bench NAME --json` prints it."""
        return {
            "bench": self.bench,
            "machine": machine(),
            "rows": [row.to_json() for row in self.rows],
        }


@dataclass(frozen=True, slots=True)
class Load:
    """What one round of closed-loop load gave."""

    operations: int
    seconds: float
    latencies_s: Sequence[float]

    @property
    def rate(self) -> float:
        """Operations a second."""
        return self.operations / self.seconds

    def percentile_ms(self, percent: float) -> float:
        """The latency below which `percent` of the operations were, in milliseconds."""
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1000


def compare(
    case: str,
    ours: Sequence[Load],
    peer: str,
    theirs: Sequence[Load] | None,
    bar: float | None,
    missing: str = "",
    failed: str = "",
) -> list[Row]:
    """Rows of a closed-loop case: rate (which has the bar), p50 and p99.

    `missing` says why there is nothing of theirs, and what to do; `failed` how it went wrong.
    """

    def both(measure: Any) -> tuple[float, float | None]:
        mine = statistics.median(map(measure, ours))
        return mine, statistics.median(map(measure, theirs)) if theirs and not failed else None

    kind = Failed if failed else Row
    note = failed or ("" if theirs else missing or f"{peer} is not installed")
    rate, p50, p99 = (
        both(lambda load: load.rate),
        both(lambda load: load.percentile_ms(50)),
        both(lambda load: load.percentile_ms(99)),
    )
    return [
        kind(case, "rate", "/s", rate[0], peer, rate[1], bar, note),
        kind(case, "p50", "ms", p50[0], peer, p50[1], None, note),
        kind(case, "p99", "ms", p99[0], peer, p99[1], None, note),
    ]


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
