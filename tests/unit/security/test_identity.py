"""Certificates and the keystore: what is issued, what is refused, what lies on disk."""

from __future__ import annotations

import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from security_kit import NOW, Cluster, entropy

from security import keystore
from security.errors import CertificateRejected, KeystoreError
from security.identity import LEAF_LIFETIME_S, Authority, verify


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


def test_every_single_byte_counts():
    cluster = Cluster()
    der = cluster.n1.certificate_der
    for position in range(len(der)):
        changed = bytearray(der)
        changed[position] ^= 0x01
        with pytest.raises(CertificateRejected):
            judge(cluster, bytes(changed))


@pytest.mark.parametrize("name", ["", "N1", "a/b", "x" * 64, "n 1"])
def test_names_that_no_uri_could_bear_are_refused(name):
    with pytest.raises(ValueError, match="use 1 to 63 of"):
        Cluster().node(name)


def test_renewal_is_due_at_two_thirds_and_keeps_the_keys():
    cluster = Cluster()
    at = NOW + LEAF_LIFETIME_S * 2 / 3
    assert not cluster.n1.renew_due(at - 3600)
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
