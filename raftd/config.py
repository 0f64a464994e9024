"""The `[raft]` table of the cluster file: every key has a default, every mistake a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from netstack.runtime.config import ClusterConfig, ConfigError
from raftd.membership import Membership
from raftd.options import RaftOptions


@dataclass(frozen=True, slots=True)
class RaftSettings:
    """What a node of the store is configured with.

    options: see RaftOptions; `election_timeout_ms = [low, high]`, `heartbeat_ms`, `lease_reads`.
    snapshot_every: entries after which the state machine is written out and the log shortened.
    power_cut: unsynced writes live in the process and die with it: kill -9 is then a power cut.
    bootstrap: names of the first voters; the others wait to be added.
    """

    options: RaftOptions
    snapshot_every: int
    power_cut: bool
    bootstrap: Membership

    @classmethod
    def of(cls, config: ClusterConfig) -> RaftSettings:
        """Read the table; raises ConfigError."""
        table = dict(config.settings.get("raft", {}))
        nodes = {node.name: node.address for node in config.of_service("raft")}
        names = table.pop("bootstrap", list(nodes))
        if not isinstance(names, list) or not names:
            raise ConfigError(f"raft.bootstrap should be a list of names, not {names!r}")
        unknown = [name for name in names if name not in nodes]
        if unknown:
            raise ConfigError(f"raft.bootstrap names {unknown[0]!r}, which is no raft node")
        defaults = RaftOptions()
        low, high = _pair(table.pop("election_timeout_ms", None), defaults.election_timeout_s)
        try:
            options = RaftOptions(
                election_timeout_s=(low, high),
                heartbeat_s=_number("heartbeat_ms", table, defaults.heartbeat_s * 1000) / 1000,
                lease_reads=_flag("lease_reads", table),
            )
        except (ValueError, TypeError) as error:
            raise ConfigError(f"raft: {error}") from None
        snapshot_every = table.pop("snapshot_every", 10_000)
        if type(snapshot_every) is not int or snapshot_every < 1:
            raise ConfigError(f"raft.snapshot_every should be 1 or more, not {snapshot_every!r}")
        power_cut = _flag("power_cut", table)
        if table:
            raise ConfigError(f"there is no setting raft.{sorted(table)[0]}")
        bootstrap = Membership.of({name: nodes[name] for name in names})
        return cls(options, snapshot_every, power_cut, bootstrap)


def _pair(value: object, default: tuple[float, float]) -> tuple[float, float]:
    if value is None:
        return default
    if not isinstance(value, list) or len(value) != 2:
        raise ConfigError(f"raft.election_timeout_ms should be [low, high], not {value!r}")
    for item in value:
        if type(item) not in (int, float):
            raise ConfigError(f"raft.election_timeout_ms should be two numbers, not {value!r}")
    return value[0] / 1000, value[1] / 1000


def _number(name: str, table: dict[str, Any], default: float) -> float:
    value = table.pop(name, default)
    if type(value) not in (int, float):
        raise ConfigError(f"raft.{name} should be a number, not {value!r}")
    return float(value)


def _flag(name: str, table: dict[str, Any]) -> bool:
    value = table.pop(name, False)
    if type(value) is not bool:
        raise ConfigError(f"raft.{name} should be true or false, not {value!r}")
    return value
