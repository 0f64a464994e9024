"""Each attack on the channel, shown and stopped."""

from __future__ import annotations

import msgpack
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from security_kit import NOW, Cluster, complete, connected, entropy, pair, static_of

from security import channel
from security.channel import Handshake
from security.errors import CertificateRejected, HandshakeFailed, KeysExhausted, Replayed, Tampered
from security.identity import CLOCK_SKEW_S, LEAF_LIFETIME_S, Authority, Identity
from security.noise import NONCE_MAX

HEADER = b"header"


@pytest.mark.parametrize("pattern", ["XX", "IK"])
@pytest.mark.parametrize("suite", ["AESGCM", "ChaChaPoly"])
def test_two_nodes_of_a_cluster_know_each_other(pattern, suite):
    cluster = Cluster()
    first, second = pair(cluster.n1, cluster.n2, pattern, i_suite=suite, r_suite=suite)
    a, b = complete(first, second)
    assert (first.peer.name, second.peer.name) == ("n2", "n1")
    assert first.handshake_hash == second.handshake_hash
    assert b.open(0, 0, HEADER, a.seal(0, HEADER, b"ping")) == b"ping"
    assert a.open(0, 0, HEADER, b.seal(0, HEADER, b"pong")) == b"pong"


def test_an_eavesdropper_sees_no_plaintext_and_no_certificate():
    cluster = Cluster()
    first, second = pair(cluster.n1, cluster.n2)
    wire = []
    for writer, reader in ((first, second), (second, first), (first, second)):
        wire.append(writer.write_message())
        reader.read_message(wire[-1])
    a, b = first.session(), second.session()
    wire.append(a.seal(0, HEADER, b"attack at dawn"))
    seen = b"".join(wire)
    assert b"attack" not in seen
    assert b"ring://" not in seen
    assert cluster.n1.certificate_der not in seen
    assert b"ring://" in cluster.n1.certificate_der  # it would have been seen, had it been open
    assert b.open(0, 0, HEADER, wire[-1]) == b"attack at dawn"


def test_a_flipped_bit_anywhere_is_noticed():
    a, b = connected()
    sealed = a.seal(0, HEADER, b"pay 100 to Ben")
    for position in range(len(sealed) * 8):
        changed = bytearray(sealed)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(Tampered):
            b.open(0, 0, HEADER, bytes(changed))
    assert b.open(0, 0, HEADER, sealed) == b"pay 100 to Ben"


def test_a_changed_header_is_noticed():
    a, b = connected()
    sealed = a.seal(0, HEADER, b"x")
    with pytest.raises(Tampered):
        b.open(0, 0, b"Header", sealed)
    with pytest.raises(Tampered):
        b.open(1, 0, HEADER, sealed)


def test_a_replay_in_the_same_session_is_refused():
    a, b = connected()
    sealed = a.seal(0, HEADER, b"pay 100 to Ben")
    b.open(0, 0, HEADER, sealed)
    with pytest.raises(Replayed):
        b.open(0, 0, HEADER, sealed)
    assert b.replayed == 1


def test_a_replay_into_another_session_does_not_open():
    cluster = Cluster()
    a, b = complete(*pair(cluster.n1, cluster.n2))
    recorded = a.seal(0, HEADER, b"pay 100 to Ben")
    b.open(0, 0, HEADER, recorded)
    fresh = {"i_entropy": entropy(7), "r_entropy": entropy(8)}
    _, b2 = complete(*pair(cluster.n1, cluster.n2, **fresh))
    with pytest.raises(Tampered):
        b2.open(0, 0, HEADER, recorded)


def test_a_recorded_handshake_does_not_work_after_the_responder_restarts():
    cluster = Cluster()
    first, second = pair(cluster.n1, cluster.n2)
    opening = first.write_message()
    second.read_message(opening)
    first.read_message(second.write_message())
    closing = first.write_message()
    second.read_message(closing)
    # The responder restarts: same identity, another ephemeral key.
    _, reborn = pair(cluster.n1, cluster.n2, r_entropy=entropy(99))
    reborn.read_message(opening)
    reborn.write_message()
    with pytest.raises(HandshakeFailed):
        reborn.read_message(closing)


