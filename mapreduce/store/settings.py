"""The `[chunks]` table of the cluster file: every key has a default, every mistake a sentence."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from mapreduce.store.blocks import BLOCK_BYTES
from netstack.runtime.config import ClusterConfig, ConfigError

MEBIBYTE = 1024 * 1024

NO_RAFT = "a chunk store keeps its metadata in raft nodes, and there are none; do: ring up chunks=3"


@dataclass(frozen=True, slots=True)
class ChunkSettings:
    """How the store of one cluster behaves.

    chunk_bytes
        Of new files. 64 MiB as in GFS: few records, one connection for long; smaller spreads
        small files over more servers. A multiple of 64 KiB.
    replicas
        Of new files. Two survive the death of any one server, and three servers can still write
        with one of them down; three survive two.
    lease_s
        A server that is silent for so long is dead, and its chunks are copied. Whole seconds.
        Longer rides out pauses; shorter heals sooner.
    scan_ms
        How often a server compares its disk with the metadata, and the healer looks at it all.
    garbage_s
        What no record lists is deleted after this: time to notice a mistake.
    scrub_s
        Between two passes over all chunks of a disk.
    scrub_bytes_s, clone_bytes_s
        Limits of what scrubbing and healing take of a disk and a network.
    power_cut
        Unsynced writes live in the process and die with it: kill -9 is then a power cut.
    """

    chunk_bytes: int = 64 * MEBIBYTE
    replicas: int = 2
    lease_s: int = 4
    scan_ms: int = 1000
    garbage_s: int = 30
    scrub_s: int = 60
    scrub_bytes_s: int = 32 * MEBIBYTE
    clone_bytes_s: int = 64 * MEBIBYTE
    power_cut: bool = False

    @classmethod
    def of(cls, config: ClusterConfig) -> ChunkSettings:
        """Read the table; raises ConfigError."""
        return cls.from_table(config.settings.get("chunks", {}))

    @classmethod
    def from_table(cls, table: dict[str, Any]) -> ChunkSettings:
        """Read it; raises ConfigError."""
        known = {field.name: field.default for field in fields(cls)}
        for name, value in table.items():
            if name not in known:
                raise ConfigError(
                    f"there is no setting chunks.{name}; there are {', '.join(known)}"
                )
            if type(value) is not type(known[name]):
                kind = type(known[name]).__name__
                raise ConfigError(f"chunks.{name} should be a {kind}, not {value!r}")
            if type(value) is int and value < 1 and name != "garbage_s":
                raise ConfigError(f"chunks.{name} should be 1 or more, not {value!r}")
        settings = cls(**table)
        if settings.chunk_bytes % BLOCK_BYTES:
            raise ConfigError(f"chunks.chunk_bytes should be a multiple of {BLOCK_BYTES}")
        return settings
