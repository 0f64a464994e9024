"""The congestion controllers by name, as a configuration or a command names them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from netstack.transport.congestion.aimd import Aiad, Aimd, Miad, Mimd
from netstack.transport.congestion.base import CongestionController
from netstack.transport.congestion.bbr import Bbr
from netstack.transport.congestion.cubic import Cubic
from netstack.transport.congestion.dctcp import Dctcp
from netstack.transport.congestion.fixed import FixedWindow, LockStep, SlidingWindow, window_of
from netstack.transport.congestion.newreno import NewReno
from netstack.transport.rtt import RttEstimator

Factory = Callable[[int, RttEstimator], CongestionController]

CONTROLLERS: Final[dict[str, Factory]] = {
    "newreno": NewReno,
    "cubic": Cubic,
    "bbr": Bbr,
    "dctcp": Dctcp,
    "aimd": Aimd,
    "aiad": Aiad,
    "mimd": Mimd,
    "miad": Miad,
    "lock-step": LockStep,
    "fixed": FixedWindow,
    "sliding": SlidingWindow,
}

# These take a size: "sliding:70" is seventy packets.
SIZED: Final = {"fixed": FixedWindow, "sliding": SlidingWindow}


def controller(name: str) -> Factory:
    """The controller called `name`; raises ValueError with what there is."""
    kind, colon, size = name.partition(":")
    if colon and kind in SIZED and size.isascii() and size.isdigit() and int(size) > 0:
        return window_of(SIZED[kind], int(size))
    if name not in CONTROLLERS:
        known = ", ".join(CONTROLLERS)
        raise ValueError(
            f"no congestion controller {name!r}; there are {known}, and sliding:N, fixed:N"
        )
    return CONTROLLERS[name]