def test_a_replayed_ik_opening_gives_the_thief_no_keys():
    # The responder cannot tell it from a new one (Noise §7.7): it must wait for a packet to open.
    cluster = Cluster()
    first, second = pair(cluster.n1, cluster.n2, "IK")
    opening = first.write_message(b"parameters")
    second.read_message(opening)
    first.read_message(second.write_message())
    recorded = first.session().seal(0, HEADER, b"pay 100 to Ben")
    _, again = pair(cluster.n1, cluster.n2, "IK", r_entropy=entropy(99))
    assert again.read_message(opening) == b"parameters"
    again.write_message()
    assert again.peer.name == "n1"
    session = again.session()
    for packet in (recorded, bytes(40)):
        with pytest.raises(Tampered):
            session.open(0, 0, HEADER, packet)


def test_a_packet_reflected_to_its_sender_does_not_open():
    a, _ = connected()
    sealed = a.seal(0, HEADER, b"hello")
    with pytest.raises(Tampered):
        a.open(0, 0, HEADER, sealed)


def test_a_handshake_reflected_to_its_sender_does_not_go_on():
    cluster = Cluster()
    first, _ = pair(cluster.n1, cluster.n2)
    opening = first.write_message()
    with pytest.raises(HandshakeFailed):
        first.read_message(opening)


def test_a_node_does_not_shake_hands_with_its_own_mirror():
    cluster = Cluster()
    first, second = pair(cluster.n1, cluster.n1)
    with pytest.raises(CertificateRejected, match="our own identity"):
        complete(first, second)


@pytest.mark.parametrize("pattern", ["XX", "IK"])
def test_a_man_in_the_middle_with_a_certificate_of_another_authority(pattern):
    cluster, mallory = Cluster("c1", seed=1), Cluster("c1", seed=2)
    with pytest.raises(CertificateRejected, match="issued by another authority"):
        complete(*pair(mallory.n1, cluster.n2, pattern))
    if pattern == "XX":
        with pytest.raises(CertificateRejected, match="issued by another authority"):
            complete(*pair(cluster.n1, mallory.n2, pattern))


def test_a_man_in_the_middle_who_passes_all_on_learns_nothing_and_cannot_put_in_a_word():
    cluster = Cluster()
    first, second = pair(cluster.n1, cluster.n2)
    e = first.write_message()
    own = X25519PrivateKey.from_private_bytes(bytes(31) + b"\x01").public_key().public_bytes_raw()
    second.read_message(own + e[32:])  # his own ephemeral key in place of n1's
    with pytest.raises(HandshakeFailed):
        first.read_message(second.write_message())


def test_a_stolen_certificate_without_its_key_is_useless():
    cluster, mallory = Cluster(seed=1), Cluster(seed=2)
    stolen = Identity(
        mallory.n1.signing_key,
        mallory.n1.static_key,
        cluster.n1.certificate,
        cluster.authority.certificate,
        cluster.authority.revocations,
    )
    with pytest.raises(CertificateRejected, match="not the certificate holder's"):
        complete(*pair(stolen, cluster.n2))


def test_an_expired_certificate_is_refused():
    cluster = Cluster()
    later = NOW + LEAF_LIFETIME_S
    with pytest.raises(CertificateRejected, match="n2 has expired"):
        complete(*pair(cluster.n1, cluster.n2, i_now=later))
    complete(*pair(cluster.n1, cluster.n2, i_now=later - 1, r_now=later - 1))


def test_a_certificate_of_the_future_is_refused():
    cluster = Cluster()
    with pytest.raises(CertificateRejected, match="not valid yet"):
        complete(*pair(cluster.n1, cluster.n2, i_now=NOW - CLOCK_SKEW_S - 1))
    complete(*pair(cluster.n1, cluster.n2, i_now=NOW - CLOCK_SKEW_S))


