"""The cores on a real socket and a real disk: a process adds a clock, and the order of things.

ServerShell   one UDP socket, one file `image`; an image is stable before its reply leaves
ClientShell   one UDP socket, `await ask(body)`
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from netstack.delivery.client import Answered, Client, Failed, Send
from netstack.delivery.ledger import Ledger
from netstack.delivery.restart import Cure, start
from netstack.delivery.server import Persist, Server
from netstack.delivery.suppressor import Suppressor
from netstack.delivery.terms import Terms
from netstack.runtime.endpoint import Address, Endpoint
from netstack.runtime.runtime import Runtime

IMAGE = "image"


class ServerShell:
    """One life of a server in this process; raises BadMessage if its image cannot be read."""

    def __init__(self, runtime: Runtime, memory: Suppressor, cure: Cure, terms: Terms) -> None:
        self._runtime = runtime
        image = runtime.disk.read(IMAGE) if runtime.disk.exists(IMAGE) else None
        now = runtime.clock.now()
        self.core: Server[Address] = start(Ledger(), memory, cure, terms, image, now)
        self._endpoint: Endpoint | None = None

    async def serve(self, address: Address) -> Address:
        """Bind and answer from now on; the address. Raises PortTaken, EndpointError."""
        self._endpoint = await self._runtime.bind(address)
        self._carry_out()
        self._endpoint.set_receiver(self._received)
        return self._endpoint.address

    def close(self) -> None:
        """Release the socket."""
        if self._endpoint is not None:
            self._endpoint.close()

    def _received(self, datagrams: Sequence[bytes], source: Address, mark: int) -> None:
        for datagram in datagrams:
            self.core.receive(datagram, source, self._runtime.clock.now())
            self._carry_out()

    def _carry_out(self) -> None:
        assert self._endpoint is not None
        for output in self.core.take_outputs():
            if isinstance(output, Persist):
                # Blocks the loop for one fsync: here the order matters, and speed does not.
                self._runtime.disk.replace(IMAGE, output.image)
            else:
                self._endpoint.send((output.datagram,), output.destination)


class ClientShell:
    """Requests to one server from this process."""

    def __init__(self, runtime: Runtime, core: Client, server: Address) -> None:
        self._runtime = runtime
        self.core = core
        self._server = server
        self._endpoint: Endpoint | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: dict[int, asyncio.Future[bytes]] = {}

    async def open(self, address: Address = ("127.0.0.1", 0)) -> Address:
        """Bind a socket; its address. Raises PortTaken, EndpointError."""
        self._endpoint = await self._runtime.bind(address)
        self._endpoint.set_receiver(self._received)
        return self._endpoint.address

    async def ask(self, body: bytes) -> bytes:
        """The reply; raises GaveUp, Refused, NotExecuted, BadMessage."""
        nonce = self.core.ask(body, self._runtime.clock.now())
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[nonce] = future
        self._carry_out()
        try:
            return await future
        finally:
            del self._waiting[nonce]

    def close(self) -> None:
        """Release the socket; who still waits is cancelled."""
        if self._timer is not None:
            self._timer.cancel()
        for future in self._waiting.values():
            future.cancel()
        if self._endpoint is not None:
            self._endpoint.close()

    def _received(self, datagrams: Sequence[bytes], source: Address, mark: int) -> None:
        for datagram in datagrams:
            self.core.receive(datagram, self._runtime.clock.now())
        self._carry_out()

    def _woken(self) -> None:
        self.core.on_deadline(self._runtime.clock.now())
        self._carry_out()

    def _carry_out(self) -> None:
        assert self._endpoint is not None, "open() the socket first"
        for output in self.core.take_outputs():
            if isinstance(output, Send):
                self._endpoint.send((output.datagram,), self._server)
            else:
                self._tell(output)
        if self._timer is not None:
            self._timer.cancel()
        deadline = self.core.next_deadline()
        self._timer = None if deadline is None else self._runtime.call_at(deadline, self._woken)

    def _tell(self, outcome: Answered | Failed) -> None:
        future = self._waiting.get(outcome.nonce)
        if future is None or future.done():
            return  # whoever asked has been cancelled
        if isinstance(outcome, Answered):
            future.set_result(outcome.body)
        else:
            future.set_exception(outcome.error)
