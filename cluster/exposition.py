"""Counters and gauges of many nodes in the text format that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


def exposition(answers: dict[str, dict[str, float]]) -> str:
    """The text for what each node answered: name of a metric -> value."""
    registry = CollectorRegistry()
    registry.register(_Answers(answers))
    return generate_latest(registry).decode()


class _Answers(Collector):
    """What the nodes answered, as metric families with the node as a label."""

    def __init__(self, answers: dict[str, dict[str, float]]) -> None:
        self._answers = answers

    def collect(self) -> Iterator[Metric]:
        names = sorted({name for values in self._answers.values() for name in values})
        for name in names:
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            help_text = name.removeprefix("ring_").replace("_", " ")
            family = kind(name, help_text, labels=["node"])
            for node, values in self._answers.items():
                if name in values:
                    family.add_metric([node], values[name])
            yield family
