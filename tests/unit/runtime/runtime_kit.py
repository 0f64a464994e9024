"""What the tests of the runtime share: a clock moved by hand, callbacks kept, chances."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

from netstack.runtime.clock import Clock
from netstack.runtime.policy import LinkPolicy, LinkShaper

# Unix seconds at which every hand-moved clock stands at the start.
EPOCH = 1_800_000_000.0


class Hands:
    """The true time, moved by the test; `clock` is a node's view of it."""

    def __init__(self) -> None:
        self.true = 0.0
        self.clock = Clock(lambda: self.true, lambda: EPOCH + self.true)


class Later:
    """Keeps what is to be called, instead of calling it; `take` gives it out, oldest first."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, Callable[..., Any], tuple[Any, ...]]] = []
        self.readers: dict[int, Callable[[], None]] = {}  # of what can always be read

    def __call__(self, delay_s: float, callback: Callable[[], None]) -> None:
        self.calls.append((delay_s, callback, ()))

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> None:
        """The face of an event loop, for what wants one."""
        self.calls.append((0.0, callback, args))

    def add_reader(self, descriptor: int, callback: Callable[[], None]) -> None:
        """As `call_soon`."""
        self.readers[descriptor] = callback

    def remove_reader(self, descriptor: int) -> None:
        """As `call_soon`."""
        del self.readers[descriptor]

    @property
    def delays(self) -> list[float]:
        return [delay for delay, _, _ in self.calls]

    def run(self) -> int:
        """Call what waits, but not what that asks for in turn; how many it was."""
        calls, self.calls = self.calls, []
        calls += [(0.0, reader, ()) for reader in self.readers.values()]
        for _, callback, args in calls:
            callback(*args)
        return len(calls)


def shaper(seed: int = 1, **policy: Any) -> LinkShaper:
    return LinkShaper(LinkPolicy(**policy), random.Random(seed))


def about(count: float, of: int, chance: float) -> bool:
    """Whether `count` of `of` is what a fair die of that chance may give: five deviations."""
    return abs(count - of * chance) <= 5 * math.sqrt(of * chance * (1 - chance))
