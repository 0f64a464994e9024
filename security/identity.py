"""Who is who: the cluster's own authority, a certificate a node, and what makes one acceptable.

A certificate is X.509 with an Ed25519 key and exactly one name, a URI:

    ring://CLUSTER/SERVICE/NAME              e.g. ring://6f1c…/raft/n2

so that ordinary tools can read it (`openssl x509 -in .ring/nodes/n1/cert -text`), and a node of
one cluster is nobody in another. A serial number begins with a digest of the key, so that revoking
a certificate revokes its key: a thief who kept the one before the last renewal gains nothing.

Beside its Ed25519 key, with which it proves who it is, a node
holds a static X25519 key, with which it agrees on session keys; the first signs the second (see
channel.py).

Everything is computed from its arguments (`now` in Unix seconds, `entropy` for keys and serials),
so a simulation makes the same authority from the same seed. Files are the business of
keystore.py.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from security.errors import CertificateRejected
from security.noise import public_bytes

Entropy = Callable[[int], bytes]

DAY_S: Final = 86_400.0

# A laptop's cluster is started, left for weeks and started again; revocation and `ring up` (which
# renews) bound the harm of a stolen key, not the calendar.
LEAF_LIFETIME_S: Final = 90 * DAY_S
CA_LIFETIME_S: Final = 3_650 * DAY_S

# Renewed when two thirds of the life are over, as step-ca does: a third is left to notice a
# failure in.
RENEW_AT: Final = 2 / 3

# Machines disagree about the time, and one whose clock is set wrong by hours must still be able to
# talk to its siblings; a certificate is valid this long before its issuer's "now".
CLOCK_SKEW_S: Final = DAY_S

# RFC 5280 §4.1.2.2: a serial number has at most 20 octets and is positive.
SERIAL_KEY_BYTES: Final = 12
SERIAL_RANDOM_BYTES: Final = 7

SCHEME: Final = "ring://"
NAME_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """Who a verified certificate belongs to, and the static key it came with."""

    name: str
    service: str
    cluster: str
    serial: int
    expires_at: float
    public_key: bytes  # Ed25519, 32 bytes
    static_key: bytes = b""  # X25519, 32 bytes; set when a handshake proved it

    def __str__(self) -> str:
        return f"{self.service}/{self.name}"


class Identity:
    """A node's keys and certificate, and what it needs to judge another's."""

    def __init__(
        self,
        signing_key: Ed25519PrivateKey,
        static_key: X25519PrivateKey,
        certificate: x509.Certificate,
        authority: x509.Certificate,
        revocations: x509.CertificateRevocationList,
    ) -> None:
        self.signing_key = signing_key
        self.static_key = static_key
        self.certificate = certificate
        self.authority = authority
        self.revocations = revocations
        self.cluster, self.service, self.name = parse_uri(certificate)
        self.certificate_der = certificate.public_bytes(Encoding.DER)

    def __repr__(self) -> str:
        until = self.certificate.not_valid_after_utc.date().isoformat()
        return f"<Identity {self.service}/{self.name} serial={self.serial:x} until={until}>"

    @property
    def serial(self) -> int:
        """The certificate's serial number."""
        return self.certificate.serial_number

    @property
    def expires_at(self) -> float:
        """Unix time at which the certificate ends."""
        return self.certificate.not_valid_after_utc.timestamp()

    def renew_due(self, now: float) -> bool:
        """Whether two thirds of the certificate's life are over."""
        begin = self.certificate.not_valid_before_utc.timestamp()
        return now >= begin + RENEW_AT * (self.expires_at - begin)

    def sign_static_key(self) -> bytes:
        """The statement that binds the static key to this certificate."""
        return self.signing_key.sign(static_key_statement(public_bytes(self.static_key)))