@pytest.mark.parametrize("behind_s", [1, 3600, 12 * 3600])
def test_whose_clock_is_set_back_can_still_talk(behind_s):
    """`ring clock skew` puts a clock back by an hour; a restarted node must find its siblings."""
    cluster = Cluster()
    complete(*pair(cluster.n1, cluster.n2, i_now=NOW - behind_s))
    complete(*pair(cluster.n1, cluster.n2, r_now=NOW - behind_s))


def test_a_revoked_certificate_is_refused():
    cluster = Cluster()
    cluster.n1.revocations = cluster.authority.revoke(cluster.n2.serial, now=NOW)
    with pytest.raises(CertificateRejected, match="n2 was revoked"):
        complete(*pair(cluster.n1, cluster.n2))


def test_another_cluster_does_not_decrypt():
    cluster = Cluster("c1")
    stranger = Authority.create("c2", now=NOW, entropy=entropy(5)).issue(
        "n1", "raft", now=NOW, entropy=entropy(6)
    )
    with pytest.raises(HandshakeFailed):
        complete(*pair(stranger, cluster.n2))


@pytest.mark.parametrize("change", [{"r_service": "dht"}, {"r_suite": "ChaChaPoly"}])
def test_a_message_for_another_service_or_suite_does_not_decrypt(change):
    cluster = Cluster()
    with pytest.raises(HandshakeFailed):
        complete(*pair(cluster.n1, cluster.n2, **change))


@pytest.mark.parametrize("pattern", ["XX", "IK"])
def test_a_node_of_another_service_cannot_answer_for_this_one(pattern):
    cluster = Cluster()
    impostor = cluster.node("d1", "dht")
    with pytest.raises(CertificateRejected, match="dht/d1 answers for the service raft"):
        complete(*pair(cluster.n1, impostor, pattern))
    complete(*pair(impostor, cluster.n1, pattern))  # it may call, as itself


def test_a_pattern_changed_on_the_way_does_not_decrypt():
    cluster = Cluster()
    first, _ = pair(cluster.n1, cluster.n2, "IK")
    _, second = pair(cluster.n1, cluster.n2, "XX")
    with pytest.raises(HandshakeFailed):
        second.read_message(first.write_message())


@pytest.mark.parametrize("other", ["NN", "XN", "IX", "KK"])
def test_a_weaker_pattern_is_not_spoken_at_all(other):
    cluster = Cluster()
    with pytest.raises(ValueError, match=f"'{other}' is not one of XX, IK"):
        pair(cluster.n1, cluster.n2, other)


def test_another_version_of_the_protocol_does_not_decrypt(monkeypatch):
    cluster = Cluster()
    first, _ = pair(cluster.n1, cluster.n2)
    monkeypatch.setattr(channel, "VERSION", channel.VERSION + 1)
    _, second = pair(cluster.n1, cluster.n2)
    with pytest.raises(HandshakeFailed):
        complete(first, second)


def test_a_prologue_is_unambiguous():
    assert channel.prologue("s", "p", "ab", "c") != channel.prologue("s", "p", "a", "bc")


def test_ik_to_a_node_that_changed_its_static_key_fails():
    cluster = Cluster()
    first, second = pair(cluster.n1, cluster.n2, "IK", i_remote_static=static_of(cluster.n1))
    with pytest.raises(HandshakeFailed):
        second.read_message(first.write_message())


def test_a_small_order_public_key_is_a_failed_handshake():
    cluster = Cluster()
    _, second = pair(cluster.n1, cluster.n2)
    second.read_message(bytes(32) + b"\x91\xc4\x00")
    with pytest.raises(HandshakeFailed, match="small order"):
        second.write_message()


@pytest.mark.parametrize("length", [0, 1, 31, 32, 40, 70_000])
def test_messages_of_any_length_fail_cleanly(length):
    cluster = Cluster()
    _, second = pair(cluster.n1, cluster.n2, "IK")
    with pytest.raises(HandshakeFailed):
        second.read_message(bytes(length))


