"""The Noise protocol framework, revision 34: three small objects that run any handshake pattern.

    CipherState      a key and a counter                        (specification §5.1)
    SymmetricState   a chaining key and a transcript hash       (§5.2)
    HandshakeState   the tokens of a pattern, one message at a time (§5.3)

Patterns are data (patterns.py), written as in the specification, so a reader can hold them against
it. Primitives come from `cryptography`; the suite is 25519, SHA-256, and AES-GCM or
ChaCha20-Poly1305. Pre-shared keys (`psk` modifiers, §9) are understood, because the public
vectors have them.

Guarantees: a message that does not verify raises HandshakeFailed and leaves the state unusable
(who wants to wait for a better one reads on a fork()); an all-zero shared secret (a small-order
public key, §12.1) is a failed handshake, not a weak one.

Limits: Python cannot wipe memory; keys live until their objects are collected.
"""

from __future__ import annotations

import copy
import hashlib
import hmac
import struct
from collections.abc import Callable
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from security.errors import HandshakeFailed, KeysExhausted
from security.patterns import PATTERNS

Entropy = Callable[[int], bytes]
Buffer = bytes | bytearray | memoryview

KEY_BYTES: Final = 32
TAG_BYTES: Final = 16
MESSAGE_BYTES_MAX: Final = 65535  # §3

# 2^64-1 is reserved by the specification (§5.1) for rekey.
NONCE_MAX: Final = 2**64 - 1


class Aead(Protocol):
    """What both ciphers of `cryptography` offer."""

    def encrypt(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None) -> bytes:
        """Ciphertext and tag."""

    def decrypt(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None) -> bytes:
        """Plaintext; raises InvalidTag."""


CIPHERS: Final[dict[str, Callable[[bytes], Aead]]] = {
    "AESGCM": AESGCM,
    "ChaChaPoly": ChaCha20Poly1305,
}
# §12.3: ChaCha20's counter is little-endian; §12.4: AES-GCM's is big-endian. 32 zero bits first.
NONCE_FORMAT: Final = {
    "AESGCM": struct.Struct(">4xQ").pack,
    "ChaChaPoly": struct.Struct("<4xQ").pack,
}


class CipherState:
    """A key and the number of the next message under it."""

    def __init__(self, cipher: str, key: bytes | None = None) -> None:
        self.cipher = cipher
        self._nonce = NONCE_FORMAT[cipher]
        self.initialize_key(key)

    def initialize_key(self, key: bytes | None) -> None:
        """Set a new key and start counting from zero."""
        self.key = key
        self.n = 0
        self._aead = CIPHERS[self.cipher](key) if key is not None else None

    def encrypt(self, associated: bytes, plaintext: bytes) -> bytes:
        """Seal one message; without a key it passes as it is (§5.1)."""
        if self._aead is None:
            return plaintext
        sealed = self._aead.encrypt(self._nonce(self._take()), plaintext, associated)
        self.n += 1
        return sealed

    def decrypt(self, associated: bytes, ciphertext: bytes) -> bytes:
        """Open one message; raises HandshakeFailed and does not count it if the tag is wrong."""
        if self._aead is None:
            return ciphertext
        try:
            opened = self._aead.decrypt(self._nonce(self._take()), ciphertext, associated)
        except InvalidTag:
            raise HandshakeFailed("a message does not verify under the keys agreed on") from None
        self.n += 1
        return opened

    def rekey(self) -> None:
        """A new key that does not tell the old one (§4.2, §11.3); the counter goes on."""
        assert self.key is not None
        self.key = rekeyed(self.cipher, self.key)
        self._aead = CIPHERS[self.cipher](self.key)

    def copy(self) -> CipherState:
        """One that goes its own way from here."""
        return copy.copy(self)

    def _take(self) -> int:
        if self.n >= NONCE_MAX:
            raise KeysExhausted("the counter of this key has reached its end")
        return self.n


def rekeyed(cipher: str, key: bytes) -> bytes:
    """REKEY(k) of §4.2: the first 32 bytes of an encryption of zeros under the reserved nonce."""
    nonce = NONCE_FORMAT[cipher](NONCE_MAX)
    return CIPHERS[cipher](key).encrypt(nonce, bytes(KEY_BYTES), b"")[:KEY_BYTES]