class Authority:
    """The cluster's certificate authority: issues, renews, revokes."""

    def __init__(
        self,
        key: Ed25519PrivateKey,
        certificate: x509.Certificate,
        revocations: x509.CertificateRevocationList,
    ) -> None:
        self.key = key
        self.certificate = certificate
        self.revocations = revocations
        self.cluster = _common_name(certificate)

    def __repr__(self) -> str:
        return f"<Authority of {self.cluster} revoked={len(list(self.revocations))}>"

    @classmethod
    def create(cls, cluster: str, *, now: float, entropy: Entropy) -> Authority:
        """A new authority for the cluster id `cluster`."""
        check_name(cluster, "cluster id")
        key = Ed25519PrivateKey.from_private_bytes(entropy(32))
        name = _x509_name(cluster)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(_serial(key.public_key(), entropy))
            .not_valid_before(_moment(now - CLOCK_SKEW_S))
            .not_valid_after(_moment(now + CA_LIFETIME_S))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .sign(key, None)
        )
        return cls(key, certificate, _revocation_list(key, name, [], now))

    def issue(
        self,
        name: str,
        service: str,
        *,
        now: float,
        entropy: Entropy,
        lifetime_s: float = LEAF_LIFETIME_S,
    ) -> Identity:
        """A new identity with keys of its own; raises ValueError for an unfit name."""
        signing_key = Ed25519PrivateKey.from_private_bytes(entropy(32))
        static_key = X25519PrivateKey.from_private_bytes(entropy(32))
        certificate = self._certify(
            name, service, signing_key.public_key(), now, entropy, lifetime_s
        )
        return Identity(signing_key, static_key, certificate, self.certificate, self.revocations)

    def renew(
        self,
        identity: Identity,
        *,
        now: float,
        entropy: Entropy,
        lifetime_s: float = LEAF_LIFETIME_S,
    ) -> Identity:
        """The same keys under a new certificate; raises CertificateRejected for a revoked one."""
        if is_revoked(identity.serial, self.revocations):
            raise CertificateRejected(f"the certificate of {identity.name} was revoked")
        public = identity.signing_key.public_key()
        certificate = self._certify(
            identity.name, identity.service, public, now, entropy, lifetime_s
        )
        return Identity(
            identity.signing_key,
            identity.static_key,
            certificate,
            self.certificate,
            self.revocations,
        )

    def revoke(self, serial: int, *, now: float) -> x509.CertificateRevocationList:
        """Refuse the certificate `serial` and all of its key from now on; returns the new list."""
        serials = [entry.serial_number for entry in self.revocations]
        if serial not in serials:
            serials.append(serial)
        name = self.certificate.subject
        self.revocations = _revocation_list(self.key, name, serials, now)
        return self.revocations

    def _certify(
        self,
        name: str,
        service: str,
        public_key: Ed25519PublicKey,
        now: float,
        entropy: Entropy,
        lifetime_s: float,
    ) -> x509.Certificate:
        check_name(name, "node name")
        check_name(service, "service name")
        uri = f"ring://{self.cluster}/{service}/{name}"
        return (
            x509.CertificateBuilder()
            .subject_name(_x509_name(name))
            .issuer_name(self.certificate.subject)
            .public_key(public_key)
            .serial_number(_serial(public_key, entropy))
            .not_valid_before(_moment(now - CLOCK_SKEW_S))
            .not_valid_after(_moment(now + lifetime_s))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=True
            )
            .sign(self.key, None)
        )


