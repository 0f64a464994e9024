"""One thing that was looked at in a run, and what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.verify.history import Operation


@dataclass(frozen=True, slots=True)
class Finding:
    """`sentence` says what was found, `where` the operations it speaks of."""

    check: str
    verdict: str
    sentence: str
    where: Sequence[Operation] = ()
