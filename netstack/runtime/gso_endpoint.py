"""The fast endpoint of Linux: a train of datagrams is one system call, in both directions.

    UDP_SEGMENT (GSO)   one sendmsg of up to 64 datagrams of one size, of which the last may be
                        shorter; the kernel cuts it, on loopback not before it is received
    UDP_GRO             one recvmsg of what came in such a train, with the size to cut it by

A sendto costs as much as all that Python does for a packet of 1,200 bytes; a train costs one. No
queue, no future and no task is between the kernel and the receiver: the loop's callback reads the
socket until it is empty, or has had its share.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import socket
import struct
import termios
from collections.abc import Sequence
from typing import Final

from netstack.runtime.busy_poll import BusyPoll
from netstack.runtime.endpoint import NOT_ECT, Address
from netstack.runtime.sockets import UdpSender, bind_udp

# linux/udp.h; the socket module does not have them.
SOL_UDP: Final = 17
UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104

SEGMENTS_MAX: Final = 64
TRAIN_BYTES_MAX: Final = 65_507

DATAGRAM_BYTES_MAX: Final = 65_535
ANCILLARY_BYTES: Final = 2 * socket.CMSG_SPACE(4)  # a train's segment size, and the two ECN bits
ECN_BITS: Final = 3

# Datagrams, and bytes, taken in a row, or a train more: a flood cannot starve timers, and who sends
# hears of the first before the last has been read.
BURST_MAX: Final = 256
BURST_BYTES: Final = 512 * 1024

# Where one datagram comes at a time, only every so often it is asked whether there is another: to
# ask takes half a microsecond, and who is not found now is found in the loop's next turn.
ASKED_EVERY: Final = 8

# Why a train is refused of which datagrams may still pass one by one: the device cannot cut it, or
# its segments are larger than the device's MTU (older kernels say EINVAL to that as well).
NOT_AS_A_TRAIN: Final = (errno.EIO, errno.EINVAL, errno.EMSGSIZE)

_SIZE: Final = struct.Struct("=H")
_GRO_SIZE: Final = struct.Struct("=i")

NONE_WAITING: Final = bytes(_GRO_SIZE.size)  # what FIONREAD says of an empty socket


def kernel_has_it() -> bool:
    """Whether this kernel cuts and joins trains."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.setsockopt(SOL_UDP, UDP_GRO, 1)
            sock.setsockopt(SOL_UDP, UDP_SEGMENT, 0)
        except OSError:
            return False
    return True


class GsoEndpoint(UdpSender):
    """A UDP socket on the running event loop, which must watch file descriptors."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        sock.setsockopt(SOL_UDP, UDP_GRO, 1)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        self._loop = asyncio.get_running_loop()
        self._busy = BusyPoll(self._loop, look=self._look)
        self._trains = True  # until the device turns out not to take them
        self._descriptor = sock.fileno()
        self._reads = 0
        self._several = False  # whether to expect more than one datagram
        self._waiting = bytearray(_GRO_SIZE.size)
        self._loop.add_reader(self._descriptor, self._readable)

    @classmethod
    async def bind(cls, address: Address) -> GsoEndpoint:
        """A socket on `address` (port 0: any); raises PortTaken or EndpointError."""
        return cls(bind_udp(address))

    def send(self, datagrams: Sequence[bytes], destination: Address, mark: int = NOT_ECT) -> None:
        """See Endpoint."""
        count = len(datagrams)
        if mark != self._mark:
            self._set_mark(mark)
        if count == 1:
            try:
                self._socket.sendto(datagrams[0], destination)
            except OSError:
                self.send_failures += 1
            return
        if not self._trains or len(datagrams[0]) > TRAIN_BYTES_MAX // 2:  # two are no train
            super().send(datagrams, destination, mark)
            return
        start = 0
        while start < count:
            size = len(datagrams[start])
            end = start + 1
            limit = min(count, start + min(SEGMENTS_MAX, TRAIN_BYTES_MAX // max(size, 1)))
            while end < limit and len(datagrams[end]) == size:
                end += 1
            if end < limit and len(datagrams[end]) < size:
                end += 1
            self._send_train(datagrams[start:end], size, destination)
            start = end

    def _send_train(self, train: Sequence[bytes], size: int, destination: Address) -> None:
        if len(train) == 1:
            super().send(train, destination, self._mark)
            return
        ancillary = [(SOL_UDP, UDP_SEGMENT, _SIZE.pack(size))]
        try:
            self._socket.sendmsg(train, ancillary, 0, destination)
        except OSError as error:
            if error.errno not in NOT_AS_A_TRAIN:
                self.send_failures += len(train)
                return
            # What fits goes singly; which of them do not is the path's business, and none of GSO's.
            failures = self.send_failures
            super().send(train, destination, self._mark)
            if error.errno != errno.EMSGSIZE and self.send_failures == failures:
                self._trains = False

    def close(self) -> None:
        """See Endpoint."""
        if self._socket.fileno() < 0:
            return
        self._busy.stop()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def _readable(self) -> None:
        sock, receiver = self._socket, self._receiver
        taken = taken_bytes = 0
        while taken < BURST_MAX and taken_bytes < BURST_BYTES:
            taken += 1
            try:
                data, ancillary, _, source = sock.recvmsg(DATAGRAM_BYTES_MAX, ANCILLARY_BYTES)
            except BlockingIOError:
                break
            except OSError:
                continue  # an ICMP error of an earlier send; the transport's timers will know
            taken_bytes += len(data)
            mark = size = 0
            for level, _, value in ancillary:
                if level == SOL_UDP:
                    (size,) = _GRO_SIZE.unpack(value)
                else:
                    mark = value[0] & ECN_BITS
            train: Sequence[bytes] = (data,)
            if size:
                train = [data[at : at + size] for at in range(0, len(data), size)]
                taken += len(train)
            if receiver is not None:
                receiver(train, source, mark)
            if taken == 1 and not self._several:
                break
            if sock.fileno() < 0 or not self._has_another():
                break  # the receiver has closed it, or that was all
        self._reads += 1
        self._several = taken > 1 or self._reads % ASKED_EVERY == 0
        self._busy.stir()

    def _has_another(self) -> bool:
        # To be told by an exception that there is none costs four times this.
        fcntl.ioctl(self._descriptor, termios.FIONREAD, self._waiting)
        return self._waiting != NONE_WAITING

    def _look(self) -> bool:
        """Take what has come; whether there was anything. See BusyPoll."""
        if self._socket.fileno() < 0 or not self._has_another():
            return False
        self._readable()
        return True
