"""Tokens that let a host answer without remembering: address validation, and stateless reset.

All are keyed hashes under keys derived from the node's static key, which lies on disk: a host
that was killed and restarted still knows its own tokens.

    retry token     "this address can receive": bound to host and port, 10 s
    new token       the same for a later connection: bound to the host, a day
    reset token     "I, who had this connection id, know it no more": 16 bytes a connection id
"""

from __future__ import annotations

import hmac
import struct
from typing import Final

from netstack.transport.packet import RESET_TOKEN_BYTES

RETRY_S: Final = 10.0
NEW_TOKEN_S: Final = 86_400.0

_EXPIRY: Final = struct.Struct(">d")
_TAG_BYTES: Final = 16


class TokenMint:
    """Makes and checks the tokens of one node. Times are Unix seconds."""

    def __init__(self, secret: bytes) -> None:
        self._address_key = hmac.digest(secret, b"ringleader address validation", "sha256")
        self._reset_key = hmac.digest(secret, b"ringleader stateless reset", "sha256")

    def retry(self, host: str, port: int, now: float) -> bytes:
        """For an INITIAL that is to be sent again, from the same address, soon."""
        return self._address_token(f"{host}:{port}", now + RETRY_S)

    def new(self, host: str, now: float) -> bytes:
        """For later connections from the same host."""
        return self._address_token(host, now + NEW_TOKEN_S)

    def valid(self, token: bytes, host: str, port: int, now: float) -> bool:
        """Whether `token` is one of the two, for this address, and not too old."""
        if len(token) != _EXPIRY.size + _TAG_BYTES:
            return False
        (expires_at,) = _EXPIRY.unpack_from(token)
        if not now < expires_at <= now + NEW_TOKEN_S:
            return False
        candidates = (f"{host}:{port}", host)
        return any(
            hmac.compare_digest(token, self._address_token(c, expires_at)) for c in candidates
        )

    def reset(self, connection_id: int) -> bytes:
        """The token that ends the connection which we know by `connection_id`."""
        digest = hmac.digest(self._reset_key, connection_id.to_bytes(8, "big"), "sha256")
        return digest[:RESET_TOKEN_BYTES]

    def _address_token(self, bound_to: str, expires_at: float) -> bytes:
        expiry = _EXPIRY.pack(expires_at)
        tag = hmac.digest(self._address_key, expiry + bound_to.encode(), "sha256")
        return expiry + tag[:_TAG_BYTES]
