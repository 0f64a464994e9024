"""The portable endpoint: asyncio-dgram receives.

asyncio-dgram's stream queues what the loop has read, and its coroutine does not suspend while that
queue holds something, so a wake-up costs one hop however many datagrams it brings.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import asyncio_dgram

from netstack.runtime.busy_poll import BusyPoll
from netstack.runtime.endpoint import NOT_ECT, Address
from netstack.runtime.sockets import UdpSender, bind_udp

# Datagrams taken in a row, so that a flood cannot starve timers.
BURST_MAX = 256


class DgramEndpoint(UdpSender):
    """A UDP socket on the running event loop."""

    def __init__(self, sock: socket.socket, stream: Any) -> None:
        super().__init__(sock)
        self._stream = stream
        self._busy = BusyPoll(asyncio.get_running_loop())
        self._task = asyncio.get_running_loop().create_task(self._receive(), name="endpoint")

    @classmethod
    async def bind(cls, address: Address) -> DgramEndpoint:
        """A socket on `address` (port 0: any); raises PortTaken or EndpointError."""
        sock = bind_udp(address)
        # A transport closes its socket a turn late; what sends is closed at once.
        return cls(sock, await asyncio_dgram.from_socket(sock.dup()))

    def close(self) -> None:
        """See Endpoint."""
        self._busy.stop()
        self._task.cancel()
        self._stream.close()
        self._socket.close()

    async def _receive(self) -> None:
        taken = 0
        while True:
            try:
                # Does not suspend while the stream's queue holds something: a burst is one wake-up.
                data, source = await self._stream.recv()
            except asyncio_dgram.TransportClosed:
                return
            except OSError:
                continue  # an ICMP error of an earlier send; the transport's timers will know
            if self._receiver is not None:
                self._hand_over(data, source)
            self._busy.stir()
            taken += 1
            if taken % BURST_MAX == 0:
                await asyncio.sleep(0)

    def _hand_over(self, data: bytes, source: Address) -> None:
        """As a callback of the loop would: an error in the receiver is told, and that is all."""
        assert self._receiver is not None
        try:
            self._receiver((data,), source, NOT_ECT)
        except Exception as error:
            context = {"message": f"{self!r}: the receiver failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
