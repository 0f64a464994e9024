"""What every daemon answers to whoever runs the cluster: status, metrics, faults, drain.

Only certificates of the services in `OPERATORS` may call: a sibling has no business here.

    admin.status    {}         -> the service's own status, plus node, pid, uptime and version
    admin.metrics   {}         -> {name: value}; the launcher renders them for Prometheus
    admin.faults    {…}        -> what is injected now, after the change given ({} asks); and what
                                  its clocks show, `wall` and `steady`
    admin.drain     {}         -> finish what is open, refuse what is new
"""

from __future__ import annotations

import os
from typing import Any, Protocol

from netstack.rpc.client import RpcClient
from netstack.rpc.errors import BadRequest
from netstack.rpc.node import RpcNode
from netstack.rpc.service import Call

OPERATORS = {"client", "supervisor"}


class Administered(Protocol):
    """What a service gives the administrator."""

    def status(self) -> dict[str, Any]:
        """A flat map of what a person wants to see."""

    def metrics(self) -> dict[str, float]:
        """Counters and gauges by Prometheus name."""

    async def drain(self) -> None:
        """Finish what is open, refuse what is new."""


def offer_admin(node: RpcNode, service: Administered) -> None:
    """Register the admin methods on `node`."""
    runtime = node.runtime
    started_at = runtime.clock.now()

    async def status(body: Any, call: Call) -> dict[str, Any]:
        return {
            "node": runtime.node,
            "pid": os.getpid(),
            "uptime_s": round(runtime.clock.now() - started_at, 3),
            **service.status(),
        }

    async def metrics(body: Any, call: Call) -> dict[str, float]:
        return {**service.metrics(), **_transport_metrics(node)}

    async def faults(body: Any, call: Call) -> dict[str, Any]:
        if not isinstance(body, dict):
            raise BadRequest("faults: expected a map")
        try:
            runtime.faults.apply(body)
        except (ValueError, TypeError, KeyError) as error:
            raise BadRequest(f"faults: {error}") from error
        clock = runtime.clock
        # What the clocks show, so that whoever set them can see that they are off.
        return runtime.faults.describe() | {"wall": clock.wall(), "steady": clock.now()}

    async def drain(body: Any, call: Call) -> None:
        node.service.draining = True
        await service.drain()

    for name, handler in (
        ("status", status),
        ("metrics", metrics),
        ("faults", faults),
        ("drain", drain),
    ):
        node.service.add(f"admin.{name}", handler, allow=OPERATORS)


def _transport_metrics(node: RpcNode) -> dict[str, float]:
    counts = {f"ring_transport_{name}_total": float(n) for name, n in node.host.counters.items()}
    counts["ring_rpc_open_calls"] = float(node.service.open_calls)
    counts["ring_rpc_connections"] = float(len(node.connections))
    return counts


class AdminClient:
    """The operator's side, for one daemon."""

    def __init__(self, client: RpcClient) -> None:
        self._client = client

    async def status(self, timeout_s: float = 1.0) -> dict[str, Any]:
        """The daemon's status; raises RpcError."""
        return await self._ask("status", {}, timeout_s)

    async def metrics(self, timeout_s: float = 1.0) -> dict[str, Any]:
        """Its counters and gauges."""
        return await self._ask("metrics", {}, timeout_s)

    async def faults(self, change: dict[str, Any], timeout_s: float = 2.0) -> dict[str, Any]:
        """Apply `change` and return what is injected now."""
        return await self._ask("faults", change, timeout_s)

    async def drain(self, timeout_s: float = 10.0) -> None:
        """Ask it to finish up."""
        await self._ask("drain", {}, timeout_s)

    async def _ask(self, verb: str, body: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        answer = await self._client.call(
            f"admin.{verb}", body, timeout_s=timeout_s, idempotent=True
        )
        return answer if isinstance(answer, dict) else {}
