"""The same senders and receivers on a datagram socket: nothing here but bytes, and the time.

    file ─► cut ─► Sender ─► Outgoing ─► UDP ─► Inbox ─► Receiver ─► sink
                      ▲         │  ▲              │          │
                      └─ timer ─┘  └──── UDP ─────┴─ answers ┘

The checksum and the answers reach as far as the sink: what it cannot keep is not acknowledged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from netstack.arq.errors import GaveUp, Malformed
from netstack.arq.receiver import Receiver
from netstack.arq.segment import Segment, decode
from netstack.arq.sender import Sender
from netstack.runtime.endpoint import Address, Endpoint
from netstack.runtime.runtime import Runtime

# Messages that an inbox knows of at once, those that are complete among them: these it must still
# answer, for the sender may not know it yet.
MESSAGES_MAX = 64

Sink = Callable[[Address, Receiver, bytes], bool]
"""(source, receiver, bytes): the next bytes of a message; with the last, `receiver.done`.

Whether it took them. If not, the inbox takes and answers nothing any more."""


class Outgoing:
    """One message on its way to one destination."""

    def __init__(
        self, runtime: Runtime, endpoint: Endpoint, destination: Address, sender: Sender
    ) -> None:
        self._runtime = runtime
        self._endpoint = endpoint
        self._destination = destination
        self._sender = sender
        self._timer: asyncio.TimerHandle | None = None
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Return when all of it is acknowledged; raises GaveUp."""
        self._endpoint.set_receiver(self._arrived)
        self._sender.start(self._runtime.clock.now())
        self._pump()
        try:
            await self._ended
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _arrived(self, datagrams: Sequence[bytes], source: Address, mark: int) -> None:
        if source != self._destination or self._ended.done():
            return
        now = self._runtime.clock.now()
        for datagram in datagrams:
            try:
                answer = decode(datagram)
            except Malformed:
                continue
            if not isinstance(answer, Segment):
                self._sender.receive(answer, now)
        self._pump()

    def _on_timer(self) -> None:
        self._timer = None
        try:
            self._sender.on_deadline(self._runtime.clock.now())
        except GaveUp as error:
            self._ended.set_exception(error)
        else:
            self._pump()

    def _pump(self) -> None:
        segments = self._sender.take_outputs()
        if segments:
            self._endpoint.send([s.encode() for s in segments], self._destination)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._sender.next_deadline()
        if deadline is not None:
            self._timer = self._runtime.call_at(deadline, self._on_timer)
        elif not self._ended.done():
            self._ended.set_result(None)


class Inbox:
    """All messages that come to one socket.

    Args:
        make: a new receiver, for each message of this source.
        sink: where its bytes go.
    """

    def __init__(self, endpoint: Endpoint, make: Callable[[Address], Receiver], sink: Sink) -> None:
        self._endpoint = endpoint
        self._make = make
        self._sink = sink
        self._receivers: dict[tuple[Address, int], Receiver] = {}
        self._failed = False  # the sink has
        endpoint.set_receiver(self._arrived)

    def __repr__(self) -> str:
        done = sum(receiver.done for receiver in self._receivers.values())
        return f"<Inbox {len(self._receivers)} messages, {done} complete>"

    def _arrived(self, datagrams: Sequence[bytes], source: Address, mark: int) -> None:
        for datagram in datagrams:
            try:
                segment = decode(datagram)
            except Malformed:
                continue
            if isinstance(segment, Segment):
                self._take(segment, source)

    def _take(self, segment: Segment, source: Address) -> None:
        key = source, segment.message
        receiver = self._receivers.get(key) or self._adopt(key)
        if receiver is None or self._failed:
            return
        was_done = receiver.done
        receiver.receive(segment)
        data = receiver.take_data()
        if data or receiver.done > was_done:
            self._failed = not self._sink(source, receiver, data)
        if not self._failed:
            self._endpoint.send([a.encode() for a in receiver.take_outputs()], source)

    def _adopt(self, key: tuple[Address, int]) -> Receiver | None:
        if len(self._receivers) >= MESSAGES_MAX:
            complete = next((k for k, r in self._receivers.items() if r.done), None)
            if complete is None:
                return None
            del self._receivers[complete]
        return self._receivers.setdefault(key, self._make(key[0]))
