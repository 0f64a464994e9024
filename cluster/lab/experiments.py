"""All experiments by name: what `ring net lab` can show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cluster.lab import congestion, paths, playout, reliability, requests
from cluster.lab.outcome import Outcome

EXPERIMENTS: Final[dict[str, Callable[[int], Outcome]]] = {
    "saw-tooth": congestion.saw_tooth,
    "dctcp": congestion.dctcp,
    "fairness": congestion.fairness,
    "rtt-bias": congestion.rtt_bias,
    "wireless": paths.wireless,
    "bufferbloat": paths.bufferbloat,
    "selfish": paths.selfish,
    "jitter": playout.jitter,
    "window": reliability.window,
    "receivers": reliability.receivers,
    "storm": requests.storm,
    "delivery": requests.delivery,
}
