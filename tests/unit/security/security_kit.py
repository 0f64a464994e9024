"""What the tests of security share: seeded entropy, identities, a handshake run to its end."""

from __future__ import annotations

import random

from security.channel import Handshake, Session
from security.identity import Authority, Identity

NOW = 1_800_000_000.0


def entropy(seed: int = 0):
    return random.Random(seed).randbytes


class Cluster:
    """An authority and two nodes."""

    def __init__(self, name: str = "c1", seed: int = 0) -> None:
        self.entropy = entropy(seed)
        self.authority = Authority.create(name, now=NOW, entropy=self.entropy)
        self.n1 = self.node("n1")
        self.n2 = self.node("n2")

    def node(self, name: str, service: str = "raft", **options) -> Identity:
        return self.authority.issue(name, service, now=NOW, entropy=self.entropy, **options)


def static_of(identity: Identity) -> bytes:
    return identity.static_key.public_key().public_bytes_raw()


def pair(initiator: Identity, responder: Identity, pattern: str = "XX", **changes):
    """The two sides of a handshake; `changes` prefixed i_ or r_ override one side."""
    common = {"pattern": pattern, "service": "raft", "suite": "AESGCM", "now": NOW}

    def side(identity: Identity, prefix: str, seed: int, **extra) -> Handshake:
        own = {k[2:]: v for k, v in changes.items() if k.startswith(prefix)}
        return Handshake(identity, **{"entropy": entropy(seed), **common, **extra, **own})

    known = {"remote_static": static_of(responder)} if pattern == "IK" else {}
    return (
        side(initiator, "i_", 101, initiator=True, **known),
        side(responder, "r_", 102, initiator=False),
    )


def complete(first: Handshake, second: Handshake, **options) -> tuple[Session, Session]:
    """Pass messages until both are finished."""
    while not second.finished or not first.finished:
        second.read_message(first.write_message())
        first, second = second, first
    sides = sorted((first, second), key=lambda h: not h._initiator)
    return sides[0].session(**options), sides[1].session(**options)


def connected(**options) -> tuple[Session, Session]:
    cluster = Cluster()
    return complete(*pair(cluster.n1, cluster.n2), **options)
