"""A handshake with a Noise implementation that nobody here wrote (noiseprotocol from PyPI)."""

from __future__ import annotations

import random

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from security.noise import HandshakeState

connection = pytest.importorskip(
    "noise.connection", reason="pip install noiseprotocol to run the Noise interop test"
)


@pytest.mark.parametrize("suite", ["AESGCM", "ChaChaPoly"])
@pytest.mark.parametrize("pattern", ["XX", "IK"])
@pytest.mark.parametrize("ours_first", [True, False])
def test_handshake_and_transport(pattern, suite, ours_first):
    dice = random.Random(1)
    our_key, their_key = (X25519PrivateKey.from_private_bytes(dice.randbytes(32)) for _ in range(2))
    theirs = connection.NoiseConnection.from_name(f"Noise_{pattern}_25519_{suite}_SHA256".encode())
    theirs.set_prologue(b"p")
    theirs.set_keypair_from_private_bytes(connection.Keypair.STATIC, their_key.private_bytes_raw())
    known = None
    if pattern == "IK":
        if ours_first:
            known = their_key.public_key().public_bytes_raw()
        else:
            theirs.set_keypair_from_public_bytes(
                connection.Keypair.REMOTE_STATIC, our_key.public_key().public_bytes_raw()
            )
    ours = HandshakeState(
        pattern, suite, initiator=ours_first, prologue=b"p", entropy=dice.randbytes, s=our_key,
        rs=known,
    )  # fmt: skip
    theirs.set_as_responder() if ours_first else theirs.set_as_initiator()
    theirs.start_handshake()
    while not ours.finished:
        if ours.my_turn:
            assert bytes(theirs.read_message(ours.write_message(b"from us"))) == b"from us"
        else:
            assert ours.read_message(bytes(theirs.write_message(b"from them"))) == b"from them"
    assert theirs.handshake_finished
    assert theirs.get_handshake_hash() == ours.handshake_hash
    send, receive = ours.ciphers if ours_first else reversed(ours.ciphers)
    for turn in range(3):
        text = b"turn %d" % turn
        assert bytes(theirs.decrypt(send.encrypt(b"", text))) == text
        assert receive.decrypt(b"", bytes(theirs.encrypt(text))) == text
