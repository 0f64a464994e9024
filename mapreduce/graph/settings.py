"""The `[graph]` table of the cluster file."""

from __future__ import annotations

from dataclasses import dataclass

from netstack.runtime.config import ClusterConfig, ConfigError

MEMORY_BYTES = 512 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class GraphSettings:
    """How a worker of graphs behaves.

    memory_bytes
        Values that stay in memory; the rest goes to the disk, the least used first. A quarter of
        a small machine's memory, for two workers.
    """

    memory_bytes: int = MEMORY_BYTES

    @classmethod
    def of(cls, config: ClusterConfig) -> GraphSettings:
        """Read the table; raises ConfigError."""
        table = dict(config.settings.get("graph", {}))
        memory_bytes = table.pop("memory_bytes", MEMORY_BYTES)
        if type(memory_bytes) is not int or memory_bytes < 1:
            raise ConfigError(f"graph.memory_bytes should be 1 or more, not {memory_bytes!r}")
        if table:
            raise ConfigError(f"there is no setting graph.{sorted(table)[0]}")
        return cls(memory_bytes)
