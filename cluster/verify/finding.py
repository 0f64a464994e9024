"""One thing that was looked at in a run, and what was found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from cluster.verify.history import Operation
from cluster.verify.linear import INVALID

# A system that is broken is wrong hundreds of times in the same way: so many are told in full.
TOLD_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class Finding:
    """`sentence` says what was found, `where` the operations it speaks of."""

    check: str
    verdict: str
    sentence: str
    where: Sequence[Operation] = ()
    # The longest order that explains a beginning, and what it led to.
    order: Sequence[Operation] = ()
    state: str = ""


def told(check: str, wrong: Iterable[Finding]) -> list[Finding]:
    """The first of what is wrong in one way, and how many more there are."""
    rest = iter(wrong)
    findings = list(islice(rest, TOLD_MAX))
    if more := sum(1 for _ in rest):
        findings.append(Finding(check, INVALID, f"and {more:,} more like these"))
    return findings
