"""A datagram socket, as small as it can be: what a protocol needs, and what a faster one can keep.

Sending never blocks and never raises for the network's sake: a datagram that the kernel has no
room for is lost, as it would be on a wire. Receiving hands over whole bursts, so that one wake-up
can serve many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

Address = tuple[str, int]

Receiver = Callable[[Sequence[bytes], Address], None]


class EndpointError(Exception):
    """The socket cannot be had."""


class PortTaken(EndpointError):
    """Another socket is bound to the address; the message says whose, if that can be known."""


class Endpoint(Protocol):
    """One bound datagram socket."""

    address: Address

    def send(self, datagrams: Sequence[bytes], destination: Address) -> None:
        """Send each, in order, to `destination`."""

    def set_receiver(self, receiver: Receiver) -> None:
        """Have `receiver(datagrams, source)` called on the loop for what arrives."""

    def close(self) -> None:
        """Release the socket. Nothing is sent or received after."""
