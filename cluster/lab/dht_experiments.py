"""All experiments with the ring by name: what `ring dht lab` can show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cluster.lab import dht_routing, dht_storage
from cluster.lab.outcome import Outcome

EXPERIMENTS: Final[dict[str, Callable[[int], Outcome]]] = {
    "path-length": dht_routing.path_length,
    "load": dht_storage.load,
    "sudden-deaths": dht_routing.sudden_deaths,
    "churn": dht_routing.churn,
    "replicas": dht_storage.replicas,
}
