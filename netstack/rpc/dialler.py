"""Dials one address until somebody answers, and never in haste.

A dial that follows another closely waits first, each time twice as long: a restarted neighbour is
back within tens of milliseconds, one that is down for long, or hangs up at once, should not be
asked often. With jitter, lest all ask at once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from netstack.rpc.errors import NotListening, Unavailable
from netstack.runtime.endpoint import Address

if TYPE_CHECKING:
    from netstack.rpc.connection import RpcConnection
    from netstack.rpc.node import RpcNode

REDIAL_S_MIN, REDIAL_S_MAX = 0.02, 0.5

# One dial's limit; a loopback handshake takes 2 ms, a lossy one a few retransmissions.
DIAL_TIMEOUT_S = 2.0


class Dialler:
    """Makes connections to the `service` at `address`, whose certificate must bear `expect`."""

    def __init__(self, node: RpcNode, address: Address, service: str, expect: str | None) -> None:
        self._node = node
        self._address = address
        self._service = service
        self._expect = expect
        self._began = float("-inf")
        self._pause_s = REDIAL_S_MIN

    def __repr__(self) -> str:
        host, port = self._address
        return f"<Dialler {self._expect or self._service} {host}:{port}>"

    async def dial(self, *, patient: bool = True) -> RpcConnection:
        """An open connection, however long it takes; one caller at a time.

        `patient`: also if no process listens there. Else that is NotListening, after the pause.
        """
        runtime = self._node.runtime
        while True:
            if runtime.clock.now() - self._began < REDIAL_S_MAX:
                await asyncio.sleep(self._pause_s * (0.5 + runtime.rng.random()))
                self._pause_s = min(2 * self._pause_s, REDIAL_S_MAX)
            else:
                self._pause_s = REDIAL_S_MIN
            self._began = runtime.clock.now()
            try:
                return await self._node.dial(
                    self._address, self._service, self._expect, DIAL_TIMEOUT_S
                )
            except Unavailable as error:
                if isinstance(error, NotListening) and not patient:
                    raise
