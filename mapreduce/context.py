"""What user code may say while it runs: counters, a status, and where it is.

    def map(line, task):
        task.count("words", "empty lines", 1)
        task.status("half way")

Counters belong to the attempt and travel with its result, so that only those of the attempt that
is committed count: a retry counts nothing twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, MutableSequence
from typing import Any, Final

# A job may have so many counters; Hadoop's limit is 120.
COUNTERS_MAX: Final = 1000

# How much of a bad record is shown.
EXCERPT_BYTES: Final = 200

Numbers = MutableSequence[int] | memoryview
"""The record, how much is done, and of how much: they outlive the process that wrote them."""

# The group of what the system itself counts.
OWN: Final = "mapreduce"


class Task:
    """One attempt at one task, as the code that it runs sees it.

    args: the job's. kind: "map" or "reduce". index: of the task. input: the file it reads.
    """

    def __init__(
        self,
        *,
        args: dict[str, Any],
        kind: str,
        index: int,
        input: str = "",
        progress: Numbers | None = None,
        report: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.args = args
        self.kind = kind
        self.index = index
        self.input = input
        self.counters: Counter[tuple[str, str]] = Counter()
        self.skipped: list[tuple[int, str]] = []
        self.progress: Numbers = progress if progress is not None else [0, 0, 0]
        self._report = report

    def __repr__(self) -> str:
        return f"<Task {self.kind} {self.index}>"

    def count(self, group: str, name: str, amount: int = 1) -> None:
        """Add to a counter of the job; raises ValueError when there are too many of them."""
        self.counters[group, name] += amount
        if len(self.counters) > COUNTERS_MAX:
            raise ValueError(f"more than {COUNTERS_MAX} counters; a counter is no key")

    def status(self, text: str) -> None:
        """Say how it goes; that is a sign of life, too."""
        self._report(text)

    def own(self, name: str, amount: int) -> None:
        """Count what the system counts."""
        self.counters[OWN, name] += amount

    def tracked(
        self, items: Iterable[Any], skip: frozenset[int] = frozenset(), *, blames: bool = True
    ) -> Iterator[Any]:
        """The items, each made known before it is handed over; those in `skip` are left out.

        blames False: they are counted only. Whoever takes them, a command, may be far behind.
        """
        progress: Numbers = self.progress if blames else [0, 0, 0]
        number = 0
        for number, item in enumerate(items, 1):
            if number not in skip:
                progress[0] = number
                yield item
            else:
                self.skipped.append((number, excerpt(item)))
        progress[0] = 0  # an error from here on is no record's
        self.own(f"{self.kind}_input_{'records' if self.kind == 'map' else 'groups'}", number)


def excerpt(item: Any) -> str:
    """What a report shows of a record, or of a group of values: its beginning, or its key."""
    data = item[0] if isinstance(item, tuple) else item
    return bytes(data[:EXCERPT_BYTES]).decode(errors="backslashreplace")
