"""The receiving side: a copy comes in, the suppressor judges it, the application may execute it.

    datagram ──► silent? ──► OPEN ─────────────────────────────► OPENED port
                         └─► REQUEST ──► port open? ──► admit ──► execute ──► Persist ──► REPLY
                                              └─► REFUSED   ├──► REPLY again
                                                            └──► REFUSED

An execution and what is remembered of it go into one image, which is stable before the reply
leaves. A kill between the two is the case that all this is about: the money is there, and the
client has not heard of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import msgpack

from netstack.delivery.errors import BadMessage
from netstack.delivery.messages import (
    CLOSED,
    Message,
    Open,
    Opened,
    Refusal,
    Reply,
    Request,
    decode,
    encode,
)
from netstack.delivery.suppressor import EXECUTE, Answer, Refuse, Suppressor

Source = TypeVar("Source")
"""Whatever tells the shell where a datagram came from."""


class Application(Protocol):
    """What is to be executed once."""

    def execute(self, body: bytes) -> bytes:
        """Carry out a request; its reply."""

    def snapshot(self) -> Any:
        """All that must outlive the process, in what msgpack can carry."""

    def restore(self, saved: Any) -> None:
        """Go on from a snapshot."""


@dataclass(frozen=True, slots=True)
class Persist:
    """This image must be stable before any output that follows leaves the process."""

    image: bytes


@dataclass(frozen=True, slots=True)
class SendTo(Generic[Source]):
    """A datagram for who sent the one before."""

    datagram: bytes
    destination: Source


class Server(Generic[Source]):
    """One life of a receiver; `restart.start` makes the next one from the image of this.

    Args:
        life: how many lives there were before.
        silent_until: all that comes before is ignored.
        keeps_table: whether the image has the suppressor's memory too.
    """

    def __init__(
        self,
        application: Application,
        suppressor: Suppressor,
        *,
        life: int = 0,
        silent_until: float = float("-inf"),
        keeps_table: bool = False,
    ) -> None:
        self.application = application
        self.suppressor = suppressor
        self.life = life
        self.silent_until = silent_until
        self._keeps_table = keeps_table
        self._outputs: list[Persist | SendTo[Source]] = []
        self.executions = 0
        self.suppressed = 0  # copies that were answered again or refused
        self.ignored = 0  # copies that came into silence or a full table, and nonsense
        self.memory_max = 0

    def __repr__(self) -> str:
        return (
            f"<Server life={self.life} {self.suppressor!r} executions={self.executions} "
            f"suppressed={self.suppressed}>"
        )

    def receive(self, datagram: bytes, source: Source, now: float) -> None:
        """Take what came from a client."""
        try:
            message = decode(datagram)
        except BadMessage:
            message = None
        if now < self.silent_until:
            message = None
        match message:
            case Open():
                self._open(message, source, now)
            case Request():
                self._request(message, source, now)
            case _:
                self.ignored += 1
        self.memory_max = max(self.memory_max, len(self.suppressor))

    def take_outputs(self) -> list[Persist | SendTo[Source]]:
        """What to make stable and what to send, in order."""
        outputs, self._outputs = self._outputs, []
        return outputs

    def persist(self, now: float) -> None:
        """Put an image of all that must outlive this life before what follows."""
        table = self.suppressor.snapshot(now) if self._keeps_table else None
        image = [self.life, self.application.snapshot(), table]
        self._outputs.append(Persist(bytes(msgpack.packb(image))))

    def _open(self, message: Open, source: Source, now: float) -> None:
        port = self.suppressor.open(now)
        if port is None:
            self.ignored += 1
            return
        if self._keeps_table:
            self.persist(now)  # else another life would open the same port
        self._send(Opened(message.client, message.nonce, port), source)

    def _request(self, request: Request, source: Source, now: float) -> None:
        if not self.suppressor.is_open(request.port, now):
            self._refuse(request, CLOSED, source)
            return
        verdict = self.suppressor.admit(request, now)
        match verdict:
            case Answer(body=body):
                self.suppressed += 1
                self._send(Reply(request.client, request.nonce, body), source)
            case Refuse(reason=reason):
                self._refuse(request, reason, source)
            case _ if verdict is EXECUTE:
                self.executions += 1
                body = self.application.execute(request.body)
                self.suppressor.executed(request, body, now)
                self.persist(now)
                self._send(Reply(request.client, request.nonce, body), source)
            case _:
                self.ignored += 1

    def _refuse(self, request: Request, reason: str, source: Source) -> None:
        self.suppressed += 1
        self._send(Refusal(request.client, request.nonce, reason), source)

    def _send(self, message: Message, source: Source) -> None:
        self._outputs.append(SendTo(encode(message), source))
