"""`ring metrics`: counters and gauges of all nodes, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cluster import render, topology
from cluster.control import Control


def metrics(
    nodes: Annotated[list[str] | None, typer.Argument(help="Nodes; all if none are named.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Counters and gauges of the nodes, in the text format of Prometheus."""
    with Control(topology.home()) as control:
        answers: dict[str, dict[str, Any]] = control.ask("metrics", nodes=nodes or [])["metrics"]
    for name, values in answers.items():
        if "error" in values:
            render.say(f"{name}: {values.pop('error')}")
    if json:
        render.as_json(answers)
        return
    registry = CollectorRegistry()
    registry.register(_Answers(answers))
    print(generate_latest(registry).decode(), end="")


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
