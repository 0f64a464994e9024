"""Which daemons a cluster has, and what they need on disk before they start.

    ring up                  three raft nodes: n1 n2 n3, on ports from base_port
    ring up raft=5           n4 and n5 beside them
    ring up raft=3           without them again

The folder (`.ring`, or $RING_HOME) holds `cluster.toml`, the authority in `ca/`, and a folder a
node with its key, certificate, data and logs. A node's name and port do not change while it
exists.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Final

from cluster.errors import Conflict, NotRunning, Usage
from cluster.services import SERVICES
from netstack.runtime.config import ClusterConfig, ConfigError, NodeConfig
from security import keystore
from security.errors import CertificateRejected, KeystoreError
from security.identity import Authority, Identity, is_revoked

BASE_PORT: Final = 7400  # below the ephemeral range, which begins at 32768 here
HOST: Final = "127.0.0.1"
NODES_MAX: Final = 99

# Identities that are not daemons: the command line, and the supervisor.
OPERATORS: Final = (("cli", "client"), ("supervisor", "supervisor"))


def home() -> Path:
    """$RING_HOME, or `.ring` here; raises Usage for what is no folder."""
    folder = Path(os.environ.get("RING_HOME") or ".ring").absolute()
    if folder.exists() and not folder.is_dir():
        raise Usage(f"{folder} is not a folder; name another with RING_HOME")
    return folder


def parse_counts(words: list[str]) -> dict[str, int]:
    """`raft=5 …` as a map; raises Usage."""
    counts = {}
    for word in words:
        service, equals, number = word.partition("=")
        if service not in SERVICES or not equals or not number.isdecimal():
            known = ", ".join(f"{name}=N" for name in SERVICES)
            raise Usage(f"{word!r} is not understood; write {known}")
        if not 1 <= int(number) <= NODES_MAX:
            raise Usage(f"{word}: between 1 and {NODES_MAX} nodes")
        counts[service] = int(number)
    return counts


def complete(counts: dict[str, int], present: Collection[str]) -> dict[str, int]:
    """`counts`, with what its services bring along; they come before it.

    present: services of which the cluster has nodes already.
    """
    found: dict[str, int] = {}
    for service, count in counts.items():
        for brought, number in SERVICES[service].brings.items():
            if brought not in counts and brought not in present:
                found.setdefault(brought, number)
        found[service] = count
    return found


def load(folder: Path) -> ClusterConfig:
    """The cluster of `folder`; raises NotRunning if there is none, Usage if it makes no sense."""
    if not exists(folder):
        raise NotRunning(f"there is no cluster in {folder}; `ring up` makes one")
    try:
        return ClusterConfig.load(folder / "cluster.toml")
    except ConfigError as error:
        raise Usage(str(error)) from None


def check(path: Path) -> None:
    """Raises Usage for a cluster file that cannot be used."""
    try:
        ClusterConfig.load(path)
    except ConfigError as error:
        raise Usage(str(error)) from None


def exists(folder: Path) -> bool:
    """Whether `ring up` has been here."""
    return (folder / "cluster.toml").exists()


def create(
    folder: Path, counts: dict[str, int], *, any_port: bool, power_cut: bool
) -> ClusterConfig:
    """A new cluster: authority, identities and cluster.toml; raises Conflict for taken ports."""
    counts = complete(counts or {"raft": SERVICES["raft"].count}, ())
    total = sum(counts.values())
    ports = free_ports(total) if any_port else list(range(BASE_PORT + 1, BASE_PORT + 1 + total))
    names = [
        (f"{SERVICES[service].prefix}{i}", service)
        for service, count in counts.items()
        for i in range(1, count + 1)
    ]
    nodes = tuple(
        NodeConfig(name, service, HOST, port)
        for (name, service), port in zip(names, ports, strict=True)
    )
    if not any_port:
        refuse_taken_ports(nodes)
    folder.mkdir(parents=True, exist_ok=True)
    settings: dict[str, dict[str, object]] = {}
    voters = [node.name for node in nodes if node.service == "raft"]
    if voters:
        settings["raft"] = {"bootstrap": voters, "power_cut": power_cut}
    for service in {"dht", "chunks"} & counts.keys():
        settings[service] = {"power_cut": power_cut}
    config = ClusterConfig(
        name=folder.name.lstrip(".") or "ring",
        id=os.urandom(8).hex(),
        suite="AESGCM",
        base_port=BASE_PORT,
        nodes=nodes,
        settings=settings,
        home=folder,
    )
    authority = Authority.create(config.id, now=time.time(), entropy=os.urandom)
    keystore.save_authority(folder, authority)
    _issue(folder, authority, [*names, *OPERATORS])
    write(folder, config)
    return config


def resize(folder: Path, config: ClusterConfig, service: str, count: int) -> ClusterConfig:
    """The topology with `count` nodes of `service`; new ones get identities. Not yet written."""
    prefix = SERVICES[service].prefix
    present = config.of_service(service)
    kept = [node for node in config.nodes if node.service != service or node in present[:count]]
    used = {node.port for node in config.nodes}
    names = {node.name for node in present}
    number = 1
    while len([n for n in kept if n.service == service]) < count:
        name = f"{prefix}{number}"
        number += 1
        if name in names:
            continue
        port = next(p for p in range(config.base_port + 1, 65536) if p not in used)
        used.add(port)
        kept.append(NodeConfig(name, service, HOST, port))
    added = [node for node in kept if node not in config.nodes]
    refuse_taken_ports(tuple(added))
    if added:
        _issue(folder, authority_of(folder), [(node.name, service) for node in added])
    return replace(config, nodes=tuple(kept), settings=_without_the_removed(config, kept))


def _without_the_removed(
    config: ClusterConfig, kept: list[NodeConfig]
) -> dict[str, dict[str, object]]:
    """The settings, of which none names a node that is gone."""
    settings = {service: dict(of) for service, of in config.settings.items()}
    raft = settings.get("raft", {})
    if isinstance(first := raft.get("bootstrap"), list):
        names = {node.name for node in kept}
        raft["bootstrap"] = [name for name in first if name in names]
    return settings


def write(folder: Path, config: ClusterConfig) -> None:
    """Put cluster.toml in place, whole."""
    temporary = folder / "cluster.toml.new"
    temporary.write_text(config.dump(), encoding="utf-8")
    temporary.rename(folder / "cluster.toml")


def certified(config: ClusterConfig) -> list[str]:
    """Who has a certificate."""
    return [*(node.name for node in config.nodes), *(name for name, _ in OPERATORS)]


def renew_due_certificates(folder: Path, config: ClusterConfig) -> list[str]:
    """Renew what is past two thirds of its life; returns the names. Raises Usage."""
    due = []
    for name in certified(config):
        identity = identity_of(folder, name)
        revoked = is_revoked(identity.serial, identity.revocations)
        if identity.renew_due(time.time()) and not revoked:
            due.append(name)
    renew(folder, due)
    return due


def renew(folder: Path, names: list[str]) -> None:
    """New certificates for the keys of `names`; raises Usage."""
    authority = authority_of(folder)
    for name in names:
        try:
            identity = identity_of(folder, name)
            fresh = authority.renew(identity, now=time.time(), entropy=os.urandom)
        except CertificateRejected as error:
            raise Usage(f"{error}; new keys for it: ring cert reissue {name}") from None
        keystore.save_identity(folder, fresh)


def reissue(folder: Path, config: ClusterConfig, name: str) -> None:
    """New keys and a new certificate for `name`."""
    services = dict(OPERATORS) | {node.name: node.service for node in config.nodes}
    _issue(folder, authority_of(folder), [(name, services[name])])


def forget_node(folder: Path, name: str) -> None:
    """Delete a removed node's folder: a node of that name would be another one."""
    shutil.rmtree(folder / "nodes" / name, ignore_errors=True)


