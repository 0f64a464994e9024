"""What kinds of daemon a cluster may have: one entry a kind, and all commands follow it.

An entry says what the command line must know of a service without knowing the service: how its
nodes are named, which module runs one, what a table of them shows, and what else must come with
it. The rest a daemon says itself, in its `status`:

    trouble   why it is not well, in a few words; empty or absent if it is
    why       the same in a sentence, with the command that helps, where there is one
    role      what selectors such as `leader` ask about
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a service's table: its head, and the key of `status` or what to make of it."""

    head: str
    says: str | Callable[[Mapping[str, Any]], object]
    number: bool = False

    def cell(self, says: Mapping[str, Any]) -> object:
        """What stands in it."""
        if callable(self.says):
            return self.says(says)
        value = says.get(self.says)
        return "-" if value is None else value


@dataclass(frozen=True, slots=True)
class ServiceKind:
    """One kind of daemon.

    prefix: of its nodes' names; a number follows.
    module: what `python -m` runs; a word behind it is its first argument.
    count: nodes where no number is asked for.
    columns: of its table in `ring status`, beside those that all have.
    elects: its members decide themselves who belongs to them, and are asked before one comes
        or goes.
    leaves_in_turn: one node hands its data to the others before the next may go.
    brings: kinds that come with it, and how many nodes of each, where the cluster has none yet.
    hint: commands to try once it runs.
    """

    prefix: str
    module: str
    count: int
    columns: tuple[Column, ...] = ()
    elects: bool = False
    leaves_in_turn: bool = False
    brings: Mapping[str, int] = field(default_factory=dict)
    hint: str = ""


def _lag(says: Mapping[str, Any]) -> str:
    lag = says.get("lag") or {}
    return " ".join(f"{name}:{n}" for name, n in sorted(lag.items())) or "-"


def _names(names: Any) -> str:
    return " ".join(names or ()) or "-"


def _settled(says: Mapping[str, Any]) -> str:
    ids, settled = says.get("ids", 0), says.get("settled", 0)
    return "-" if not ids else "whole" if ids == settled else f"{settled} of {ids} settled"


SERVICES: Final[dict[str, ServiceKind]] = {
    "raft": ServiceKind(
        "n",
        "raftd",
        3,
        (
            Column("ROLE", "role"),
            Column("TERM", "term", number=True),
            Column("COMMIT", "commit", number=True),
            Column("APPLIED", "applied", number=True),
            Column("LAG", _lag),
        ),
        elects=True,
        hint="ring kv put greeting hello  ·  ring kill leader",
    ),
    "dht": ServiceKind(
        "d",
        "dht",
        5,
        (
            Column("IDS", "ids", number=True),
            Column("SUCC", lambda says: _names(says.get("successors"))),
            Column("PRED", lambda says: _names(says.get("predecessors"))),
            Column("KEYS", "keys", number=True),
            Column("RING", _settled),
        ),
        leaves_in_turn=True,
        hint="ring dht put greeting hello  ·  ring kill dht:one",
    ),
    "ddp": ServiceKind(
        "r",
        "ddp",
        4,
        (
            Column("RANK", "rank", number=True),
            Column("SIZE", "size", number=True),
            Column("EPOCH", "epoch", number=True),
            Column("FABRIC", "fabric"),
            Column("CALLS", "calls", number=True),
            Column("JOB", "job"),
        ),
        brings={"raft": 3},
        hint="ring ddp allreduce --live -b 4K -e 16M -f 8  ·  ring kill r2  ·  ring ddp why",
    ),
    "chunks": ServiceKind(
        "c",
        "mapreduce.store",
        3,
        (
            Column("CHUNKS", "chunks", number=True),
            Column("STORED", "stored", number=True),
            Column("DAMAGED", "damaged", number=True),
            Column("CLONED", "cloned", number=True),
            Column("HEALER", lambda says: "yes" if says.get("healer") else "-"),
        ),
        brings={"raft": 3},
        hint="ring mr fs put README.md docs/  ·  ring mr fs stat docs/README.md",
    ),
    "graph": ServiceKind(
        "g",
        "mapreduce.graph",
        2,
        (
            Column("TASKS", "tasks", number=True),
            Column("HELD", "held", number=True),
            Column("SPILLED", "spilled", number=True),
            Column("CHILD", "child", number=True),
        ),
        hint="ring mr graph docs/examples/graphs.py:wordcount --draw graph.svg",
    ),
    "mrmaster": ServiceKind(
        "m",
        "mapreduce master",
        1,
        (
            Column("EPOCH", "epoch", number=True),
            Column("WORKERS", "workers", number=True),
            Column("JOBS", "jobs", number=True),
            Column("STATE IN", "state_in"),
        ),
    ),
    "mapreduce": ServiceKind(
        "w",
        "mapreduce worker",
        2,
        (
            Column("SLOTS", "slots", number=True),
            Column("RUNNING", "running", number=True),
            Column("DONE", "done", number=True),
            Column("FETCHED MB", "fetched_mb", number=True),
            Column("CHUNKS", "chunks", number=True),
        ),
        brings={"mrmaster": 1},
        hint="ring mr run wordcount README.md counts  ·  ring mr jobs  ·  ring kill w1",
    ),
}