class TestAMessageThatDoesNotHoldChangesNothing:
    """Anybody can send one; the true one may still come."""

    @pytest.mark.parametrize("pattern", ["XX", "IK"])
    def test_forged_or_damaged(self, pattern):
        cluster = Cluster()
        writer, reader = pair(cluster.n1, cluster.n2, pattern)
        sides = writer, reader
        while not reader.finished or not writer.finished:
            message = writer.write_message(b"hello")
            forgeries = [b"", bytes(300), message[:-1], message + b"x"]
            if len(message) > 40:  # XX's first is in the open, and its key is as good as another
                forgeries += [message[:40] + bytes([message[40] ^ 1]) + message[41:]]
            for forged in forgeries:
                with pytest.raises((HandshakeFailed, CertificateRejected)):
                    reader.read_message(forged)
                assert not reader.finished
            assert reader.read_message(message) == b"hello"
            writer, reader = reader, writer
        a, b = (side.session() for side in sides)
        assert b.open(0, 0, HEADER, a.seal(0, HEADER, b"x")) == b"x"

    def test_valid_but_of_someone_who_is_rejected(self):
        cluster, mallory = Cluster(seed=1), Cluster(seed=2)
        first, second = pair(cluster.n1, cluster.n2)
        opening = first.write_message()
        _, forger = pair(cluster.n1, mallory.n2)
        forger.read_message(opening)
        with pytest.raises(CertificateRejected):
            first.read_message(forger.write_message())
        assert (first.finished, first.peer) == (False, None)
        second.read_message(opening)
        first.read_message(second.write_message())
        assert first.peer.name == "n2"


class TestKeysAreGivenOut:
    def test_once(self):
        cluster = Cluster()
        first, second = pair(cluster.n1, cluster.n2)
        complete(first, second)
        with pytest.raises(HandshakeFailed, match="given before"):
            first.session()

    def test_not_before_the_end(self):
        cluster = Cluster()
        first, second = pair(cluster.n1, cluster.n2)
        second.read_message(first.write_message())
        for side in (first, second):
            with pytest.raises(HandshakeFailed, match="not finished"):
                side.session()

    def test_not_to_a_peer_that_was_rejected(self):
        cluster, mallory = Cluster(seed=1), Cluster(seed=2)
        _, second = sides = pair(mallory.n1, cluster.n2, "IK")
        with pytest.raises(CertificateRejected):
            complete(*sides)
        with pytest.raises(HandshakeFailed):
            second.session()


def test_a_payload_that_is_no_list_of_bytes_is_refused():
    for payload in (
        b"\xc1",
        b"\xc0",
        msgpack.packb([1]),
        msgpack.packb([b"a", b"b"]),
        b"\x91" * 99,
    ):
        _, second = pair(Cluster().n1, Cluster().n2)
        with pytest.raises(HandshakeFailed, match="payload"):
            second.read_message(bytes(31) + b"\x09" + payload)


def test_a_handshake_of_other_turn_is_refused():
    cluster = Cluster()
    first, second = pair(cluster.n1, cluster.n2)
    with pytest.raises(HandshakeFailed, match="not this side's turn"):
        second.write_message()
    first.write_message()
    with pytest.raises(HandshakeFailed, match="not this side's turn"):
        first.write_message()


def test_a_payload_that_does_not_fit_a_message_is_refused():
    first, _ = pair(Cluster().n1, Cluster().n2)
    with pytest.raises(HandshakeFailed, match="at most 65,535 bytes"):
        first.write_message(bytes(65_536))


def test_what_a_person_sees():
    cluster = Cluster()
    first, second = pair(cluster.n1, cluster.n2)
    assert repr(first) == "<Handshake initiator turn 0 peer=None>"
    a, _ = complete(first, second)
    assert repr(second) == "<Handshake responder finished peer=raft/n1>"
    a.seal(0, HEADER, b"x")
    assert repr(a) == "<Session AESGCM phase=0/0 sent=1 tampered=0 replayed=0>"


def test_an_unknown_suite_is_a_plain_error():
    cluster = Cluster()
    with pytest.raises(ValueError, match="'ROT13' is not one of AESGCM, ChaChaPoly"):
        Handshake(
            cluster.n1,
            initiator=True,
            pattern="XX",
            service="raft",
            suite="ROT13",
            entropy=entropy(),
            now=NOW,
        )


