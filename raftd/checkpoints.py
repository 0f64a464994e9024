"""A sum over what was applied, told every few hundred entries.

    entries   1 … 256 │ 257 … 512 │ 513 …
    n1             ●          ●             raft.checkpoint index=256 sum=… revision=…
    n2             ●          ●             the same sums, or the machines have parted
    n3                        ●             restored at 300: says nothing of what it did not apply

That all nodes apply the same entries in the same order is what Raft is for (state machine safety,
Ongaro and Ousterhout 2014, figure 3). The nodes' logs alone can then show a breach of it, whatever
clients have noticed (cluster/verify/invariants.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import google_crc32c

# Entries from one to the next.
EVERY: Final = 256


class Checkpoints:
    """Of one life of one node. `emit(index, term, sum)` is called at each multiple of EVERY."""

    def __init__(self, emit: Callable[[int, int, int], None]) -> None:
        self._emit = emit
        self._expected = 0  # the index that must come next, or the sum says nothing
        self._sum = 0

    def applied(self, index: int, term: int, data: bytes) -> None:
        """The next entry; after a gap, silence until the next whole stretch."""
        if index != self._expected:
            self._expected, self._sum = index, 0
            if index % EVERY != 1:
                self._expected = 0
                return
        self._sum = google_crc32c.extend(self._sum, data)
        self._expected = index + 1
        if index % EVERY == 0:
            self._emit(index, term, self._sum)
            self._sum = 0
