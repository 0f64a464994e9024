"""Certificates and the keystore: what is issued, what is refused, what lies on disk."""

from __future__ import annotations

import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st
from security_kit import NOW, Cluster, entropy

from security import keystore
from security.errors import CertificateRejected, KeystoreError
from security.identity import (
    CA_LIFETIME_S,
    CLOCK_SKEW_S,
    LEAF_LIFETIME_S,
    Authority,
    _key_usage,
    _moment,
    _x509_name,
    verify,
)

THE_CLUSTER = Cluster()


def judge(cluster: Cluster, der: bytes, now: float = NOW):
    authority = cluster.authority
    return verify(der, authority=authority.certificate, revocations=authority.revocations, now=now)


def test_a_certificate_says_name_service_and_cluster():
    cluster = Cluster()
    peer = judge(cluster, cluster.n1.certificate_der)
    assert (peer.cluster, peer.service, peer.name) == ("c1", "raft", "n1")
    assert str(peer) == "raft/n1"
    assert peer.expires_at == NOW + LEAF_LIFETIME_S


def test_the_same_seed_makes_the_same_authority():
    assert Cluster(seed=3).n1.certificate_der == Cluster(seed=3).n1.certificate_der
    assert Cluster(seed=3).n1.certificate_der != Cluster(seed=4).n1.certificate_der


def test_the_authority_itself_is_not_a_node():
    cluster = Cluster()
    der = cluster.authority.certificate.public_bytes(Encoding.DER)
    with pytest.raises(CertificateRejected):
        judge(cluster, der)


def test_a_node_cannot_issue():
    cluster = Cluster()
    rogue = Authority(cluster.n1.signing_key, cluster.n1.certificate, cluster.authority.revocations)
    rogue.cluster = "c1"
    forged = rogue.issue("n9", "raft", now=NOW, entropy=entropy(9))
    with pytest.raises(CertificateRejected, match="another authority"):
        judge(cluster, forged.certificate_der)


@pytest.mark.parametrize("der", [b"", b"\x30\x00", b"not a certificate" * 20])
def test_nonsense_is_rejected(der):
    with pytest.raises(CertificateRejected, match="cannot be read"):
        judge(Cluster(), der)


def test_every_single_bit_of_what_is_signed_counts():
    cluster = Cluster()
    der, signed = cluster.n1.certificate_der, cluster.n1.certificate.tbs_certificate_bytes
    begin = der.index(signed)
    for bit in range(begin * 8, (begin + len(signed)) * 8):
        changed = bytearray(der)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CertificateRejected):
            judge(cluster, bytes(changed))


@pytest.mark.parametrize("seed", range(6))
def test_a_flipped_bit_elsewhere_is_rejected_or_says_the_same(seed):
    # DER lets a bit string claim unused bits where the signature ends in zeros: the same signature.
    cluster = Cluster(seed=seed)
    der = cluster.n1.certificate_der
    after = der.index(cluster.n1.certificate.tbs_certificate_bytes) + len(
        cluster.n1.certificate.tbs_certificate_bytes
    )
    said = judge(cluster, der)
    for bit in range(after * 8, len(der) * 8):
        changed = bytearray(der)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            assert judge(cluster, bytes(changed)) == said
        except CertificateRejected:
            continue


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_no_bytes_raise_anything_else(der):
    with pytest.raises(CertificateRejected):
        judge(THE_CLUSTER, der)


@settings(deadline=None)
@given(st.data())
def test_no_mutilated_certificate_raises_anything_else(data):
    der = bytearray(THE_CLUSTER.n1.certificate_der)
    begin = data.draw(st.integers(0, len(der)))
    end = data.draw(st.integers(begin, len(der)))
    der[begin:end] = data.draw(st.binary(max_size=40))
    try:
        assert judge(THE_CLUSTER, bytes(der)).name == "n1"
    except CertificateRejected:
        assert bytes(der) != THE_CLUSTER.n1.certificate_der


