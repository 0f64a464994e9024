"""A datagram socket, as small as it can be: what a protocol needs, and what a faster one can keep.

Sending never blocks and never raises for the network's sake: a datagram that the kernel has no
room for is lost, as it would be on a wire. Receiving hands over whole bursts, so that one wake-up
can serve many. Both carry the two bits of the IP header by which routers tell of congestion (ECN).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

Address = tuple[str, int]

# RFC 3168 §5: what a datagram's two bits can say.
NOT_ECT: Final = 0  # drop me
ECT0: Final = 2  # mark me instead
CE: Final = 3  # marked: there is congestion

Receiver = Callable[[Sequence[bytes], Address, int], None]
"""(datagrams, source, mark): what arrived together, from one source and with the same two bits."""


class EndpointError(Exception):
    """The socket cannot be had."""


class PortTaken(EndpointError):
    """Another socket is bound to the address; the message says whose, if that can be known."""


class Endpoint(Protocol):
    """One bound datagram socket."""

    address: Address

    def send(self, datagrams: Sequence[bytes], destination: Address, mark: int = NOT_ECT) -> None:
        """Send each, in order, to `destination`, with these two bits."""

    def set_receiver(self, receiver: Receiver) -> None:
        """Have `receiver(datagrams, source, mark)` called on the loop for what arrives."""

    def refuses(self, destination: Address) -> bool:
        """Whether `destination` says that no socket is bound there. Silence is no refusal."""

    def close(self) -> None:
        """Release the socket. Nothing is sent or received after."""
