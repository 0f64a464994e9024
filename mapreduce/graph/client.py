"""What callers of graphs use.

    with SyncGraphClient(".ring/cluster.toml") as graph:
        graph.compute(total)                                     a Delayed, or several
        graph.get({"x": 1, "y": (add, "x", 10)}, ["x", "y"])     a Dask graph; nested keys too
        graph.report.recomputed                                  what had to run again

    async with GraphClient.connect(".ring/cluster.toml") as graph: the same, awaited

`dask.compute(…, scheduler=graph.get)` runs Dask's collections here.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mapreduce.graph.delayed import Delayed, delayed, graph_of
from mapreduce.graph.drawing import to_dot, to_svg
from mapreduce.graph.errors import (
    CycleFound,
    GraphError,
    NoWorkers,
    TaskFailed,
    TaskKilled,
    UnknownTask,
)
from mapreduce.graph.fusion import fuse
from mapreduce.graph.graphs import Graph, evaluate, key_name
from mapreduce.graph.run import GraphRun, Report
from mapreduce.graph.wire import SERVICE
from netstack.rpc.caller import caller
from netstack.rpc.client import RpcClient
from netstack.rpc.node import RpcNode
from netstack.runtime.config import ClusterConfig, ConfigError
from netstack.runtime.endpoint import Address
from netstack.runtime.synchronous import Synchronous

__all__ = [
    "CycleFound",
    "Delayed",
    "Graph",
    "GraphClient",
    "GraphError",
    "NoWorkers",
    "Report",
    "SyncGraphClient",
    "TaskFailed",
    "TaskKilled",
    "UnknownTask",
    "delayed",
    "evaluate",
    "graph_of",
    "key_name",
    "to_dot",
    "to_svg",
]

T = TypeVar("T")


class GraphClient:
    """Computations on the workers of one cluster.

    Args:
        node: a started RpcNode to call from.
        workers: name -> address.
    """

    def __init__(self, node: RpcNode, workers: dict[str, Address]) -> None:
        self._runtime = node.runtime
        self._clients: dict[str, RpcClient] = {
            name: node.client(address, SERVICE, name) for name, address in workers.items()
        }
        self.validate = False
        self.on_change: Callable[[dict[str, int]], None] | None = None
        self.run: GraphRun | None = None

    def __repr__(self) -> str:
        return f"<GraphClient workers={sorted(self._clients)}>"

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(
        cls, config: Path | str, *, identity: str = "cli"
    ) -> AsyncIterator[GraphClient]:
        """A client of the cluster whose file is `config`; raises ConfigError or KeystoreError."""
        cluster = ClusterConfig.load(Path(config))
        workers = {node.name: node.address for node in cluster.of_service(SERVICE)}
        if not workers:
            raise ConfigError("the cluster has no workers of graphs; add some: ring up graph=2")
        async with caller(cluster, identity) as node:
            yield cls(node, workers)

    @property
    def report(self) -> Report:
        """Of the last computation, or the one that is under way."""
        return self.run.report if self.run is not None else Report()

    async def compute(self, *values: Delayed, fusion: bool = True) -> Any:
        """The value of one Delayed, or a tuple of several. Raises GraphError."""
        names = [value.name for value in values]
        found = await self.values(graph_of(values), names, fusion=fusion)
        answers = tuple(found[name] for name in names)
        return answers[0] if len(answers) == 1 else answers

    async def get(self, dsk: Mapping[Any, Any], keys: Any, **_: Any) -> Any:
        """Dask's `get`: values of a key, or of keys in lists of any depth, in their place."""
        graph = Graph.of(dsk)
        found = await self.values(graph, _flat(keys))
        return _in_place(keys, found)

    async def values(
        self, graph: Graph, names: Sequence[str], *, fusion: bool = True
    ) -> dict[str, Any]:
        """Values by name. Raises GraphError."""
        graph = graph.culled(names)
        if fusion:
            graph = fuse(graph, set(names))
        self.run = GraphRun(
            self._runtime,
            self._clients,
            graph,
            list(names),
            on_change=self.on_change,
            validate=self.validate,
        )
        return await self.run.values()


def _flat(keys: Any) -> list[str]:
    if isinstance(keys, list):
        return [name for key in keys for name in _flat(key)]
    return [key_name(keys)]


def _in_place(keys: Any, found: dict[str, Any]) -> Any:
    if isinstance(keys, list):
        return [_in_place(key, found) for key in keys]
    return found[key_name(keys)]


class SyncGraphClient(Synchronous[GraphClient]):
    """The same calls without await, from any thread."""

    def __init__(self, config: Path | str, *, identity: str = "cli") -> None:
        super().__init__(GraphClient.connect(config, identity=identity))

    @property
    def report(self) -> Report:
        """See GraphClient.report."""
        return self.asynchronous.report

    def compute(self, *values: Delayed, fusion: bool = True) -> Any:
        """See GraphClient.compute."""
        return self.run(self.asynchronous.compute(*values, fusion=fusion))

    def get(self, dsk: Mapping[Any, Any], keys: Any, **options: Any) -> Any:
        """See GraphClient.get."""
        return self.run(self.asynchronous.get(dsk, keys, **options))

    def values(self, graph: Graph, names: Sequence[str], *, fusion: bool = True) -> dict[str, Any]:
        """See GraphClient.values."""
        return self.run(self.asynchronous.values(graph, names, fusion=fusion))
