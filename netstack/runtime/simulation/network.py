"""The simulated datagram network: every datagram between two nodes passes one seeded place.

Each directed pair of nodes has a LinkShaper with the base policy of the world; what a node's own
Faults add is applied on top, by the same FaultyEndpoint that live daemons have. Partitions are
kept here, by group: a datagram between two groups is lost, whatever the links say.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import random
from collections.abc import Iterable, Sequence

from netstack.runtime.endpoint import NOT_ECT, Address, PortTaken, Receiver
from netstack.runtime.policy import LinkPolicy, LinkShaper

# A loopback hop, wake-up included, measured on the machines this is run on.
BASE_POLICY = LinkPolicy(delay_s=0.0001, jitter_s=0.0001)

# What any real IPv4 UDP socket refuses to send.
DATAGRAM_BYTES_MAX = 65_507

# First port given to a socket that asks for any.
EPHEMERAL_PORT = 50_000


class SimulatedNetwork:
    """All sockets of a world, and the wires between them."""

    def __init__(self, rng: random.Random, loop: asyncio.AbstractEventLoop) -> None:
        self._rng = rng
        self._loop = loop
        self._wire = contextvars.Context()  # nobody's: a datagram outlives its sender
        self._sockets: dict[Address, SimulatedEndpoint] = {}
        self._owners: dict[Address, str] = {}  # of all sockets that there ever were
        self._shapers: dict[tuple[str, str], LinkShaper] = {}
        self._cut: set[tuple[str, str]] = set()  # asked only, never iterated: order-free
        self._next_port = EPHEMERAL_PORT
        self.base_policy = BASE_POLICY
        self.delivered = 0
        self.dropped = 0

    def __repr__(self) -> str:
        return (
            f"<SimulatedNetwork sockets={len(self._sockets)} delivered={self.delivered} "
            f"dropped={self.dropped}>"
        )

    def bind(self, node: str, address: Address) -> SimulatedEndpoint:
        """A socket of `node`; raises PortTaken."""
        host, port = address
        if port == 0:
            ports = itertools.count(self._next_port)
            port = next(port for port in ports if (host, port) not in self._sockets)
            self._next_port = port + 1
        if (host, port) in self._sockets:
            holder = self._sockets[host, port].node
            raise PortTaken(f"UDP port {port} on {host} is taken by {holder}")
        endpoint = self._sockets[host, port] = SimulatedEndpoint(self, node, (host, port))
        self._owners[host, port] = node
        return endpoint

    def release(self, endpoint: SimulatedEndpoint) -> None:
        """Forget a socket; what is under way to it is lost."""
        if self._sockets.get(endpoint.address) is endpoint:
            del self._sockets[endpoint.address]

    def release_all(self, node: str) -> None:
        """Forget all sockets of a node that was killed."""
        for endpoint in [e for e in self._sockets.values() if e.node == node]:
            endpoint.close()

    def partition(self, groups: Iterable[Iterable[str]]) -> None:
        """Cut every edge between nodes of different groups."""
        members = [set(group) for group in groups]
        for here in members:
            for there in members:
                if here is not there:
                    self._cut.update((a, b) for a in here for b in there)

    def cut(self, source: str, destination: str) -> None:
        """Cut one direction of one edge."""
        self._cut.add((source, destination))

    def heal(self) -> None:
        """All edges whole."""
        self._cut.clear()

    def send(
        self, endpoint: SimulatedEndpoint, datagram: bytes, destination: Address, mark: int
    ) -> None:
        """Carry one datagram; called by an endpoint."""
        target = self._sockets.get(destination)
        if target is None or len(datagram) > DATAGRAM_BYTES_MAX:
            self.dropped += 1
            return
        edge = (endpoint.node, target.node)
        if edge in self._cut:
            self.dropped += 1
            return
        shaper = self._shapers.get(edge)
        if shaper is None:
            shaper = self._shapers[edge] = LinkShaper(self.base_policy, self._rng)
        shaper.policy = self.base_policy
        now = self._loop.time()
        source = endpoint.address
        mark = shaper.mark(mark, now)
        copies = shaper.shape(datagram, now)
        self.dropped += not copies
        for arrives, copy in copies:
            self._loop.call_at(
                arrives, self._deliver, copy, source, destination, mark, context=self._wire
            )

    def refuses(self, endpoint: SimulatedEndpoint, destination: Address) -> bool:
        """Whether no socket is bound there, and word of it comes back: only on one machine."""
        if destination in self._sockets or self.base_policy != BASE_POLICY:
            return False
        owner = self._owners.get(destination, "")
        return not {(endpoint.node, owner), (owner, endpoint.node)} & self._cut

    def _deliver(self, datagram: bytes, source: Address, destination: Address, mark: int) -> None:
        target = self._sockets.get(destination)
        if target is None:
            self.dropped += 1
            return
        self.delivered += 1
        if target.receiver is not None:
            self._loop.call_soon(target.receiver, (datagram,), source, mark, context=target.context)


class SimulatedEndpoint:
    """One socket of the simulated network."""

    def __init__(self, network: SimulatedNetwork, node: str, address: Address) -> None:
        self._network = network
        self.receiver: Receiver | None = None
        self.node = node
        self.address = address
        self.closed = False
        # What arrives runs on behalf of the process that bound the socket.
        self.context = contextvars.copy_context()

    def __repr__(self) -> str:
        return f"<SimulatedEndpoint {self.node} {self.address[0]}:{self.address[1]}>"

    def send(self, datagrams: Sequence[bytes], destination: Address, mark: int = NOT_ECT) -> None:
        """See Endpoint. A closed socket sends nothing: its process is dead."""
        if not self.closed:
            for datagram in datagrams:
                self._network.send(self, datagram, destination, mark)

    def refuses(self, destination: Address) -> bool:
        """See Endpoint."""
        return not self.closed and self._network.refuses(self, destination)

    def set_receiver(self, receiver: Receiver) -> None:
        """See Endpoint."""
        self.receiver = receiver

    def close(self) -> None:
        """See Endpoint."""
        self.closed = True
        self._network.release(self)