def hkdf(chaining_key: bytes, material: bytes, outputs: int) -> tuple[bytes, ...]:
    """HKDF of §4.3 over HMAC-SHA-256: two or three outputs of 32 bytes."""
    temporary = hmac.digest(chaining_key, material, "sha256")
    result: list[bytes] = []
    block = b""
    for i in range(1, outputs + 1):
        block = hmac.digest(temporary, block + bytes([i]), "sha256")
        result.append(block)
    return tuple(result)


class SymmetricState:
    """The transcript hash `h` and the chaining key `ck`, mixed with all that both sides see."""

    def __init__(self, protocol_name: str, cipher: str) -> None:
        name = protocol_name.encode()
        self.h = name.ljust(32, b"\0") if len(name) <= 32 else hashlib.sha256(name).digest()
        self.ck = self.h
        self.cipher_state = CipherState(cipher)

    def mix_key(self, material: bytes) -> None:
        """Take a shared secret into the keys."""
        self.ck, key = hkdf(self.ck, material, 2)
        self.cipher_state.initialize_key(key)

    def mix_hash(self, data: bytes) -> None:
        """Take what was sent into the transcript."""
        self.h = hashlib.sha256(self.h + data).digest()

    def mix_key_and_hash(self, material: bytes) -> None:
        """Take a pre-shared key into both (§9)."""
        self.ck, mixed, key = hkdf(self.ck, material, 3)
        self.mix_hash(mixed)
        self.cipher_state.initialize_key(key)

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        """Seal under the transcript so far, then add the ciphertext to it."""
        ciphertext = self.cipher_state.encrypt(self.h, plaintext)
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        """Open under the transcript so far, then add the ciphertext to it."""
        plaintext = self.cipher_state.decrypt(self.h, ciphertext)
        self.mix_hash(ciphertext)
        return plaintext

    def copy(self) -> SymmetricState:
        """One that goes its own way from here."""
        twin = copy.copy(self)
        twin.cipher_state = self.cipher_state.copy()
        return twin

    def split(self) -> tuple[CipherState, CipherState]:
        """One cipher state a direction: initiator to responder, and back."""
        first, second = hkdf(self.ck, b"", 2)
        cipher = self.cipher_state.cipher
        return CipherState(cipher, first), CipherState(cipher, second)