def verify(
    certificate_der: bytes,
    *,
    authority: x509.Certificate,
    revocations: x509.CertificateRevocationList,
    now: float,
) -> PeerIdentity:
    """Who `certificate_der` belongs to; raises CertificateRejected with the reason."""
    try:
        certificate = x509.load_der_x509_certificate(certificate_der)
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        cluster, service, name = parse_uri(certificate)
        public_key = certificate.public_key()
    except Exception as error:  # whatever the parser raises for bytes that a stranger chose
        raise CertificateRejected(f"the certificate cannot be read: {error}") from None
    if not isinstance(public_key, Ed25519PublicKey):
        raise CertificateRejected("the certificate's key is not an Ed25519 key")
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        raise CertificateRejected(
            f"the certificate of {name} was issued by another authority"
        ) from None
    if now >= authority.not_valid_after_utc.timestamp():
        raise CertificateRejected(f"the authority of {name} has expired")
    if constraints.ca or not usage.digital_signature or usage.key_cert_sign:
        raise CertificateRejected(f"the certificate of {name} is not one for a node")
    if cluster != _common_name(authority):
        raise CertificateRejected(f"the certificate of {name} is for another cluster")
    expires_at = certificate.not_valid_after_utc.timestamp()
    if now < certificate.not_valid_before_utc.timestamp():
        raise CertificateRejected(f"the certificate of {name} is not valid yet")
    if now >= expires_at:
        raise CertificateRejected(f"the certificate of {name} has expired")
    serial = certificate.serial_number
    if is_revoked(serial, revocations):
        raise CertificateRejected(f"the certificate of {name} was revoked")
    return PeerIdentity(name, service, cluster, serial, expires_at, public_key.public_bytes_raw())


def verify_static_key(public_key: bytes, static_key: bytes, signature: bytes) -> None:
    """Whether the holder of `public_key` vouches for `static_key`; raises CertificateRejected."""
    try:
        key = Ed25519PublicKey.from_public_bytes(public_key)
        key.verify(signature, static_key_statement(static_key))
    except (InvalidSignature, ValueError):
        raise CertificateRejected("the static key is not the certificate holder's") from None


def is_revoked(serial: int, revocations: x509.CertificateRevocationList) -> bool:
    """Whether the list has a certificate of the same key."""
    key = serial >> 8 * SERIAL_RANDOM_BYTES
    return any(entry.serial_number >> 8 * SERIAL_RANDOM_BYTES == key for entry in revocations)


def check_revocation_list(
    revocations: x509.CertificateRevocationList, authority: x509.Certificate
) -> None:
    """Whether the list is the authority's own; raises CertificateRejected."""
    key = authority.public_key()
    if not isinstance(key, Ed25519PublicKey) or not revocations.is_signature_valid(key):
        raise CertificateRejected("the revocation list is not signed by this authority")


def static_key_statement(static_key: bytes) -> bytes:
    """What a node signs: a fixed context first, so that the signature means nothing elsewhere."""
    return b"ringleader static key v1\0" + static_key


def check_name(name: str, what: str) -> None:
    """Raise ValueError unless `name` is 1 to 63 of a-z 0-9 - _ and dot."""
    if not 1 <= len(name) <= 63 or not set(name) <= NAME_CHARACTERS:
        raise ValueError(f"{what} {name!r}: use 1 to 63 of a-z, 0-9, '-', '_' and '.'")


def parse_uri(certificate: x509.Certificate) -> tuple[str, str, str]:
    """(cluster, service, name) of a certificate; ValueError unless it has exactly one URI."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1 or len(list(names)) != 1:
        raise ValueError("a node's certificate has exactly one name")
    parts = uris[0].removeprefix(SCHEME).split("/")
    if not uris[0].startswith(SCHEME) or len(parts) != 3:
        raise ValueError(f"{uris[0]!r} is not of the form ring://CLUSTER/SERVICE/NAME")
    for part in parts:
        check_name(part, "a part of the name")
    cluster, service, name = parts
    return cluster, service, name


def _common_name(certificate: x509.Certificate) -> str:
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def _x509_name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _moment(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(int(seconds), dt.UTC)


def _serial(key: Ed25519PublicKey, entropy: Entropy) -> int:
    digest = hashlib.sha256(key.public_bytes_raw()).digest()[:SERIAL_KEY_BYTES]
    return int.from_bytes(digest + entropy(SERIAL_RANDOM_BYTES), "big")


def _revocation_list(
    key: Ed25519PrivateKey, name: x509.Name, serials: list[int], now: float
) -> x509.CertificateRevocationList:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(name)
        .last_update(_moment(now))
        .next_update(_moment(now + CA_LIFETIME_S))
    )
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(_moment(now))
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(key, None)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
