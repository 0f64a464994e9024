"""What other packages may use of ddp: starting ranks, asking workers, tables that explain.

Training code stands on `Group`; a command line stands on this.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import numpy as np

from ddp.elements import FLOATS, OPS, TYPES, check_reduction
from ddp.errors import BadCall, DdpError, RankLost
from ddp.group import Group
from ddp.launch import Launch, LaunchFailed
from ddp.local import run_local
from ddp.perf import merge as perf_rows
from ddp.recorder import Record, chrome_trace
from ddp.schedules.catalogue import ALLREDUCE, schedule_of
from ddp.schedules.checker import prove
from ddp.schedules.costs import table, tree_bounds
from ddp.training.errors import TrainingError
from ddp.training.run import train
from ddp.training.stale import parse_bound

__all__ = [
    "ALLREDUCE",
    "FLOATS",
    "OPS",
    "TYPES",
    "BadCall",
    "DdpError",
    "Group",
    "Launch",
    "LaunchFailed",
    "TrainingError",
    "check_reduction",
    "chrome_trace",
    "cost_table",
    "parse_bound",
    "perf_rows",
    "prove_schedule",
    "run_on_workers",
    "train",
    "worker_reports",
]

# An answer of a worker about itself.
REPORT_S = 2.0


def prove_schedule(algorithm: str, ranks: int) -> list[dict[str, Any]]:
    """The transfers of an allreduce, by round, once it is proven to be one; raises BadCall."""
    schedule = schedule_of("allreduce", algorithm, ranks)
    prove(schedule, "allreduce")
    return [
        {"round": number, **t._asdict(), "action": t.action.name.lower()}
        for number, transfers in enumerate(schedule.rounds)
        for t in transfers
    ]


def cost_table(ranks: int, elements: int) -> list[dict[str, Any]]:
    """Every allreduce run by threads of this process, and what was counted beside its formula."""
    if ranks < 2 or elements % ranks:
        raise BadCall("two ranks or more, and a number of elements that they divide")
    return [_cost_row(algorithm, ranks, elements) for algorithm in ALLREDUCE]


def _cost_row(algorithm: str, ranks: int, elements: int) -> dict[str, Any]:
    if algorithm == "hierarchical":
        elements *= -(-ranks // 2)  # of the leaders of hosts, too, all shares are whole

    def run(group: Group) -> Record:
        group.allreduce(np.ones(elements, np.float32), algorithm=algorithm)
        return group.fabric.engine.recorder.records[-1]

    records = run_local(ranks, run)
    sent = [record.sent / (4 * elements) for record in records]
    row: dict[str, Any] = {
        "algorithm": algorithm,
        "rounds": max(record.rounds for record in records),
        "sent_max": max(sent),
        "sent_mean": sum(sent) / ranks,
        "fan_in": max(record.fan_in for record in records),
    }
    formula = table(algorithm, ranks)
    bound = tree_bounds(ranks) if algorithm == "double-tree" else None
    if formula is not None:
        found = (row["rounds"], row["sent_max"], row["sent_mean"], row["fan_in"])
        row["equal"] = bool(np.allclose(found, formula))
        row["formula"] = f"{formula.rounds} / {formula.sent_max:.3f} / {formula.fan_in}"
    elif bound is not None:
        at_most = row["sent_max"] <= bound.sent_max + 1e-9 and row["fan_in"] <= bound.fan_in
        row["equal"] = at_most and row["rounds"] == bound.rounds
        row["formula"] = f"{bound.rounds} / ≤ {bound.sent_max:.3f} / ≤ {bound.fan_in}"
    else:
        row["equal"], row["formula"] = None, "-"
    return row


def run_on_workers(
    config: Path, job: str, arguments: dict[str, Any], *, timeout_s: float
) -> list[Any]:
    """Run a job (jobs.py) on all members of the present group; their results in the order of ranks.

    Raises DdpError: the first error that a worker reports, or RankLost for one that does not
    answer.
    """
    reports = worker_reports(config)
    epoch = max((report.get("epoch", 0) for report in reports.values()), default=0)
    members = [n for n, r in reports.items() if r.get("epoch") == epoch and "rank" in r]
    if not members:
        raise RankLost(f"no worker has a group: {reports}")
    name = f"{job}-{os.getpid()}-{os.urandom(4).hex()}"
    body = {"job": job, "id": name, "arguments": arguments}
    answers = asyncio.run(_ask_all(config, "ddp.run", body, timeout_s, members))
    results = []
    for node, answer in answers.items():
        if isinstance(answer, Exception):
            raise RankLost(f"{node}: {answer}")
        results.append(answer)
    return [answer["result"] for answer in sorted(results, key=lambda answer: int(answer["rank"]))]


def worker_reports(config: Path) -> dict[str, dict[str, Any]]:
    """What each worker says of itself: rank, epoch, members, and why its calls wait."""
    answers = asyncio.run(_ask_all(config, "ddp.why", {}, REPORT_S))
    return {
        node: {"error": str(answer)} if isinstance(answer, Exception) else answer
        for node, answer in answers.items()
    }


async def _ask_all(
    config: Path, method: str, body: Any, timeout_s: float, only: list[str] | None = None
) -> dict[str, Any]:
    from netstack.rpc.caller import caller
    from netstack.rpc.errors import RpcError
    from netstack.runtime.config import ClusterConfig

    cluster = ClusterConfig.load(config)
    workers = cluster.of_service("ddp")
    if not workers:
        raise BadCall("this cluster has no ddp workers; do: ring up ddp=4")
    found: dict[str, Any] = {}

    async def ask(name: str, client: Any) -> None:
        try:
            found[name] = await client.call(method, body, timeout_s=timeout_s)
        except RpcError as error:
            found[name] = error

    async with caller(cluster, "cli") as node:
        clients = {
            w.name: node.client(w.address, "ddp", w.name)
            for w in workers
            if only is None or w.name in only
        }
        await asyncio.gather(*(ask(name, client) for name, client in clients.items()))
    return {name: found[name] for name in sorted(found)}