@pytest.mark.parametrize("name", ["", "N1", "a/b", "x" * 64, "n 1"])
def test_names_that_no_uri_could_bear_are_refused(name):
    with pytest.raises(ValueError, match="use 1 to 63 of"):
        Cluster().node(name)


def test_renewal_is_due_at_two_thirds_and_keeps_the_keys():
    cluster = Cluster()
    at = NOW - CLOCK_SKEW_S + (LEAF_LIFETIME_S + CLOCK_SKEW_S) * 2 / 3
    assert not cluster.n1.renew_due(at - 1)
    assert cluster.n1.renew_due(at)
    renewed = cluster.authority.renew(cluster.n1, now=at, entropy=cluster.entropy)
    assert renewed.serial != cluster.n1.serial
    assert renewed.certificate.public_key() == cluster.n1.certificate.public_key()
    assert judge(cluster, renewed.certificate_der, NOW + LEAF_LIFETIME_S + 1).name == "n1"


def test_a_revoked_certificate_is_not_renewed():
    cluster = Cluster()
    cluster.authority.revoke(cluster.n1.serial, now=NOW)
    with pytest.raises(CertificateRejected, match="was revoked"):
        cluster.authority.renew(cluster.n1, now=NOW, entropy=cluster.entropy)


def test_revoking_a_certificate_revokes_those_of_the_same_key():
    # A thief of the key has the certificate before the renewal too, and it has not expired.
    cluster = Cluster()
    renewed = cluster.authority.renew(cluster.n1, now=NOW, entropy=cluster.entropy)
    cluster.authority.revoke(renewed.serial, now=NOW)
    for identity in (cluster.n1, renewed):
        with pytest.raises(CertificateRejected, match="n1 was revoked"):
            judge(cluster, identity.certificate_der)
    again = cluster.node("n1")  # new keys under the old name are another matter
    assert judge(cluster, again.certificate_der).name == "n1"
    assert judge(cluster, cluster.n2.certificate_der).name == "n2"


def test_revoking_twice_lists_it_once():
    cluster = Cluster()
    cluster.authority.revoke(cluster.n1.serial, now=NOW)
    assert len(list(cluster.authority.revoke(cluster.n1.serial, now=NOW + 1))) == 1
    assert repr(cluster.authority) == "<Authority of c1 revoked=1>"


def test_the_validity_has_exact_ends():
    cluster = Cluster()
    der, end = cluster.n1.certificate_der, NOW + LEAF_LIFETIME_S
    assert judge(cluster, der, NOW - CLOCK_SKEW_S).name == "n1"
    assert judge(cluster, der, end - 0.001).name == "n1"
    with pytest.raises(CertificateRejected, match="n1 is not valid yet"):
        judge(cluster, der, NOW - CLOCK_SKEW_S - 0.001)
    with pytest.raises(CertificateRejected, match="n1 has expired"):
        judge(cluster, der, end)


def test_nothing_outlives_the_authority():
    cluster = Cluster()
    for_ever = cluster.node("n3", lifetime_s=2 * CA_LIFETIME_S)
    with pytest.raises(CertificateRejected, match="the authority of n3 has expired"):
        judge(cluster, for_ever.certificate_der, NOW + CA_LIFETIME_S)


