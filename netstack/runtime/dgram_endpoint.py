"""The real endpoint: asyncio-dgram receives, the socket itself sends.

asyncio-dgram's stream queues what the loop has read, and its coroutine does not suspend while that
queue holds something, so a wake-up costs one hop however many datagrams it brings. Sending goes to
the non-blocking socket directly: on loopback `sendto` copies and returns, and its one error that
matters, a full buffer, means a lost datagram.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncio_dgram

from netstack.runtime.endpoint import Address, EndpointError, PortTaken, Receiver

# The kernel's default of 208 KiB overflows in 2 ms at full speed; this is net.core.rmem_max here.
BUFFER_BYTES = 4 * 1024 * 1024

# Datagrams taken in a row, so that a flood cannot starve timers.
BURST_MAX = 256


class DgramEndpoint:
    """A UDP socket on the running event loop."""

    def __init__(self, sock: socket.socket, stream: Any) -> None:
        self._socket = sock
        self._stream = stream
        self._receiver: Receiver | None = None
        self._task = asyncio.get_running_loop().create_task(self._receive(), name="endpoint")
        self.address: Address = sock.getsockname()[:2]
        self.send_failures = 0

    def __repr__(self) -> str:
        return f"<DgramEndpoint {self.address[0]}:{self.address[1]}>"

    @classmethod
    async def bind(cls, address: Address) -> DgramEndpoint:
        """A socket on `address` (port 0: any); raises PortTaken or EndpointError."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        try:
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
            sock.bind(address)
        except OSError as error:
            sock.close()
            raise _explain(error, address) from None
        return cls(sock, await asyncio_dgram.from_socket(sock))

    def send(self, datagrams: Sequence[bytes], destination: Address) -> None:
        """Send each; a datagram the kernel refuses is lost and counted."""
        sendto = self._socket.sendto
        for datagram in datagrams:
            try:
                sendto(datagram, destination)
            except OSError:
                self.send_failures += 1

    def set_receiver(self, receiver: Receiver) -> None:
        """See Endpoint."""
        self._receiver = receiver

    def close(self) -> None:
        """See Endpoint."""
        self._task.cancel()
        self._stream.close()

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
                self._receiver((data,), source)
            taken += 1
            if taken % BURST_MAX == 0:
                await asyncio.sleep(0)


def _explain(error: OSError, address: Address) -> EndpointError:
    host, port = address
    if error.errno == errno.EADDRINUSE:
        holder = port_holder(port)
        return PortTaken(
            f"UDP port {port} on {host} is taken" + (f" by {holder}" if holder else "")
        )
    return EndpointError(f"cannot bind UDP {host}:{port}: {error.strerror}")


def port_holder(port: int) -> str | None:
    """`pid 123 (name)` of the process that holds the UDP port, as far as /proc tells."""
    inodes = set()
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for entry in Path("/proc").glob("[0-9]*/fd/*") if inodes else ():
        with contextlib.suppress(OSError):
            if os.readlink(entry) in inodes:
                command = (entry.parents[1] / "cmdline").read_bytes().replace(b"\0", b" ")
                return f"pid {entry.parts[2]} ({command.decode(errors='replace').strip()[:80]})"
    return None
