"""A UDP socket: binding it, or saying clearly why not; sending on it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from netstack.runtime.endpoint import NOT_ECT, Address, EndpointError, PortTaken, Receiver

# The kernel's default of 208 KiB overflows in 2 ms at full speed; this is net.core.rmem_max here.
BUFFER_BYTES = 4 * 1024 * 1024

# linux/in.h; the socket module does not have them. PROBE: nothing is cut into fragments, here or by
# a router ("don't fragment" is set), and what ICMP says of the path is not believed (RFC 8899 §1):
# what is larger than the device carries fails with EMSGSIZE. Without it a probe of any size would
# arrive, in fragments, and a search for the path's MTU find the largest datagram that exists.
IP_MTU_DISCOVER = 10
IP_PMTUDISC_PROBE = 3

# A socket bound to it has the port on every address.
ANY_HOST = "0.0.0.0"


class UdpSender:
    """The sending half of both real endpoints.

    The non-blocking socket is written to directly: on loopback `sendto` copies and returns, and
    its one error that matters, a full buffer, means a lost datagram.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._receiver: Receiver | None = None
        self._mark = NOT_ECT
        self.address: Address = sock.getsockname()[:2]
        self.send_failures = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address[0]}:{self.address[1]}>"

    def send(self, datagrams: Sequence[bytes], destination: Address, mark: int = NOT_ECT) -> None:
        """Send each; a datagram the kernel refuses is lost and counted."""
        if mark != self._mark:
            self._set_mark(mark)
        sendto = self._socket.sendto
        for datagram in datagrams:
            try:
                sendto(datagram, destination)
            except OSError:
                self.send_failures += 1

    def set_receiver(self, receiver: Receiver) -> None:
        """See Endpoint."""
        self._receiver = receiver

    def refuses(self, destination: Address) -> bool:
        """See Endpoint. This machine's kernel says so at once; who is further away, never."""
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as knocking:
                knocking.setblocking(False)
                knocking.connect(destination)
                knocking.send(b"")
                knocking.recv(1)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        return False

    def _set_mark(self, mark: int) -> None:
        # A property of the socket, since nearly all that it sends has the same.
        self._mark = mark
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, mark)


def bind_udp(address: Address) -> socket.socket:
    """A non-blocking socket on `address` (port 0: any); raises PortTaken or EndpointError."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    try:
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
        if sys.platform == "linux":
            sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise _explain(error, address) from None
    return sock


def _explain(error: OSError, address: Address) -> EndpointError:
    host, port = address
    if error.errno == errno.EADDRINUSE:
        holder = port_holder(port, host)
        return PortTaken(
            f"UDP port {port} on {host} is taken" + (f" by {holder}" if holder else "")
        )
    return EndpointError(f"cannot bind UDP {host}:{port}: {error.strerror}")


def port_holder(port: int, host: str = ANY_HOST) -> str | None:
    """`pid 123 (name)` of the process that holds the UDP port, as far as /proc tells."""
    inodes = set()
    with contextlib.suppress(OSError):
        wanted, anywhere = _as_in_proc(host), _as_in_proc(ANY_HOST)
        for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
            fields = line.split()
            bound, _, number = fields[1].partition(":")
            same = bound == wanted or anywhere in (bound, wanted)
            if same and int(number, 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for entry in Path("/proc").glob("[0-9]*/fd/*") if inodes else ():
        with contextlib.suppress(OSError):
            if os.readlink(entry) in inodes:
                command = (entry.parents[1] / "cmdline").read_bytes().replace(b"\0", b" ")
                return f"pid {entry.parts[2]} ({command.decode(errors='replace').strip()[:80]})"
    return None


def _as_in_proc(host: str) -> str:
    packed = socket.inet_aton(socket.gethostbyname(host))
    return f"{int.from_bytes(packed, sys.byteorder):08X}"