def refuse_taken_ports(nodes: tuple[NodeConfig, ...]) -> None:
    """Raises Conflict, naming the holder, if a port is in use, and Usage if there is no such."""
    from netstack.runtime.endpoint import EndpointError, PortTaken
    from netstack.runtime.sockets import bind_udp

    for node in nodes:
        try:
            bind_udp(node.address).close()
        except PortTaken as error:
            cure = "end it, or use: ring up --any-port"
            raise Conflict(f"{node.name}: {error}; {cure}") from None
        except EndpointError as error:
            raise Usage(f"{node.name}: {error}") from None


def identity_of(folder: Path, name: str) -> Identity:
    """The keys and certificate of `name`; raises Usage."""
    try:
        return keystore.load_identity(folder, name)
    except KeystoreError as error:
        raise Usage(str(error)) from None


def authority_of(folder: Path) -> Authority:
    """The cluster's authority; raises Usage."""
    try:
        return keystore.load_authority(folder)
    except KeystoreError as error:
        raise Usage(str(error)) from None


def _issue(folder: Path, authority: Authority, names: list[tuple[str, str]]) -> None:
    for name, service in names:
        identity = authority.issue(name, service, now=time.time(), entropy=os.urandom)
        keystore.save_identity(folder, identity)


def free_ports(count: int, kind: socket.SocketKind = socket.SOCK_DGRAM) -> list[int]:
    """So many ports that nobody holds at the moment."""
    sockets = [socket.socket(socket.AF_INET, kind) for _ in range(count)]
    try:
        for sock in sockets:
            sock.bind((HOST, 0))
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()
