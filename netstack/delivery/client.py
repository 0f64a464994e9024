"""At least once: ask until there is an answer, or until it is time to say that there is none.

    ask ──► REQUEST ──────────────► … timer … REQUEST ──► … twice the timer … REQUEST ──► GaveUp
                 ◄── REPLY: Answered               the same nonce in every copy

The client cannot tell a request that was lost from a reply that was lost (lecture 19.14: the
dilemma), so it sends again in both cases, and the request may be executed more than once. What
keeps that from happening is the receiver's work (`suppressor.py`).

The timer is an estimator's (netstack/transport/rtt.py). All copies carry one nonce, so a reply
after a second copy does not say which of them it answers. Hence Karn's rule (1987), both halves:

    1. such a reply is no sample of the round trip;
    2. the back-off stays for the requests that follow, until a reply to a single copy resets it.

Without the second half a path that has become slower than the timer is never measured again:
every request is sent twice, and none gives a sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from netstack.delivery.back_off import EXPONENTIAL, BackOff
from netstack.delivery.errors import (
    BadMessage,
    DeliveryError,
    GaveUp,
    NotExecuted,
    Refused,
    TooManyOpen,
)
from netstack.delivery.messages import (
    BODY_BYTES_MAX,
    WELL_KNOWN,
    Open,
    Opened,
    Refusal,
    Reply,
    Request,
    decode,
    encode,
)

if TYPE_CHECKING:
    import random

    from netstack.delivery.terms import Terms
    from netstack.transport.rtt import RttEstimator

OPEN_MAX: Final = 64


class Ports(StrEnum):
    """Which port a request is sent to."""

    WELL_KNOWN = "well-known"
    OF_A_LIFE = "of a life"  # asked for once, and again when it turns out to be closed
    OF_A_REQUEST = "of a request"  # asked for before every request


@dataclass(frozen=True, slots=True)
class Send:
    """A datagram for the server."""

    datagram: bytes


@dataclass(frozen=True, slots=True)
class Answered:
    """The request was executed, at least once."""

    nonce: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """There will be no answer; `error` says what is known."""

    nonce: int
    error: DeliveryError


ClientOutput = Send | Answered | Failed


@dataclass(slots=True)
class _Pending:
    body: bytes
    port: int | None  # None: still asking for one
    began: float
    tries: int = 0
    level: int = 0
    sent_at: float = 0.0
    wakes_at: float = 0.0


class Client:
    """Requests to one server, several at a time.

    Args:
        client_id: tells this client from all others, those of its earlier lives included.
        estimator: how long to wait for an answer at first.
        back_off: and how much longer after that.
    """

    def __init__(
        self,
        client_id: bytes,
        terms: Terms,
        rng: random.Random,
        *,
        estimator: RttEstimator,
        back_off: BackOff = EXPONENTIAL,
        ports: Ports = Ports.WELL_KNOWN,
        open_max: int = OPEN_MAX,
    ) -> None:
        self._client_id = client_id
        self._terms = terms
        self._rng = rng
        self.estimator = estimator
        self._back_off = back_off
        self._ports = ports
        self._open_max = open_max
        self._port = WELL_KNOWN if ports is Ports.WELL_KNOWN else None
        self._pending: dict[int, _Pending] = {}
        self._outputs: list[ClientOutput] = []
        self._nonce = 0
        self.level = 0  # at which the next request begins (Karn's second half)
        self.sent_again = 0
        self.ignored = 0  # datagrams that were malformed, or answered nothing that is open

    def __repr__(self) -> str:
        return (
            f"<Client {self._client_id.hex()} open={len(self._pending)} level={self.level} "
            f"sent_again={self.sent_again}>"
        )

    def ask(self, body: bytes, now: float) -> int:
        """Send a request; its nonce. Raises TooManyOpen, BadMessage."""
        if len(self._pending) >= self._open_max:
            raise TooManyOpen(f"{self._open_max} requests are open; wait for an answer first")
        if len(body) > BODY_BYTES_MAX:
            raise BadMessage(f"a request has {BODY_BYTES_MAX} bytes at most, not {len(body)}")
        self._nonce += 1
        pending = _Pending(body, self._port, now, level=self.level)
        self._pending[self._nonce] = pending
        self._send(self._nonce, pending, now)
        return self._nonce

    def receive(self, datagram: bytes, now: float) -> None:
        """Take what came from the server."""
        try:
            message = decode(datagram)
        except BadMessage:
            self.ignored += 1
            return
        pending = self._pending.get(message.nonce) if message.client == self._client_id else None
        match message:
            case Opened(port=port) if pending is not None and pending.port is None:
                self._opened(message.nonce, pending, port, now)
            case Reply(body=body) if pending is not None:
                self._measure(pending, now)
                self._finish(Answered(message.nonce, body))
            case Refusal(reason=reason) if pending is not None and pending.port is not None:
                if self._ports is Ports.OF_A_LIFE and self._port == pending.port:
                    self._port = None  # that life is over
                self._finish(Failed(message.nonce, Refused(reason)))
            case _:
                self.ignored += 1

    def next_deadline(self) -> float | None:
        """When a request is to be sent again or given up."""
        return min((pending.wakes_at for pending in self._pending.values()), default=None)

    def on_deadline(self, now: float) -> None:
        """Send again what has waited long enough, and give up what has waited too long."""
        for nonce, pending in list(self._pending.items()):
            if now < pending.wakes_at:
                continue
            if self._is_over(pending, now):
                self._give_up(nonce, pending, now)
                continue
            pending.level += 1
            self.level = max(self.level, pending.level)
            self.sent_again += 1
            self._send(nonce, pending, now)

    def take_outputs(self) -> list[ClientOutput]:
        """What to send and what to tell, in order."""
        outputs, self._outputs = self._outputs, []
        return outputs

    def check(self) -> None:
        """Invariants; raises AssertionError with what is wrong."""
        assert len(self._pending) <= self._open_max, f"{self!r}: more open than it may"
        terms = self._terms
        for nonce, pending in self._pending.items():
            assert 1 <= pending.tries <= terms.tries_max, f"{nonce}: {pending}"
            assert pending.wakes_at <= pending.began + terms.give_up_s, f"{nonce}: {pending}"

    def _send(self, nonce: int, pending: _Pending, now: float) -> None:
        pending.tries += 1
        pending.sent_at = now
        wait_s = self._back_off.wait_s(self.estimator.rto(), pending.level, self._rng)
        pending.wakes_at = min(now + wait_s, pending.began + self._terms.give_up_s)
        if pending.port is None:
            message: Open | Request = Open(self._client_id, nonce)
        else:
            message = Request(self._client_id, nonce, pending.port, pending.body)
        self._outputs.append(Send(encode(message)))

    def _opened(self, nonce: int, pending: _Pending, port: int, now: float) -> None:
        self._measure(pending, now)
        if self._ports is Ports.OF_A_LIFE:
            self._port = port
        # The first copy that can be executed leaves now: the agreed time runs from here.
        fresh = _Pending(pending.body, port, now, level=self.level)
        self._pending[nonce] = fresh
        self._send(nonce, fresh, now)

    def _is_over(self, pending: _Pending, now: float) -> bool:
        out_of_tries = pending.tries >= self._terms.tries_max
        return out_of_tries or now >= pending.began + self._terms.give_up_s

    def _give_up(self, nonce: int, pending: _Pending, now: float) -> None:
        error: DeliveryError = GaveUp(pending.tries, now - pending.began)
        if pending.port is None:
            error = NotExecuted(f"nobody named a port in {pending.tries} tries; is it running?")
        self._finish(Failed(nonce, error))

    def _measure(self, pending: _Pending, now: float) -> None:
        if pending.tries == 1:  # Karn's rule
            self.estimator.sample(now - pending.sent_at)
            self.level = 0

    def _finish(self, outcome: Answered | Failed) -> None:
        del self._pending[outcome.nonce]
        self._outputs.append(outcome)
