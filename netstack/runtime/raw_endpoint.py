"""The fast endpoint: a non-blocking socket, read by the loop's own callback.

No queue, no future and no task between the kernel and the receiver. It needs a loop that watches
file descriptors (`add_reader`), as uvloop and asyncio's selector loops do.
"""

from __future__ import annotations

import asyncio
import socket

from netstack.runtime.busy_poll import BusyPoll
from netstack.runtime.endpoint import Address
from netstack.runtime.sockets import UdpSender, bind_udp

# Datagrams taken in a row, so that a flood cannot starve timers.
BURST_MAX = 256

DATAGRAM_BYTES_MAX = 65_535


class RawEndpoint(UdpSender):
    """A UDP socket on the running event loop."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._loop = asyncio.get_running_loop()
        self._busy = BusyPoll(self._loop)
        self._loop.add_reader(sock.fileno(), self._readable)

    @classmethod
    async def bind(cls, address: Address) -> RawEndpoint:
        """A socket on `address` (port 0: any); raises PortTaken or EndpointError."""
        return cls(bind_udp(address))

    def close(self) -> None:
        """See Endpoint."""
        if self._socket.fileno() < 0:
            return
        self._busy.stop()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def _readable(self) -> None:
        receive, receiver = self._socket.recvfrom, self._receiver
        for _ in range(BURST_MAX):
            try:
                data, source = receive(DATAGRAM_BYTES_MAX)
            except BlockingIOError:
                break
            except OSError:
                continue  # an ICMP error of an earlier send; the transport's timers will know
            if receiver is not None:
                receiver((data,), source)
        self._busy.stir()