class TestWhatTheAuthorityMustNotSign:
    """Each a certificate with the true authority's signature and one thing wrong."""

    def certificate(self, cluster, names=("ring://c1/raft/n1",), *, ca=False, **usage):
        uris = [x509.UniformResourceIdentifier(name) for name in names]
        key_usage = _key_usage(signs_certificates=False)
        if usage:
            fields = {k.lstrip("_"): v for k, v in vars(key_usage).items()}
            key_usage = x509.KeyUsage(**{**fields, **usage})
        return (
            x509.CertificateBuilder()
            .subject_name(_x509_name("n1"))
            .issuer_name(cluster.authority.certificate.subject)
            .public_key(cluster.n1.signing_key.public_key())
            .serial_number(7)
            .not_valid_before(_moment(NOW - 1))
            .not_valid_after(_moment(NOW + 60))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(key_usage, critical=True)
            .add_extension(x509.SubjectAlternativeName(uris), critical=True)
        )

    def judge(self, cluster, builder):
        signed = builder.sign(cluster.authority.key, None)
        return judge(cluster, signed.public_bytes(Encoding.DER))

    def test_with_nothing_wrong_it_would_pass(self):
        cluster = Cluster()
        assert self.judge(cluster, self.certificate(cluster)).name == "n1"

    @pytest.mark.parametrize(
        "flaw", [{"ca": True}, {"digital_signature": False}, {"key_cert_sign": True}]
    )
    def test_one_for_something_else_than_a_node(self, flaw):
        cluster = Cluster()
        with pytest.raises(CertificateRejected, match="n1 is not one for a node"):
            self.judge(cluster, self.certificate(cluster, **flaw))

    def test_one_for_another_cluster(self):
        cluster = Cluster()
        with pytest.raises(CertificateRejected, match="n1 is for another cluster"):
            self.judge(cluster, self.certificate(cluster, ["ring://c2/raft/n1"]))

    def test_two_names(self):
        cluster = Cluster()
        two = ["ring://c1/raft/n1", "ring://c1/raft/n2"]
        with pytest.raises(CertificateRejected, match="exactly one name"):
            self.judge(cluster, self.certificate(cluster, two))

    @pytest.mark.parametrize(
        "name",
        [
            "https://c1/raft/n1",
            "ring://c1/raft",
            "ring://c1/raft/n1/x",
            "ring://c1/raft/",
            "ring://c1//n1",
            "ring://me@c1/raft/n1",
            "ring://c1:7/raft/n1",
            "ring://c1/raft/n1?x",
            "ring://c1/raft/n1#x",
            "ring:c1/raft/n1",
        ],
    )
    def test_a_name_of_another_form(self, name):
        cluster = Cluster()
        with pytest.raises(CertificateRejected, match="cannot be read"):
            self.judge(cluster, self.certificate(cluster, [name]))

    def test_a_key_of_another_kind(self):
        cluster = Cluster()
        builder = self.certificate(cluster)
        builder._public_key = generate_private_key(65537, 2048).public_key()
        with pytest.raises(CertificateRejected, match="not an Ed25519 key"):
            self.judge(cluster, builder)


