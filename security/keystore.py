"""The files of the identities, and the only place that reads or writes them.

    HOME/ca/key            the authority's Ed25519 key            0600
    HOME/ca/cert           its certificate
    HOME/ca/revoked        its signed list of revoked certificates
    HOME/nodes/NAME/key    the node's Ed25519 and X25519 keys     0600
    HOME/nodes/NAME/cert   its certificate

All are PEM. Each is written whole: a temporary file in the same folder, synced, renamed, and the
folder synced: a revocation that was reported outlives a power cut.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from security.errors import CertificateRejected, KeystoreError
from security.identity import Authority, Identity, check_revocation_list

_END = b"-----END PRIVATE KEY-----\n"


def save_authority(home: Path, authority: Authority) -> None:
    """Write the authority's files."""
    folder = home / "ca"
    _write(folder / "key", _pem(authority.key), secret=True)
    _write(folder / "cert", authority.certificate.public_bytes(Encoding.PEM))
    save_revocations(home, authority)


def save_revocations(home: Path, authority: Authority) -> None:
    """Write the list of revoked certificates; daemons read it at their start and at SIGHUP."""
    _write(home / "ca" / "revoked", authority.revocations.public_bytes(Encoding.PEM))


def load_authority(home: Path) -> Authority:
    """The authority of `home`; raises KeystoreError."""
    key = _load_key(_read(home / "ca" / "key", secret=True), home / "ca" / "key")
    if not isinstance(key, Ed25519PrivateKey):
        raise KeystoreError(f"{home / 'ca' / 'key'} holds no Ed25519 key")
    certificate, revocations = _load_trust(home)
    if certificate.public_key() != key.public_key():
        raise KeystoreError(f"{home / 'ca' / 'cert'} does not belong to {home / 'ca' / 'key'}")
    return Authority(key, certificate, revocations)


def save_identity(home: Path, identity: Identity) -> None:
    """Write a node's files, and the authority's public ones where they are missing."""
    folder = home / "nodes" / identity.name
    keys = _pem(identity.signing_key) + _pem(identity.static_key)
    _write(folder / "key", keys, secret=True)
    _write(folder / "cert", identity.certificate.public_bytes(Encoding.PEM))
    if not (home / "ca" / "cert").exists():
        _write(home / "ca" / "cert", identity.authority.public_bytes(Encoding.PEM))
        _write(home / "ca" / "revoked", identity.revocations.public_bytes(Encoding.PEM))


def load_identity(home: Path, name: str) -> Identity:
    """The node `name`'s identity; raises KeystoreError, naming the file and what to do."""
    folder = home / "nodes" / name
    cure = f"new ones: ring cert reissue {name}"
    first, separator, second = _read(folder / "key", secret=True, cure=cure).partition(_END)
    signing_key = _load_key(first + separator, folder / "key")
    static_key = _load_key(second, folder / "key")
    if not isinstance(signing_key, Ed25519PrivateKey) or not isinstance(
        static_key, X25519PrivateKey
    ):
        raise KeystoreError(f"{folder / 'key'} should hold an Ed25519 and an X25519 key")
    try:
        certificate = x509.load_pem_x509_certificate(_read(folder / "cert", cure=cure))
    except ValueError as error:
        raise KeystoreError(f"{folder / 'cert'} is not a certificate: {error}") from None
    if certificate.public_key() != signing_key.public_key():
        raise KeystoreError(f"{folder / 'cert'} does not belong to {folder / 'key'}")
    authority, revocations = _load_trust(home)
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        raise KeystoreError(
            f"{folder / 'cert'} was not issued by the authority of {home / 'ca'}"
        ) from None
    try:
        return Identity(signing_key, static_key, certificate, authority, revocations)
    except (ValueError, x509.ExtensionNotFound) as error:
        raise KeystoreError(f"{folder / 'cert'}: {error}") from None


def _load_trust(home: Path) -> tuple[x509.Certificate, x509.CertificateRevocationList]:
    try:
        certificate = x509.load_pem_x509_certificate(_read(home / "ca" / "cert"))
        revocations = x509.load_pem_x509_crl(_read(home / "ca" / "revoked"))
        check_revocation_list(revocations, certificate)
    except (ValueError, CertificateRejected) as error:
        raise KeystoreError(f"{home / 'ca'}: {error}") from None
    return certificate, revocations


def _load_key(pem: bytes, path: Path) -> object:
    try:
        return load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeystoreError(f"{path} holds no private key: {error}") from None


def _pem(key: Ed25519PrivateKey | X25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _read(path: Path, *, secret: bool = False, cure: str = "`ring up` makes it") -> bytes:
    try:
        if secret and path.stat().st_mode & 0o077:
            raise KeystoreError(f"{path} can be read by others; do: chmod 600 {path}")
        return path.read_bytes()
    except FileNotFoundError:
        raise KeystoreError(f"{path} is missing; {cure}") from None
    except OSError as error:
        raise KeystoreError(f"{path} cannot be read: {error.strerror}") from None


def _write(path: Path, data: bytes, *, secret: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644
    )
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