def test_a_number_is_never_sealed_twice():
    a, _ = connected()
    a.seal(5, HEADER, b"x")
    for number in (5, 4):
        with pytest.raises(KeysExhausted):
            a.seal(number, HEADER, b"y")


def test_a_key_that_has_sealed_enough_seals_no_more():
    a, b = connected()
    last = channel.SEALED_MAX - 1
    a.seal(last, HEADER, b"x")
    with pytest.raises(KeysExhausted, match="this key ends before 8388608"):
        a.seal(last + 1, HEADER, b"x")
    a.rekey(0.0)
    sealed = a.seal(last + 1, HEADER, b"goes on")
    assert b.open(last + 1, a.send_phase, HEADER, sealed) == b"goes on"


def test_the_nonce_that_makes_the_next_key_seals_no_packet():
    a, _ = connected()
    a._sent_to = NONCE_MAX - 2
    a.rekey(0.0)
    a.seal(NONCE_MAX - 1, HEADER, b"x")
    with pytest.raises(KeysExhausted):
        a.seal(NONCE_MAX, HEADER, b"x")


@pytest.mark.parametrize("number", [1, 2**32, 2**63, 2**64 - 1])
def test_forged_numbers_block_nothing(number):
    a, b = connected()
    with pytest.raises(Tampered):
        b.open(number, 0, HEADER, bytes(40))
    assert b.open(0, 0, HEADER, a.seal(0, HEADER, b"x")) == b"x"


@pytest.mark.parametrize("length", range(17))
def test_a_packet_shorter_than_a_tag_is_tampered_with(length):
    _, b = connected()
    with pytest.raises(Tampered):
        b.open(0, 0, HEADER, bytes(length))


def test_too_many_forgeries_end_the_channel():
    _, b = connected()
    b.tampered_max = 3
    for _ in range(2):
        with pytest.raises(Tampered):
            b.open(0, 0, HEADER, bytes(32))
    with pytest.raises(KeysExhausted, match="too many"):
        b.open(0, 0, HEADER, bytes(32))
    with pytest.raises(KeysExhausted):
        b.seal(0, HEADER, b"x")


def test_a_closed_channel_seals_and_opens_nothing():
    a, b = connected()
    sealed = a.seal(0, HEADER, b"x")
    b.close()
    with pytest.raises(KeysExhausted):
        b.open(0, 0, HEADER, sealed)
    with pytest.raises(KeysExhausted):
        b.seal(0, HEADER, b"x")
    with pytest.raises(KeysExhausted):
        b.rekey(0.0)


class TestRekey:
    def test_is_due_after_a_bound_of_packets(self):
        a, _ = connected(rekey_after_packets=3)
        for number in range(3):
            assert not a.rekey_due(0.0)
            a.seal(number, HEADER, b"x")
        assert a.rekey_due(0.0)
        a.rekey(0.0)
        assert not a.rekey_due(0.0)

    def test_is_due_after_a_bound_of_time(self):
        a, _ = connected()
        assert not a.rekey_due(0.0)
        a.seal(0, HEADER, b"x")
        assert not a.rekey_due(119.9)
        assert a.rekey_due(120.0)

    def test_the_receiver_follows_and_still_opens_what_was_under_way(self):
        a, b = connected()
        late = a.seal(0, HEADER, b"old key")
        a.rekey(0.0)
        new = a.seal(1, HEADER, b"new key")
        assert b.open(1, a.send_phase, HEADER, new) == b"new key"
        assert b.open(0, 0, HEADER, late) == b"old key"

    def test_many_in_a_row(self):
        a, b = connected()
        for number in range(20):
            sealed = a.seal(number, HEADER, bytes([number]))
            assert b.open(number, a.send_phase, HEADER, sealed) == bytes([number])
            a.rekey(0.0)

    def test_a_forged_phase_bit_changes_nothing(self):
        a, b = connected()
        sealed = a.seal(0, HEADER, b"x")
        with pytest.raises(Tampered):
            b.open(0, 1, HEADER, sealed)
        assert b.open(0, 0, HEADER, sealed) == b"x"
