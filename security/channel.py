"""The secure channel: a Noise handshake with certificates on both sides, then datagram keys.

    initiator                                   responder
      e                                  ->                        XX, when the peer is a stranger
                                         <-     e, ee, s, es       + certificate
      s, se + certificate                ->

      e, es, s, ss + certificate         ->                        IK, when its static key is known
                                         <-     e, ee, se          + certificate

The prologue binds protocol version, suite, pattern, cluster and service into the transcript: a
message made for another cluster or service, or under another suite, does not decrypt. There is
nothing to negotiate and so nothing to downgrade. The payload beside a static key carries the
certificate and the node key's signature over that static key, and whatever the caller adds.

A Session is what comes out: one key and counter a direction (a packet reflected to its sender
does not open), numbers that are used once, a replay window, new keys after a bound of packets or
time, an end after too many forgeries. The packet's number is the nonce; its header is
authenticated, not hidden.

Guarantees: a message that does not hold changes nothing, so a forged one does not end a handshake
that the true one can still complete; keys are given out once, and only after the peer's
certificate was accepted; a nonce is never used twice under a key.

Limits: IK's first message can be replayed and, if the responder's key was stolen, forged (Noise
§7.7): nothing of what it carries may be acted on before the initiator has used the keys of the
reply. Lengths and times of packets are in the open. A certificate is judged when it is presented,
not again while the channel lasts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, Literal, NoReturn

import msgpack
from cryptography.exceptions import InvalidTag

from security.errors import (
    CertificateRejected,
    HandshakeFailed,
    KeysExhausted,
    Replayed,
    SecurityError,
    Tampered,
)
from security.identity import Identity, PeerIdentity, verify, verify_static_key
from security.noise import (
    CIPHERS,
    NONCE_FORMAT,
    NONCE_MAX,
    Buffer,
    Entropy,
    HandshakeState,
    public_bytes,
    rekeyed,
)
from security.replay import ReplayWindow

VERSION: Final = 1
SUITES: Final = tuple(CIPHERS)

# In which messages the certificates ride. IK's responder shows its own in the second, though its
# static key went before.
CERTIFICATE_TURNS: Final = {"XX": (1, 2), "IK": (0, 1)}

# AES-GCM may seal 2^23 packets under a key before an attacker's advantage counts (RFC 9001 §6.6).
# We change it eight times sooner, and every two minutes as WireGuard does; a peer that lets no
# change happen (it never acknowledges) meets the limit itself.
SEALED_MAX: Final = 2**23
REKEY_AFTER_PACKETS: Final = 2**20
REKEY_AFTER_S: Final = 120.0

# RFC 9001 §6.6: 2^36 forgeries for ChaCha20-Poly1305 (2^52 for AES-GCM), then the channel must
# end. Not sooner: each bound is also a way for a forger to end a channel that he cannot read.
TAMPERED_MAX: Final = 2**36

Pattern = Literal["XX", "IK"]

Opener = Callable[[bytes, Buffer, Buffer | None], bytes]


class Handshake:
    """One side of a handshake; who the peer is, is known when `finished`.

    Args:
        identity: this node's.
        initiator: whether this side speaks first.
        pattern: "XX", or "IK" when the responder's static key is known (`remote_static`).
        service: the responder's service; bound into the transcript.
        suite: "AESGCM" or "ChaChaPoly", as the cluster's configuration has it.
        entropy: source of the ephemeral key.
        now: Unix seconds, for the validity of certificates.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        initiator: bool,
        pattern: Pattern,
        service: str,
        suite: str,
        entropy: Entropy,
        now: float,
        remote_static: bytes | None = None,
    ) -> None:
        if suite not in CIPHERS:
            raise ValueError(f"suite {suite!r} is not one of {', '.join(SUITES)}")
        if pattern not in CERTIFICATE_TURNS:
            raise ValueError(f"pattern {pattern!r} is not one of {', '.join(CERTIFICATE_TURNS)}")
        self._identity = identity
        self._initiator = initiator
        self._suite = suite
        self._now = now
        self._service = service
        self._keys_taken = False
        self.peer: PeerIdentity | None = None
        self._noise = HandshakeState(
            pattern,
            suite,
            initiator=initiator,
            prologue=prologue(suite, pattern, identity.cluster, service),
            entropy=entropy,
            s=identity.static_key,
            rs=remote_static,
        )
        self._certificate_turns = CERTIFICATE_TURNS[pattern]
        self._turn = 0

    def __repr__(self) -> str:
        side = "initiator" if self._initiator else "responder"
        state = "finished" if self.finished else f"turn {self._turn}"
        return f"<Handshake {side} {state} peer={self.peer}>"

    @property
    def finished(self) -> bool:
        """Whether both sides have the keys and this one has accepted its peer."""
        return self._noise.finished and self.peer is not None

    @property
    def handshake_hash(self) -> bytes:
        """The transcript's hash: the same on both sides, and for no other handshake."""
        return self._noise.handshake_hash

    def write_message(self, payload: bytes = b"") -> bytes:
        """The next message. `payload` is the caller's; encrypted from the second message on."""
        fields: list[bytes] = [payload]
        if self._turn in self._certificate_turns:
            fields += [self._identity.certificate_der, self._identity.sign_static_key()]
        self._turn += 1
        return self._noise.write_message(msgpack.packb(fields))

    def read_message(self, data: bytes) -> bytes:
        """The caller's payload of the peer's message.

        Raises HandshakeFailed, or CertificateRejected if the bytes fit and the peer does not. Then
        nothing has changed: the next message may be the true one.
        """
        noise = self._noise.fork()
        plaintext = noise.read_message(data)
        with_certificate = self._turn in self._certificate_turns
        payload, *proof = _fields(plaintext, 3 if with_certificate else 1)
        if with_certificate:
            static_key = noise.rs
            assert static_key is not None
            self.peer = self._verify_peer(static_key, *proof)
        self._noise = noise
        self._turn += 1
        return payload

    def _verify_peer(
        self, static_key: bytes, certificate_der: bytes, signature: bytes
    ) -> PeerIdentity:
        me = self._identity
        peer = verify(
            certificate_der, authority=me.authority, revocations=me.revocations, now=self._now
        )
        verify_static_key(peer.public_key, static_key, signature)
        if static_key == public_bytes(me.static_key):
            raise CertificateRejected("the peer presents our own identity")
        if self._initiator and peer.service != self._service:
            raise CertificateRejected(f"{peer} answers for the service {self._service}")
        return replace(peer, static_key=static_key)

    def session(self, *, rekey_after_packets: int = REKEY_AFTER_PACKETS) -> Session:
        """The keys of this channel, once the handshake is finished; raises HandshakeFailed.

        They are given out once: two sessions would use the same nonces.
        """
        ciphers = self._noise.ciphers
        if ciphers is None or self.peer is None or self._keys_taken:
            raise HandshakeFailed("there are no keys to give: not finished, or given before")
        self._keys_taken = True
        first, second = (cipher.key for cipher in ciphers)
        assert first is not None
        assert second is not None
        send, receive = (first, second) if self._initiator else (second, first)
        return Session(self._suite, send, receive, rekey_after_packets=rekey_after_packets)


