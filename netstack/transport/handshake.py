"""From two strangers to a connection: Noise messages in datagrams, resent until answered.

    initiator                                         responder
      INITIAL (no token)                      ->                     keeps nothing
                                              <-      RETRY (token)
      INITIAL (token, Noise 1)                ->                     the address can receive: state
                                              <-      RESPONSE (Noise 2)
      FINAL (Noise 3), DATA …                 ->                     XX: now both know each other

With a token of an earlier connection the first round trip falls away; with the peer's static key
(IK) so does FINAL, and REFUSED tells an initiator whose key is stale to begin again with XX.
Nothing here is trusted but what Noise authenticates: RETRY and REFUSED can be forged by whoever
sees the INITIAL, and cost a round trip.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgpack

from netstack.transport import packet
from netstack.transport.config import BASE_MTU, TransportConfig
from netstack.transport.errors import ConnectTimeout, PeerRejected
from netstack.transport.packet import RESET_TOKEN_BYTES
from security.channel import Handshake, Session
from security.errors import CertificateRejected, HandshakeFailed
from security.identity import Identity, PeerIdentity
from security.noise import Entropy

# RETRY is taken this often between two resends: a forger could otherwise keep an initiator turning
# in circles. The resend asks again, and the true RETRY has its chance.
RETRIES_MAX: Final = 2

# A RESPONSE that does not open was damaged, or is of another cluster: the same one so often, of
# another.
BAD_RESPONSES_MAX: Final = 4

# First messages of one initiator that are answered: the true one, and damaged copies of it.
TRIES_MAX: Final = 4

# Doublings of the wait between resends: 1.6 s at most, so that a lossy line gets its tries in time.
BACK_OFF_MAX: Final = 4


@dataclass(frozen=True, slots=True)
class Parameters:
    """What each side tells the other, encrypted, in its first message that is.

    The id of the connection is among them: that in a packet's head is open to damage.
    """

    reset_token: bytes
    connection_id: int
    stream_window: int
    connection_window: int
    max_streams: int
    max_datagram: int

    def pack(self) -> bytes:
        """For the Noise payload."""
        packed: bytes = msgpack.packb(
            [
                self.reset_token,
                self.connection_id,
                self.stream_window,
                self.connection_window,
                self.max_streams,
                self.max_datagram,
            ]
        )
        return packed

    @classmethod
    def unpack(cls, data: bytes) -> Parameters:
        """Raises HandshakeFailed for what is no such list."""
        try:
            fields: Any = msgpack.unpackb(data)
            token, connection_id, *numbers = fields
        except Exception:
            raise HandshakeFailed("the transport parameters cannot be read") from None
        if (
            not isinstance(token, bytes)
            or len(token) != RESET_TOKEN_BYTES
            or len(numbers) != 4
            or not all(type(n) is int and 0 <= n < 2**62 for n in numbers)
            or type(connection_id) is not int
            or not 0 <= connection_id < 2**64
        ):
            raise HandshakeFailed("the transport parameters cannot be read")
        return cls(token, connection_id, *numbers)

    @classmethod
    def of(cls, config: TransportConfig, reset_token: bytes, connection_id: int) -> Parameters:
        """What `config` allows a peer."""
        return cls(
            reset_token,
            connection_id,
            config.stream_window,
            config.connection_window,
            config.max_streams,
            config.max_mtu,
        )


@dataclass(frozen=True, slots=True)
class Context:
    """What both roles need to begin."""

    identity: Identity
    service: str  # the responder's
    config: TransportConfig
    entropy: Entropy
    wall: float
    local_id: int
    parameters: Parameters


class Initiator:
    """The side that dials."""

    def __init__(
        self, context: Context, *, remote_static: bytes | None, token: bytes, now: float
    ) -> None:
        self._context = context
        self._token = token
        self._retries = 0
        self._resends = 0
        self._bad_responses = 0
        self._bad_response = b""
        self._give_up_at = now + context.config.handshake_timeout_s
        self._out: list[bytes] = []
        self._deadline: float | None = None
        self._final: bytes | None = None
        self.remote_id = 0
        self.session: Session | None = None
        self.peer: PeerIdentity | None = None
        self.parameters: Parameters | None = None
        self._begin(remote_static, now)

    def __repr__(self) -> str:
        return f"<Initiator {self._pattern} resends={self._resends} peer={self.peer}>"

    def _begin(self, remote_static: bytes | None, now: float) -> None:
        context = self._context
        self._pattern = "IK" if remote_static else "XX"
        self._noise = Handshake(
            context.identity,
            initiator=True,
            pattern="IK" if remote_static else "XX",
            service=context.service,
            suite=context.config.suite,
            entropy=context.entropy,
            now=context.wall,
            remote_static=remote_static,
        )
        # XX's first message is open to all: it carries nothing.
        payload = context.parameters.pack() if remote_static else b""
        self._message = self._noise.write_message(payload)
        self._send_initial(now)

    def _send_initial(self, now: float) -> None:
        kind = packet.INITIAL_IK if self._pattern == "IK" else packet.INITIAL_XX
        datagram = packet.initial(
            kind, self._context.local_id, self._token, self._message, BASE_MTU
        )
        self._send(datagram, now)

    def _send(self, datagram: bytes, now: float) -> None:
        self._out.append(datagram)
        wait_s = 2 * self._context.config.initial_rtt_s * 2 ** min(self._resends, BACK_OFF_MAX)
        self._deadline = now + wait_s

    def receive(self, data: bytes, now: float) -> None:
        """RETRY, RESPONSE or REFUSED.

        Raises HandshakeFailed for what changes nothing, PeerRejected for the end of the dial.
        """
        kind = data[0]
        if self.session is not None:
            return  # a copy; FINAL is resent by its timer
        if kind == packet.RETRY and self._retries < RETRIES_MAX:
            self._retries += 1
            self._token = data[packet.SHORT.size :]
            self._send_initial(now)
        elif kind == packet.REFUSED and self._pattern == "IK":
            self._begin(None, now)
        elif kind == packet.RESPONSE:
            self._response(data, now)

    def _response(self, data: bytes, now: float) -> None:
        offset = packet.SHORT.size
        if len(data) < offset + packet.ID_BYTES:
            raise HandshakeFailed("a RESPONSE is cut short")
        try:
            payload = self._noise.read_message(data[offset + packet.ID_BYTES :])
        except CertificateRejected as error:
            raise PeerRejected(str(error)) from None
        except HandshakeFailed as error:
            # Damage differs from one time to the next; another cluster answers the same each time.
            same = data == self._bad_response
            self._bad_response = data
            self._bad_responses = self._bad_responses + 1 if same else 1
            if self._bad_responses < BAD_RESPONSES_MAX:
                raise
            raise PeerRejected(str(error)) from None
        self.parameters = Parameters.unpack(payload)
        self.remote_id = self.parameters.connection_id
        self._deadline = None
        if self._pattern == "XX":
            message = self._noise.write_message(self._context.parameters.pack())
            self._final = packet.SHORT.pack(packet.FINAL, self.remote_id) + message
            self._resends = 0
            self._send(self._final, now)
        self.peer = self._noise.peer
        self.session = self._noise.session()

    def confirmed(self) -> None:
        """DATA of the peer has opened: it has all our messages."""
        self._final = None
        self._deadline = None

    def next_deadline(self) -> float | None:
        """When to resend."""
        return self._deadline

    def on_deadline(self, now: float) -> None:
        """Resend what was not answered; raises ConnectTimeout when it is enough."""
        if self._deadline is None or now < self._deadline:
            return
        if now >= self._give_up_at:
            raise ConnectTimeout("no answer to the handshake")
        self._resends += 1
        self._retries = 0
        if self._final is not None:
            self._send(self._final, now)
        else:
            self._send_initial(now)

    def take(self) -> list[bytes]:
        """Datagrams to send."""
        out, self._out = self._out, []
        return out


@dataclass(frozen=True, slots=True)
class _Try:
    """A first message, and how it was answered."""

    message: bytes
    noise: Handshake
    response: bytes


class Responder:
    """The side that is dialled. Made only for an address that has shown that it can receive."""

    def __init__(self, context: Context, initial: bytes, now: float) -> None:
        """Raises HandshakeFailed or CertificateRejected for a first message that does not hold."""
        source_id, _, message = packet.parse_initial(initial)
        pattern_is_ik = initial[0] == packet.INITIAL_IK
        self.remote_id = source_id
        self.session: Session | None = None
        self.peer: PeerIdentity | None = None
        self.parameters: Parameters | None = None
        self._give_up_at: float | None = now + context.config.handshake_timeout_s
        self._context = context
        self._pattern: Literal["XX", "IK"] = "IK" if pattern_is_ik else "XX"
        self._tries: list[_Try] = []
        self._out: list[bytes] = []
        payload = self._answer(message)
        if pattern_is_ik:
            self._agreed(self._tries[0].noise, payload)

    def _answer(self, message: bytes) -> bytes:
        """Begin with a first message; returns its payload. Raises HandshakeFailed."""
        context = self._context
        noise = Handshake(
            context.identity,
            initiator=False,
            pattern=self._pattern,
            service=context.service,
            suite=context.config.suite,
            entropy=context.entropy,
            now=context.wall,
        )
        payload = noise.read_message(message)
        answer = noise.write_message(context.parameters.pack())
        head = packet.SHORT.pack(packet.RESPONSE, self.remote_id)
        response = head + context.local_id.to_bytes(packet.ID_BYTES, "big") + answer
        self._tries.append(_Try(message, noise, response))
        self._out.append(response)
        return payload

    def _agreed(self, noise: Handshake, payload: bytes) -> None:
        self.parameters = Parameters.unpack(payload)
        self.remote_id = self.parameters.connection_id
        self.peer = noise.peer
        self.session = noise.session()

    def __repr__(self) -> str:
        return f"<Responder peer={self.peer}>"

    def repeated(self, initial: bytes) -> None:
        """An INITIAL came again: our RESPONSE was lost, or one of the two was damaged on its way.

        XX's first message has nothing that would show damage, so each that differs is answered,
        and FINAL tells which was the true one.
        """
        message = packet.parse_initial(initial)[2]
        for begun in self._tries:
            if begun.message == message:
                self._out.append(begun.response)
                return
        if self.session is None and len(self._tries) < TRIES_MAX:
            with contextlib.suppress(HandshakeFailed):
                self._answer(message)

    def receive(self, data: bytes, now: float) -> None:
        """FINAL. Anybody can send a bad one, and the true one may still come.

        Raises HandshakeFailed for what changes nothing, PeerRejected for who is not let in.
        """
        if data[0] != packet.FINAL or self.session is not None:
            return
        refusal = "nothing was begun"
        for begun in self._tries:
            try:
                payload = begun.noise.read_message(data[packet.SHORT.size :])
            except CertificateRejected as rejection:
                raise PeerRejected(str(rejection)) from None
            except HandshakeFailed as error:
                refusal = str(error)
            else:
                self._agreed(begun.noise, payload)
                return
        raise HandshakeFailed(f"FINAL: {refusal}")

    def confirmed(self) -> None:
        """DATA of the peer has opened."""
        self._give_up_at = None

    def next_deadline(self) -> float | None:
        """When a half-open connection is forgotten."""
        return self._give_up_at

    def on_deadline(self, now: float) -> None:
        """Raises ConnectTimeout when the initiator did not go on."""
        if self._give_up_at is not None and now >= self._give_up_at:
            raise ConnectTimeout("the initiator did not complete the handshake")

    def take(self) -> list[bytes]:
        """Datagrams to send."""
        out, self._out = self._out, []
        return out
