"""`cluster.toml`: the resolved topology that the launcher writes and every daemon reads.

    [cluster]
    name = "ring"
    id = "6f1c0a9b2d3e4f50"          # bound into every handshake
    suite = "AESGCM"                 # or "ChaChaPoly"
    base_port = 7400

    [raft]                           # settings of a service, for all its nodes
    heartbeat_ms = 50

    [[node]]
    name = "n1"
    service = "raft"
    host = "127.0.0.1"
    port = 7401

Every mistake is one plain sentence that names the file and the key.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netstack.runtime.endpoint import Address

SUITES = ("AESGCM", "ChaChaPoly")

# A node's name is that of its folder, beside those of the operators.
NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
OPERATORS = ("cli", "supervisor")

# What TOML lets stand for a key without quotes.
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class ConfigError(Exception):
    """The configuration cannot be used; the message says which key, and what would be right."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """One daemon: where it listens and what it is."""

    name: str
    service: str
    host: str
    port: int

    @property
    def address(self) -> Address:
        """(host, port)."""
        return self.host, self.port


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """The whole file."""

    name: str
    id: str
    suite: str
    base_port: int
    nodes: tuple[NodeConfig, ...]
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    home: Path = Path()

    @classmethod
    def load(cls, path: Path) -> ClusterConfig:
        """Read and check a file; raises ConfigError."""
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{path} does not exist; `ring up` makes it") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read: {error}") from None
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path} is not TOML: {error}") from None
        try:
            return cls.parse(data, path.parent)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    @classmethod
    def parse(cls, data: dict[str, Any], home: Path) -> ClusterConfig:
        """Check the decoded file; raises ConfigError."""
        cluster = _table(data, "cluster")
        suite = _value(cluster, "cluster.suite", str, "AESGCM")
        if suite not in SUITES:
            raise ConfigError(f"cluster.suite must be one of {', '.join(SUITES)}, not {suite!r}")
        entries = data.get("node", [])
        if not isinstance(entries, list):
            raise ConfigError("node should be a list: write [[node]], with two brackets")
        nodes = [_node(entry, f"node[{i}]") for i, entry in enumerate(entries)]
        _refuse_unknown(cluster, "cluster", ("name", "id", "suite", "base_port"))
        base_port = _value(cluster, "cluster.base_port", int, 7400)
        if not 0 <= base_port < 65_535:
            raise ConfigError(f"cluster.base_port must leave room for ports, not {base_port}")
        for key, value in data.items():
            if key != "node" and not isinstance(value, dict):
                raise ConfigError(f"{key} stands in no table; there are [cluster] and [[node]]")
        _refuse_twins(nodes)
        return cls(
            name=_value(cluster, "cluster.name", str, "ring"),
            id=_value(cluster, "cluster.id", str),
            suite=suite,
            base_port=base_port,
            nodes=tuple(nodes),
            settings={
                key: value
                for key, value in data.items()
                if key not in ("cluster", "node") and isinstance(value, dict)
            },
            home=home,
        )

    def node(self, name: str) -> NodeConfig:
        """The node `name`; raises ConfigError naming those there are."""
        for node in self.nodes:
            if node.name == name:
                return node
        known = ", ".join(node.name for node in self.nodes) or "none"
        raise ConfigError(f"there is no node {name!r} in this cluster; its nodes are: {known}")

    def of_service(self, service: str) -> tuple[NodeConfig, ...]:
        """The nodes that run `service`."""
        return tuple(node for node in self.nodes if node.service == service)

    def dump(self) -> str:
        """The file's text."""
        lines = ["# Written by `ring up`; daemons read it when they start.", "", "[cluster]"]
        lines += _assignments(self, "name", "id", "suite", "base_port")
        for service, settings in sorted(self.settings.items()):
            lines += ["", f"[{_key(service)}]"]
            lines += [f"{_key(key)} = {_toml(value)}" for key, value in settings.items()]
        for node in self.nodes:
            lines += ["", "[[node]]", *_assignments(node, "name", "service", "host", "port")]
        return "\n".join(lines) + "\n"


def _table(data: dict[str, Any], name: str) -> dict[str, Any]:
    table = data.get(name)
    if not isinstance(table, dict):
        raise ConfigError(f"the table [{name}] is missing")
    return table


def _node(entry: Any, at: str) -> NodeConfig:
    if not isinstance(entry, dict):
        raise ConfigError(f"{at} should be a table, not {entry!r}")
    _refuse_unknown(entry, at, ("name", "service", "host", "port"))
    port = _value(entry, f"{at}.port", int)
    if not 0 < port < 65536:
        raise ConfigError(f"{at}.port must be between 1 and 65535, not {port}")
    name = _value(entry, f"{at}.name", str)
    if not NODE_NAME.fullmatch(name) or name in OPERATORS:
        raise ConfigError(
            f"{at}.name names a folder: letters, digits, - and _, and not"
            f" {' or '.join(OPERATORS)}; {name!r} will not do"
        )
    return NodeConfig(
        name,
        _value(entry, f"{at}.service", str),
        _value(entry, f"{at}.host", str, "127.0.0.1"),
        port,
    )


def _value(table: Any, path: str, kind: type, default: Any = None) -> Any:
    key = path.rpartition(".")[2]
    value = table.get(key, default) if isinstance(table, dict) else None
    if value is None:
        raise ConfigError(f"{path} is missing")
    if type(value) is not kind:
        raise ConfigError(f"{path} should be {kind.__name__}, not {value!r}")
    return value


def _refuse_unknown(table: dict[str, Any], at: str, known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            raise ConfigError(f"there is no {at}.{key}; there are: {', '.join(known)}")


def _refuse_twins(nodes: list[NodeConfig]) -> None:
    names: set[str] = set()
    addresses: dict[Address, str] = {}
    for node in nodes:
        if node.name in names:
            raise ConfigError(f"two nodes are named {node.name!r}")
        if node.address in addresses:
            raise ConfigError(f"{node.name} and {addresses[node.address]} share port {node.port}")
        names.add(node.name)
        addresses[node.address] = node.name


def _assignments(owner: object, *keys: str) -> list[str]:
    return [f"{key} = {_toml(getattr(owner, key))}" for key in keys]


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {_toml(of)}" for key, of in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, (str, bool)):
        # As JSON has them, but that TOML takes no DEL as it is and no halves of a character.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value)  # numbers and dates are written as Python writes them


def _key(key: str) -> str:
    return key if BARE_KEY.fullmatch(key) else _toml(key)