def prologue(suite: str, pattern: str, cluster: str, service: str) -> bytes:
    """What both sides must agree on; unambiguous, since each field has its length."""
    packed: bytes = msgpack.packb(["ringleader", VERSION, suite, pattern, cluster, service])
    return packed


def _fields(plaintext: bytes, count: int) -> list[bytes]:
    """The fields of a handshake payload; raises HandshakeFailed unless they are `count` bytes."""
    try:
        fields = msgpack.unpackb(plaintext)
    except Exception:  # msgpack's errors have no common base but this
        raise HandshakeFailed("a handshake payload is not msgpack") from None
    if (
        not isinstance(fields, list)
        or len(fields) != count
        or not all(isinstance(field, bytes) for field in fields)
    ):
        raise HandshakeFailed("a handshake payload has the wrong fields")
    return fields


class Session:
    """The keys of one channel, for datagrams that may be lost, repeated and reordered.

    Numbers count on across a rekey, so one window guards all phases. A sender changes its key by
    flipping `send_phase`, which travels in the packet's header; the receiver follows when a
    packet of the other phase verifies, and keeps the previous key for what is still under way.
    Each direction changes its key by its own bounds, as in TLS 1.3.
    """

    __slots__ = (
        "_make",
        "_nonce",
        "_open",
        "_open_next",
        "_open_previous",
        "_receive_key",
        "_receive_phase",
        "_rekey_after",
        "_rekeyed_at",
        "_seal",
        "_seal_end",
        "_sealed_from",
        "_send_key",
        "_sent_to",
        "_suite",
        "_window",
        "phase_began",
        "replayed",
        "send_phase",
        "tampered",
        "tampered_max",
    )

    def __init__(
        self,
        suite: str,
        send_key: bytes,
        receive_key: bytes,
        *,
        rekey_after_packets: int = REKEY_AFTER_PACKETS,
        tampered_max: int = TAMPERED_MAX,
    ) -> None:
        self._suite = suite
        self._make = CIPHERS[suite]
        self._nonce = NONCE_FORMAT[suite]
        self._send_key = send_key
        self._receive_key = receive_key
        self._seal = self._make(send_key).encrypt
        self._open = self._make(receive_key).decrypt
        self._open_previous: Opener | None = None
        self._open_next = self._make(rekeyed(suite, receive_key)).decrypt
        self._window = ReplayWindow()
        self._rekey_after = rekey_after_packets
        self._rekeyed_at: float | None = None
        self._sealed_from = 0
        self._sent_to = -1
        self._seal_end = SEALED_MAX
        self._receive_phase = 0
        self.send_phase = 0
        self.phase_began = 0
        self.tampered = 0
        self.tampered_max = tampered_max
        self.replayed = 0

    def __repr__(self) -> str:
        return (
            f"<Session {self._suite} phase={self.send_phase}/{self._receive_phase} "
            f"sent={self._sent_to + 1} tampered={self.tampered} replayed={self.replayed}>"
        )

    def seal(self, number: int, header: bytes, plaintext: Buffer) -> bytes:
        """Ciphertext and tag of packet `number`, with `header` authenticated.

        Raises KeysExhausted for a number that is not above all before it (a nonce used twice gives
        the plaintexts away), when this key has sealed enough, and after close().
        """
        if not self._sent_to < number < self._seal_end:
            raise KeysExhausted(
                f"packet {number} cannot be sealed: the next is {self._sent_to + 1}, "
                f"this key ends before {self._seal_end}"
            )
        self._sent_to = number
        return self._seal(self._nonce(number), plaintext, header)

    def open(
        self,
        number: int,
        phase: int,
        header: Buffer,
        ciphertext: Buffer,
    ) -> bytes:
        """The plaintext of packet `number`; raises Replayed, Tampered or KeysExhausted."""
        window = self._window
        # Looked up before the work of opening, marked only after: see replay.py.
        if not window.is_new(number):
            self.replayed += 1
            raise Replayed(f"packet {number} was seen before, or is too old to tell")
        if phase == self._receive_phase:
            try:
                plaintext = self._open(self._nonce(number), ciphertext, header)
            except InvalidTag:
                raise self._tampered(number) from None
        else:
            plaintext = self._open_other_phase(number, header, ciphertext)
        window.accept(number)
        return plaintext

    def _open_other_phase(self, number: int, header: Buffer, ciphertext: Buffer) -> bytes:
        """A late packet of the previous key, or the first of the next."""
        if self._open_previous is not None and number < self._sealed_from:
            return self._try(self._open_previous, number, header, ciphertext)
        plaintext = self._try(self._open_next, number, header, ciphertext)
        # It verified: the peer has changed its key, and so do we.
        self._open_previous, self._open = self._open, self._open_next
        self._receive_key = rekeyed(self._suite, self._receive_key)
        self._open_next = self._make(rekeyed(self._suite, self._receive_key)).decrypt
        self._receive_phase ^= 1
        self._sealed_from = number
        return plaintext

    def _try(self, opener: Opener, number: int, header: Buffer, ciphertext: Buffer) -> bytes:
        try:
            return opener(self._nonce(number), ciphertext, header)
        except InvalidTag:
            raise self._tampered(number) from None

    def _tampered(self, number: int) -> SecurityError:
        """Count a packet that did not verify."""
        self.tampered += 1
        if self.tampered >= self.tampered_max:
            self.close()
            return KeysExhausted("too many packets did not verify")
        return Tampered(f"packet {number} does not verify")

    def rekey_due(self, now: float) -> bool:
        """Whether the sending key has served its packets or its time."""
        if self._rekeyed_at is None:
            self._rekeyed_at = now
        served = self._sent_to + 1 - self.phase_began
        return served >= self._rekey_after or (
            served > 0 and now - self._rekeyed_at >= REKEY_AFTER_S
        )

    def rekey(self, now: float) -> None:
        """Seal with a new key from the next packet on.

        Only once the peer has acknowledged a packet of this phase (`phase_began` or later): two
        changes that it did not see would look like none. Raises KeysExhausted after close().
        """
        if self._seal_end < 0:
            raise KeysExhausted("the channel is closed")
        self._send_key = rekeyed(self._suite, self._send_key)
        self._seal = self._make(self._send_key).encrypt
        self.send_phase ^= 1
        self.phase_began = self._sent_to + 1
        # The largest number is the specification's own, for making the next key (Noise §4.2).
        self._seal_end = min(self.phase_began + SEALED_MAX, NONCE_MAX)
        self._rekeyed_at = now

    def close(self) -> None:
        """Forget the keys: nothing is sealed or opened any more."""
        self._send_key = self._receive_key = b""
        self._seal_end = -1
        self._seal = self._open = self._open_next = self._open_previous = _closed


def _closed(nonce: Buffer, data: Buffer, associated_data: Buffer | None) -> NoReturn:
    """What a closed session has for a cipher."""
    raise KeysExhausted("the channel is closed")
