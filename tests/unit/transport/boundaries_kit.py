"""A limit from both sides: `accepts(inside)` holds, `accepts(outside)` does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from transport_kit import Pair

from netstack.transport.config import TransportConfig


class Limit(NamedTuple):
    name: str
    of: str  # "module.CONSTANT" or "TransportConfig.field", blanks between several
    accepts: Callable[[Any], bool]
    inside: Any  # exactly at the limit
    outside: Any  # one more, or the least that is too much


def table(*limits):
    """The decorator that makes a test of each row, and of each side of it."""
    sides = [
        pytest.param(limit.accepts, value, accepted, id=f"{limit.name}-{word}")
        for limit in limits
        for value, accepted, word in (
            (limit.inside, True, "at the limit"),
            (limit.outside, False, "beyond it"),
        )
    ]
    return pytest.mark.parametrize(("accepts", "value", "accepted"), sides)


def pair_of(**config):
    """Two connections, both open, nothing of the handshake under way."""
    pair = Pair(TransportConfig(**config))
    pair.run(1.0)
    return pair


def reads(payload, **config):
    """Whether a client goes on after the server's packet with these frames."""
    pair = pair_of(**config)
    for _ in range(3):
        pair.client.connection.outgoing.seal(b"\x01")  # numbers that may be acknowledged
    server = pair.server.connection
    server._out.append(server.outgoing.seal(payload))
    pair.run(0.1)
    return pair.client.connection.state == "open"
