"""What carries the calls of a group: the face that all transports have in common.

local.py     threads of one process, for tests
shared.py    processes of one host, through shared memory
network.py   netstack, encrypted, between any hosts
"""

from __future__ import annotations

import platform
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ddp.call import Call
from ddp.elements import Array
from ddp.engine import Engine
from ddp.errors import DdpError
from ddp.messages import Message
from ddp.operation import Operation
from ddp.schedules.costs import UNMEASURED, CostModel
from ddp.work import Work


class Fabric(ABC):
    """One rank's end of it."""

    name = "?"

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.model: CostModel | None = UNMEASURED  # None: to be fitted at the first `auto`

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.engine!r}>"

    @abstractmethod
    def call(self, call: Call, vector: Array, timeout_s: float, *, ahead: bool = False) -> Work:
        """Begin a collective; raises BadCall, or the error that ended the group.

        ahead: go on with it before anybody waits, too.
        """

    @abstractmethod
    def send(self, vector: Array, dtype: str, dst: int, tag: int, timeout_s: float) -> Work:
        """Begin to send to one rank."""

    @abstractmethod
    def receive(self, vector: Array, dtype: str, src: int, tag: int, timeout_s: float) -> Work:
        """Begin to receive from one rank."""

    def wait(self, work: Work) -> Any:
        """Until `work` is over."""
        return work.wait()

    @abstractmethod
    def close(self, error: DdpError | None = None) -> None:
        """End the group on this side. Frees everything; may be called twice."""

    @abstractmethod
    def split(
        self, members: Sequence[int], number: int, exchange: Callable[[bytes], list[bytes]]
    ) -> Fabric:
        """Another of the same kind between some of its ranks, in this order.

        Args:
            number: how often this one was split before, which is the same on all ranks.
            exchange: gives all ranks' bytes; all ranks call it, or none does.
        """

    def choices(self, nbytes: int) -> tuple[str, ...]:
        """Algorithms from which `auto` may choose, for so long a vector."""
        from ddp.schedules.costs import CANDIDATES

        return CANDIDATES

    @property
    def counters(self) -> Counter[str]:
        """What was sent and received."""
        return self.engine.counters

    def dump(self) -> dict[str, Any]:
        """The flight recorder."""
        return self.engine.recorder.dump(time.monotonic(), clock())

    def why(self) -> list[str]:
        """What is open and for whom it waits, in sentences."""
        return self.engine.recorder.why(time.monotonic())


@lru_cache(maxsize=1)
def clock() -> str:
    """Whose `time.monotonic` it is: all processes of one boot of one machine have the same."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return boot.read_text().strip() if boot.exists() else platform.node()


def bind(work: Work, of: Operation | Message) -> Work:
    """End `work` with `of`, which may be over already."""
    if of.ended:
        work.end(of.error)
    else:
        of.on_end = lambda ended: work.end(ended.error)
    return work