class TestKeystore:
    def test_what_is_saved_is_loaded(self, tmp_path):
        cluster = Cluster()
        keystore.save_authority(tmp_path, cluster.authority)
        keystore.save_identity(tmp_path, cluster.n1)
        loaded = keystore.load_identity(tmp_path, "n1")
        assert repr(loaded) == repr(cluster.n1)
        assert loaded.sign_static_key() == cluster.n1.sign_static_key()
        authority = keystore.load_authority(tmp_path)
        assert authority.cluster == "c1"

    def test_keys_are_for_their_owner_only(self, tmp_path):
        cluster = Cluster()
        keystore.save_authority(tmp_path, cluster.authority)
        keystore.save_identity(tmp_path, cluster.n1)
        for path in (tmp_path / "ca/key", tmp_path / "nodes/n1/key"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_a_key_that_others_can_read_is_refused_with_the_remedy(self, tmp_path):
        cluster = Cluster()
        keystore.save_identity(tmp_path, cluster.n1)
        path = tmp_path / "nodes/n1/key"
        path.chmod(0o644)
        with pytest.raises(KeystoreError, match=f"chmod 600 {path}"):
            keystore.load_identity(tmp_path, "n1")

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(KeystoreError, match=r"nodes/n7/key is missing"):
            keystore.load_identity(tmp_path, "n7")

    @pytest.mark.parametrize(
        ("path", "data", "says"),
        [
            ("nodes/n1/key", b"", "holds no private key"),
            ("nodes/n1/key", b"-----BEGIN PRIVATE KEY-----\nx\n", "holds no private key"),
            ("nodes/n1/cert", b"junk", "is not a certificate"),
            ("ca/cert", b"junk", "ca: "),
            ("ca/revoked", b"junk", "ca: "),
        ],
    )
    def test_a_damaged_file_is_named(self, tmp_path, path, data, says):
        cluster = Cluster()
        keystore.save_identity(tmp_path, cluster.n1)
        (tmp_path / path).write_bytes(data)
        with pytest.raises(KeystoreError, match=says):
            keystore.load_identity(tmp_path, "n1")

    def test_half_a_key_file_is_refused(self, tmp_path):
        cluster = Cluster()
        keystore.save_identity(tmp_path, cluster.n1)
        path = tmp_path / "nodes/n1/key"
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(KeystoreError, match="holds no private key"):
            keystore.load_identity(tmp_path, "n1")

    def test_a_certificate_of_another_authority_is_refused(self, tmp_path):
        cluster, other = Cluster(seed=1), Cluster(seed=2)
        keystore.save_authority(tmp_path, cluster.authority)
        keystore.save_identity(tmp_path, other.n1)
        with pytest.raises(KeystoreError, match="nodes/n1/cert was not issued by the authority"):
            keystore.load_identity(tmp_path, "n1")

    def test_an_authority_with_another_key_is_refused(self, tmp_path):
        cluster, other = Cluster(seed=1), Cluster(seed=2)
        keystore.save_authority(tmp_path, cluster.authority)
        key = (tmp_path / "ca/key").read_bytes()
        keystore.save_authority(tmp_path, other.authority)
        (tmp_path / "ca/key").write_bytes(key)
        with pytest.raises(KeystoreError, match="ca/cert does not belong to"):
            keystore.load_authority(tmp_path)

    def test_a_write_that_is_cut_leaves_the_old_file(self, tmp_path, monkeypatch):
        cluster = Cluster()
        keystore.save_authority(tmp_path, cluster.authority)
        before = (tmp_path / "ca/revoked").read_bytes()
        cluster.authority.revoke(cluster.n2.serial, now=NOW)

        def power_cut(_: int) -> None:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patched:
            patched.setattr(keystore.os, "fsync", power_cut)
            with pytest.raises(OSError, match="Input/output"):
                keystore.save_revocations(tmp_path, cluster.authority)
        assert (tmp_path / "ca/revoked").read_bytes() == before
        keystore.save_revocations(tmp_path, cluster.authority)  # what lies about is in no one's way
        assert (tmp_path / "ca/revoked").read_bytes() != before

    def test_a_certificate_of_another_key_is_refused(self, tmp_path):
        cluster = Cluster()
        keystore.save_identity(tmp_path, cluster.n1)
        other = cluster.n2.certificate.public_bytes(Encoding.PEM)
        (tmp_path / "nodes/n1/cert").write_bytes(other)
        with pytest.raises(KeystoreError, match="does not belong to"):
            keystore.load_identity(tmp_path, "n1")

    def test_a_revocation_list_that_the_authority_did_not_sign_is_refused(self, tmp_path):
        cluster, other = Cluster(seed=1), Cluster(seed=2)
        keystore.save_identity(tmp_path, cluster.n1)
        (tmp_path / "ca/revoked").write_bytes(
            other.authority.revocations.public_bytes(Encoding.PEM)
        )
        with pytest.raises(KeystoreError, match="not signed by this authority"):
            keystore.load_identity(tmp_path, "n1")

    def test_revocation_outlives_a_restart(self, tmp_path):
        cluster = Cluster()
        keystore.save_authority(tmp_path, cluster.authority)
        keystore.save_identity(tmp_path, cluster.n1)
        cluster.authority.revoke(cluster.n2.serial, now=NOW)
        keystore.save_revocations(tmp_path, cluster.authority)
        revoked = keystore.load_identity(tmp_path, "n1").revocations
        assert [entry.serial_number for entry in revoked] == [cluster.n2.serial]


def test_ordinary_tools_can_read_a_certificate():
    cluster = Cluster()
    parsed = x509.load_pem_x509_certificate(cluster.n1.certificate.public_bytes(Encoding.PEM))
    names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [n.value for n in names] == ["ring://c1/raft/n1"]
