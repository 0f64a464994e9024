"""The `[dht]` table of the cluster file: every key has a default, every mistake a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from dht.chord.options import ChordOptions
from dht.chord.ring import Contact, contact_of
from netstack.runtime.config import ClusterConfig, ConfigError

SERVICE: Final = "dht"

MIB: Final = 1024 * 1024

# Requests go to whoever owns the key, so the next one for the same peer is often tens of
# milliseconds away: an acknowledgement that waits for it needs no datagram of its own. With this a
# lost packet is still sent again three times within the default `timeout_ms`, as with 25 ms.
ACK_DELAY_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class DhtSettings:
    """What a peer is configured with.

    chord: see ChordOptions; `successors`, `stabilise_ms = [low, high]`, `probe_ms`.
    vnodes: identifiers a process. More spread the load better and cost upkeep: with 4 the fullest
        one in a hundred has about twice the mean, with 20 half as much again.
    replicas: processes that hold each record, the owner included.
    copies_min: fewer than so many, and a write is not acknowledged.
    timeout_ms: silence for so long is death. Shorter heals sooner; a busy machine needs longer.
    repair_ms: how often an owner compares its range with its replicas although nothing moved.
    quota_mb: what a process may hold; writes beyond are refused.
    power_cut: unsynced writes live in the process and die with it.
    """

    chord: ChordOptions
    vnodes: int = 4
    replicas: int = 3
    copies_min: int = 2
    timeout_s: float = 0.5
    repair_s: float = 5.0
    quota_bytes: int = 256 * MIB
    power_cut: bool = False

    @classmethod
    def of(cls, config: ClusterConfig) -> DhtSettings:
        """Read the table; raises ConfigError."""
        table = dict(config.settings.get(SERVICE, {}))
        defaults = ChordOptions()
        stabilise_s = _pair(table, "stabilise_ms", defaults.stabilise_s)
        try:
            chord = ChordOptions(
                successors=_whole(table, "successors", defaults.successors, 64),
                stabilise_s=stabilise_s,
                finger_s=(2 * stabilise_s[0], 4 * stabilise_s[1]),
                probe_s=_whole(table, "probe_ms", 2000, 3_600_000) / 1000,
            )
        except ValueError as error:
            raise ConfigError(f"dht: {error}") from None
        replicas = _whole(table, "replicas", 3, 16)
        processes = len(config.of_service(SERVICE))
        copies_min = _whole(table, "copies_min", min(2, replicas, max(1, processes)), replicas)
        vnodes = _whole(table, "vnodes", 4, 1024)
        settings = cls(
            chord,
            vnodes,
            replicas,
            copies_min,
            _whole(table, "timeout_ms", 500, 60_000) / 1000,
            _whole(table, "repair_ms", 5000, 3_600_000) / 1000,
            _whole(table, "quota_mb", 256, 1_000_000) * MIB,
            _flag(table, "power_cut"),
        )
        if table:
            raise ConfigError(f"there is no setting dht.{sorted(table)[0]}")
        return settings


def contacts_of(config: ClusterConfig, settings: DhtSettings) -> dict[str, list[Contact]]:
    """All identifiers of all peers in the file, by peer."""
    return {
        node.name: [contact_of(node.name, node.host, node.port, i) for i in range(settings.vnodes)]
        for node in config.of_service(SERVICE)
    }


def _pair(table: dict[str, Any], name: str, default: tuple[float, float]) -> tuple[float, float]:
    value = table.pop(name, None)
    if value is None:
        return default
    if not isinstance(value, list) or [type(v) for v in value] != [int, int]:
        raise ConfigError(f"dht.{name} should be [low, high] in milliseconds, not {value!r}")
    return value[0] / 1000, value[1] / 1000


def _whole(table: dict[str, Any], name: str, default: int, most: int) -> int:
    value = table.pop(name, default)
    if type(value) is not int or not 1 <= value <= most:
        raise ConfigError(f"dht.{name} should be a number from 1 to {most}, not {value!r}")
    return value


def _flag(table: dict[str, Any], name: str) -> bool:
    value = table.pop(name, False)
    if type(value) is not bool:
        raise ConfigError(f"dht.{name} should be true or false, not {value!r}")
    return value
