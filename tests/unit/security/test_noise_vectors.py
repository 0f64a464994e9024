"""The public Noise vectors: every ciphertext, both sides, for every pattern that we know."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from security.errors import HandshakeFailed, KeysExhausted
from security.noise import NONCE_MAX, CipherState, HandshakeState
from security.patterns import PATTERNS

FILE = Path(__file__).resolve().parents[2] / "vectors" / "noise-25519-sha256.json"
ONE_WAY = {"N", "K", "X"}


def vectors() -> list:
    found: list = json.loads(FILE.read_text())["vectors"]
    return found


def pattern_of(vector: dict) -> str:
    return vector["protocol_name"].split("_")[1]


def side(vector: dict, prefix: str) -> HandshakeState:
    def field(name: str) -> bytes | None:
        text = vector.get(f"{prefix}_{name}")
        return bytes.fromhex(text) if text is not None else None

    static, ephemeral = field("static"), field("ephemeral")
    return HandshakeState(
        pattern_of(vector),
        vector["protocol_name"].split("_")[3],
        initiator=prefix == "init",
        prologue=field("prologue") or b"",
        entropy=lambda _: ephemeral or b"",
        s=X25519PrivateKey.from_private_bytes(static) if static else None,
        rs=field("remote_static"),
        psks=tuple(bytes.fromhex(psk) for psk in vector.get(f"{prefix}_psks", ())),
    )


@pytest.mark.parametrize("vector", vectors(), ids=lambda v: v["protocol_name"])
def test_vector(vector):
    first, second = side(vector, "init"), side(vector, "resp")
    one_way = pattern_of(vector).split("psk")[0] in ONE_WAY
    for turn, message in enumerate(vector["messages"]):
        payload, expected = bytes.fromhex(message["payload"]), bytes.fromhex(message["ciphertext"])
        by_initiator = one_way or turn % 2 == 0
        writer, reader = (first, second) if by_initiator else (second, first)
        if not writer.finished:
            assert writer.write_message(payload) == expected
            assert reader.read_message(expected) == payload
            continue
        direction = 0 if by_initiator else 1
        assert writer.ciphers[direction].encrypt(b"", payload) == expected
        assert reader.ciphers[direction].decrypt(b"", expected) == payload
    assert first.handshake_hash.hex() == vector["handshake_hash"]
    assert second.handshake_hash == first.handshake_hash


def test_every_pattern_is_held_to_a_vector_in_both_suites():
    names = {v["protocol_name"] for v in vectors()}
    assert names >= {
        f"Noise_{pattern}_25519_{suite}_SHA256"
        for pattern in PATTERNS
        for suite in ("AESGCM", "ChaChaPoly")
    }


def test_the_reserved_nonce_is_never_used():
    state = CipherState("AESGCM", bytes(32))
    state.n = NONCE_MAX
    with pytest.raises(KeysExhausted):
        state.encrypt(b"", b"x")


def test_a_failed_decryption_does_not_count():
    state = CipherState("ChaChaPoly", bytes(32))
    with pytest.raises(HandshakeFailed):
        state.decrypt(b"", b"x" * 32)
    assert state.n == 0


def test_rekey_gives_both_sides_the_same_new_key():
    first, second = CipherState("AESGCM", bytes(32)), CipherState("AESGCM", bytes(32))
    first.rekey()
    second.rekey()
    assert first.key != bytes(32)
    assert second.decrypt(b"", first.encrypt(b"", b"x")) == b"x"


def test_an_unknown_pattern_names_the_known_ones():
    with pytest.raises(ValueError, match="unknown Noise pattern 'ZZ'; known: N, K, X, NN"):
        HandshakeState("ZZ", "AESGCM", initiator=True, prologue=b"", entropy=bytes)
