"""One logical process of a campaign: asks, and writes down what it asked and was told.

A process that was left unsure about a request is never heard of again: the worker goes on as a new
one, so that nobody has two requests under way (history.py of cluster.verify).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from cluster.chaos.system import Client, Refused, Unsure
from cluster.verify.history import FAIL, INFO, INVOKE, OK, Recorder


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one operation."""

    type: str  # ok, fail or info
    result: Any = None

    @property
    def ok(self) -> bool:
        """Whether it was answered."""
        return self.type == OK


class Scribe:
    """Writes one history; hands out process numbers.

    Args:
        recorder: where it goes.
        now: seconds since the run began.
    """

    def __init__(self, recorder: Recorder, now: Callable[[], float]) -> None:
        self._recorder = recorder
        self.now = now
        self._numbers: Iterator[int] = itertools.count()
        self.answered_at: list[float] = []  # when something succeeded

    @property
    def counts(self) -> dict[str, int]:
        """Events so far, by type."""
        return self._recorder.counts

    def number(self) -> int:
        """Of a process that nobody has heard of."""
        return next(self._numbers)

    def event(self, type_: str, process: int, f: str, key: Any, value: Any) -> None:
        """One line."""
        now = self.now()
        self._recorder.event(type_, process, f, now, key=key, value=value)
        if type_ == OK:
            self.answered_at.append(now)


class Worker:
    """Asks one thing at a time.

    Args:
        index: among the workers, from 0.
        client: through which it asks.
        rng: its dice.
    """

    def __init__(self, index: int, client: Client, scribe: Scribe, rng: random.Random) -> None:
        self.index = index
        self.client = client
        self.rng = rng
        self._scribe = scribe
        self.process = scribe.number()
        self.answered = 0

    async def ask(
        self,
        f: str,
        key: Any,
        value: Any,
        call: Callable[[], Awaitable[Any]],
        *,
        reads: bool = False,
    ) -> Outcome:
        """One operation. `call` returns what the history shows as the answer.

        Args:
            reads: it changes nothing, so that one without an answer has not been.
        """
        process, scribe = self.process, self._scribe
        scribe.event(INVOKE, process, f, key, value)
        try:
            result = await call()
        except Refused:
            outcome = Outcome(FAIL)
        except Unsure:
            outcome = Outcome(FAIL if reads else INFO)
        else:
            outcome = Outcome(OK, result)
        scribe.event(outcome.type, process, f, key, outcome.result if outcome.ok else value)
        if outcome.type == INFO:
            self.process = scribe.number()
        self.answered += outcome.ok
        return outcome

    def told(self, f: str, key: Any, value: Any, result: Any) -> None:
        """Something that came without being asked for, as an operation that took no time."""
        self._scribe.event(INVOKE, self.process, f, key, value)
        self._scribe.event(OK, self.process, f, key, result)
        self.answered += 1

    def now(self) -> float:
        """Seconds since the run began, as in the history."""
        return self._scribe.now()
