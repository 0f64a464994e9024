"""What can go wrong between two parties that do not trust the network.

SecurityError
├── CertificateRejected    who the peer says it is does not hold; the message says why
├── HandshakeFailed        the handshake's bytes do not fit: wrong keys, cluster, service, suite
├── Tampered               a packet's tag does not verify: changed, or sealed with other keys
├── Replayed               a packet that was opened before, or is too old to know
├── KeysExhausted          a limit of the keys was reached; the channel must end
└── KeystoreError          a key or certificate on disk cannot be read; the message names the file
"""

from __future__ import annotations


class SecurityError(Exception):
    """Base of all errors of this package."""


class CertificateRejected(SecurityError):
    """The certificate does not prove what it should; the message is one plain sentence."""


class HandshakeFailed(SecurityError):
    """The handshake cannot complete. Which check failed is not told to the peer."""


class Tampered(SecurityError):
    """The authentication tag does not verify."""


class Replayed(SecurityError):
    """The packet number was seen before, or lies before the window."""


class KeysExhausted(SecurityError):
    """More packets were sealed, or more forgeries seen, than the keys may bear."""


class KeystoreError(SecurityError):
    """A file of the keystore is missing, unreadable or not what it should be."""