class HandshakeState:
    """One side of one handshake.

    Args:
        pattern: name in PATTERNS, with modifiers such as "XXpsk3" appended.
        cipher: "AESGCM" or "ChaChaPoly".
        initiator: whether this side sends the first message.
        prologue: bytes that both sides must agree on, or nothing decrypts.
        s, rs: own static key; the peer's static public key, where the pattern presumes it.
        entropy: source of the ephemeral key.
        psks: pre-shared keys of 32 bytes, in the order of the pattern's psk modifiers.
    """

    def __init__(
        self,
        pattern: str,
        cipher: str,
        *,
        initiator: bool,
        prologue: bytes,
        entropy: Entropy,
        s: X25519PrivateKey | None = None,
        rs: bytes | None = None,
        psks: tuple[bytes, ...] = (),
    ) -> None:
        base, modifiers = _split_modifiers(pattern)
        own, theirs, *messages = PATTERNS[base]
        self._messages = _with_psks([list(m) for m in messages], modifiers)
        self._psk_mode = bool(modifiers)
        self._psks = list(psks)
        self._initiator = initiator
        self._entropy = entropy
        self._symmetric = SymmetricState(f"Noise_{pattern}_25519_{cipher}_SHA256", cipher)
        self.s, self.rs = s, rs
        self._e: X25519PrivateKey | None = None
        self._re: bytes | None = None
        self._next = 0
        self._failed = False
        self.ciphers: tuple[CipherState, CipherState] | None = None
        self._symmetric.mix_hash(prologue)
        for tokens, by_initiator in ((own, True), (theirs, False)):
            if "s" in tokens:
                mine = by_initiator == initiator
                key = public_bytes(self._own_static()) if mine else self._their_static()
                self._symmetric.mix_hash(key)

    def fork(self) -> HandshakeState:
        """A copy to read a message on that may be forged: if it is, this one is as it was."""
        twin = copy.copy(self)
        twin._symmetric = self._symmetric.copy()
        twin._psks = list(self._psks)
        return twin

    @property
    def handshake_hash(self) -> bytes:
        """The transcript: equal on both sides exactly if they saw the same handshake (§11.2)."""
        return self._symmetric.h

    @property
    def finished(self) -> bool:
        """Whether both directions have their keys."""
        return self.ciphers is not None

    @property
    def my_turn(self) -> bool:
        """Whether the next message is ours to write."""
        return not self.finished and (self._next % 2 == 0) == self._initiator

    def write_message(self, payload: bytes = b"") -> bytes:
        """The next message; `payload` is as well protected as the pattern allows by then."""
        if self._failed or not self.my_turn:
            raise HandshakeFailed("it is not this side's turn to write")
        try:
            message = self._write(payload)
        except HandshakeFailed:
            self._failed = True
            raise
        self._advance()
        return message

    def read_message(self, message: bytes) -> bytes:
        """The payload of the peer's next message; raises HandshakeFailed for good."""
        if self._failed or self.finished or self.my_turn:
            raise HandshakeFailed("no message was expected")
        try:
            payload = self._read(message)
        except HandshakeFailed:
            self._failed = True
            raise
        self._advance()
        return payload

    def _write(self, payload: bytes) -> bytes:
        out = bytearray()
        for token in self._messages[self._next]:
            if token == "e":
                self._e = X25519PrivateKey.from_private_bytes(self._entropy(KEY_BYTES))
                public = public_bytes(self._e)
                out += public
                self._mix_ephemeral(public)
            elif token == "s":
                out += self._symmetric.encrypt_and_hash(public_bytes(self._own_static()))
            else:
                self._mix(token)
        out += self._symmetric.encrypt_and_hash(payload)
        if len(out) > MESSAGE_BYTES_MAX:
            raise HandshakeFailed("a handshake message is at most 65,535 bytes")
        return bytes(out)

    def _read(self, message: bytes) -> bytes:
        offset = 0

        def take(count: int) -> bytes:
            nonlocal offset
            if len(message) - offset < count:
                raise HandshakeFailed("a handshake message is too short")
            offset += count
            return message[offset - count : offset]

        if len(message) > MESSAGE_BYTES_MAX:
            raise HandshakeFailed("a handshake message is at most 65,535 bytes")
        for token in self._messages[self._next]:
            if token == "e":
                self._re = take(KEY_BYTES)
                self._mix_ephemeral(self._re)
            elif token == "s":
                keyed = self._symmetric.cipher_state.key is not None
                sealed = take(KEY_BYTES + (TAG_BYTES if keyed else 0))
                self.rs = self._symmetric.decrypt_and_hash(sealed)
            else:
                self._mix(token)
        return self._symmetric.decrypt_and_hash(message[offset:])

    def _mix_ephemeral(self, public: bytes) -> None:
        self._symmetric.mix_hash(public)
        if self._psk_mode:
            self._symmetric.mix_key(public)

    def _mix(self, token: str) -> None:
        if token == "psk":
            self._symmetric.mix_key_and_hash(self._psks.pop(0))
            return
        # "es" is the initiator's e with the responder's s, on whichever side one stands.
        mine, theirs = (token[0], token[1]) if self._initiator else (token[1], token[0])
        private = self._e if mine == "e" else self._own_static()
        public = self._re if theirs == "e" else self._their_static()
        assert private is not None
        assert public is not None
        try:
            self._symmetric.mix_key(private.exchange(X25519PublicKey.from_public_bytes(public)))
        except ValueError:
            raise HandshakeFailed("a public key of small order") from None

    def _own_static(self) -> X25519PrivateKey:
        assert self.s is not None, "this pattern needs a static key of our own"
        return self.s

    def _their_static(self) -> bytes:
        assert self.rs is not None, "this pattern needs the peer's static key"
        return self.rs

    def _advance(self) -> None:
        self._next += 1
        if self._next == len(self._messages):
            self.ciphers = self._symmetric.split()


def public_bytes(key: X25519PrivateKey) -> bytes:
    """The 32 bytes of the public key that belongs to `key`."""
    return key.public_key().public_bytes_raw()


def _split_modifiers(pattern: str) -> tuple[str, list[int]]:
    """XXpsk0+psk3 -> ("XX", [0, 3])."""
    base, found, rest = pattern.partition("psk")
    if base not in PATTERNS:
        raise ValueError(f"unknown Noise pattern {pattern!r}; known: {', '.join(PATTERNS)}")
    return base, [int(p.removeprefix("psk")) for p in (found + rest).split("+") if p]


def _with_psks(messages: list[list[str]], modifiers: list[int]) -> list[list[str]]:
    """psk0 goes before the first message's tokens, pskN behind the Nth message's (§9.4)."""
    for place in modifiers:
        if place == 0:
            messages[0].insert(0, "psk")
        else:
            messages[place - 1].append("psk")
    return messages
