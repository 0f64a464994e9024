"""Planted bugs of keys, windows, handshakes and certificates, and the test that catches each.

A judge is a test of tests/unit/security, where it passes; here it must fail.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from security import channel, identity
from security.channel import Handshake, Session
from security.errors import SecurityError
from security.replay import WINDOW, ReplayWindow

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "security"))
attacks = importlib.import_module("test_channel_attacks")
certificates = importlib.import_module("test_identity")
machine = importlib.import_module("test_channel_machine")
windows = importlib.import_module("test_replay_window")

CAUGHT = (AssertionError, SecurityError, pytest.fail.Exception)


def the_machine() -> None:
    run_state_machine_as_test(
        machine.ChannelMachine,
        settings=settings(
            max_examples=2_000,
            stateful_step_count=40,
            deadline=None,
            database=None,
            derandomize=True,
            phases=(Phase.generate,),  # finding is enough: nobody reads the smallest example
            report_multiple_bugs=False,
        ),
    )


# -- the session


class ReusesNonces(Session):
    def seal(self, number, header, plaintext):
        self._sent_to = -1
        return super().seal(number, header, plaintext)


class HasNoLimit(Session):
    def seal(self, number, header, plaintext):
        self._seal_end = channel.NONCE_MAX + 1
        return super().seal(number, header, plaintext)


class OneKeyForBothDirections(Session):
    def __init__(self, suite, send_key, receive_key, **options):
        key = min(send_key, receive_key)
        super().__init__(suite, key, key, **options)


class LeavesTheHeaderOpen(Session):
    def seal(self, number, header, plaintext):
        return super().seal(number, b"", plaintext)

    def open(self, number, phase, header, ciphertext):
        return super().open(number, phase, b"", ciphertext)


class NeverFollowsThePhase(Session):
    def open(self, number, phase, header, ciphertext):
        return super().open(number, self._receive_phase, header, ciphertext)


class FollowsThePhaseUnverified(Session):
    def _open_other_phase(self, number, header, ciphertext):
        self._open_previous, self._open = self._open, self._open_next
        self._receive_phase ^= 1
        return self._try(self._open, number, header, ciphertext)


class ForgetsThePreviousKey(Session):
    def _open_other_phase(self, number, header, ciphertext):
        plaintext = super()._open_other_phase(number, header, ciphertext)
        self._open_previous = None
        return plaintext


class RekeysToTheSameKey(Session):
    def rekey(self, now):
        key = self._send_key
        super().rekey(now)
        self._send_key, self._seal = key, self._make(key).encrypt


class MarksBeforeItVerifies(Session):
    def open(self, number, phase, header, ciphertext):
        try:
            return super().open(number, phase, header, ciphertext)
        except SecurityError:
            self._window.accept(number)
            raise


class ForgivesForgeries(Session):
    def _tampered(self, number):
        self.tampered_max = 2**63
        return super()._tampered(number)


class OpensAfterItsEnd(Session):
    def close(self):
        self._seal_end = -1


# -- the window


class OffByOne(ReplayWindow):
    def is_new(self, number):
        return self.highest - number == WINDOW or super().is_new(number)


class OneTooShort(ReplayWindow):
    def is_new(self, number):
        return super().is_new(number) and self.highest - number < WINDOW - 1


class AcceptsTheTooOld(ReplayWindow):
    def is_new(self, number):
        return self.highest - number >= WINDOW or super().is_new(number)


class ForgetsWhenItMoves(ReplayWindow):
    def accept(self, number):
        if number > self.highest:
            self._run = self._seen = 0
        super().accept(number)


# -- the handshake


class GivesKeysTwice(Handshake):
    def session(self, **options):
        self._keys_taken = False
        return super().session(**options)


class IsSpoiledByAForgery(Handshake):
    def read_message(self, data):
        try:
            return super().read_message(data)
        except SecurityError:
            self._noise._failed = True
            raise


class BelievesAnyStaticKey(Handshake):
    def _verify_peer(self, static_key, certificate_der, signature):
        identity_ = self._identity
        peer = identity.verify(
            certificate_der,
            authority=identity_.authority,
            revocations=identity_.revocations,
            now=self._now,
        )
        return channel.replace(peer, static_key=static_key)


class IgnoresTheService(Handshake):
    def _verify_peer(self, *proof):
        self._service = "dht" if self._service == "raft" else self._service
        return super()._verify_peer(*proof)


class IgnoresRevocation(Handshake):
    def _verify_peer(self, *proof):
        channel_is_revoked, identity.is_revoked = identity.is_revoked, lambda *_: False
        try:
            return super()._verify_peer(*proof)
        finally:
            identity.is_revoked = channel_is_revoked


class IgnoresTheCalendar(Handshake):
    def _verify_peer(self, *proof):
        now, self._now = self._now, attacks.NOW
        try:
            return super()._verify_peer(*proof)
        finally:
            self._now = now


def binds_nothing(suite, pattern, cluster, service):
    return b""


def revokes_the_serial_only(serial, revocations):
    return revocations.get_revoked_certificate_by_serial_number(serial) is not None


SESSION, WINDOW_IN_USE = "security.channel.Session", "security.channel.ReplayWindow"
HANDSHAKE = "security_kit.Handshake"
ZOO = [
    (ReusesNonces, SESSION, the_machine),
    (ReusesNonces, SESSION, attacks.test_a_number_is_never_sealed_twice),
    (HasNoLimit, SESSION, attacks.test_a_key_that_has_sealed_enough_seals_no_more),
    (HasNoLimit, SESSION, attacks.test_the_nonce_that_makes_the_next_key_seals_no_packet),
    (OneKeyForBothDirections, SESSION, the_machine),
    (
        OneKeyForBothDirections,
        SESSION,
        attacks.test_a_packet_reflected_to_its_sender_does_not_open,
    ),
    (LeavesTheHeaderOpen, SESSION, the_machine),
    (LeavesTheHeaderOpen, SESSION, attacks.test_a_changed_header_is_noticed),
    (NeverFollowsThePhase, SESSION, the_machine),
    (NeverFollowsThePhase, SESSION, attacks.TestRekey().test_many_in_a_row),
    (FollowsThePhaseUnverified, SESSION, the_machine),
    (
        FollowsThePhaseUnverified,
        SESSION,
        attacks.TestRekey().test_a_forged_phase_bit_changes_nothing,
    ),
    (
        ForgetsThePreviousKey,
        SESSION,
        attacks.TestRekey().test_the_receiver_follows_and_still_opens_what_was_under_way,
    ),
    (RekeysToTheSameKey, SESSION, the_machine),
    (MarksBeforeItVerifies, SESSION, the_machine),
    (ForgivesForgeries, SESSION, attacks.test_too_many_forgeries_end_the_channel),
    (OpensAfterItsEnd, SESSION, attacks.test_a_closed_channel_seals_and_opens_nothing),
    (OffByOne, "test_replay_window.ReplayWindow", windows.test_both_edges_of_the_window),
    (OneTooShort, "test_replay_window.ReplayWindow", windows.test_both_edges_of_the_window),
    (AcceptsTheTooOld, WINDOW_IN_USE, the_machine),
    (ForgetsWhenItMoves, WINDOW_IN_USE, the_machine),
    (GivesKeysTwice, HANDSHAKE, attacks.TestKeysAreGivenOut().test_once),
    (
        IsSpoiledByAForgery,
        HANDSHAKE,
        attacks.TestAMessageThatDoesNotHoldChangesNothing().test_valid_but_of_someone_who_is_rejected,
    ),
    (
        BelievesAnyStaticKey,
        HANDSHAKE,
        attacks.test_a_stolen_certificate_without_its_key_is_useless,
    ),
    (
        IgnoresTheService,
        HANDSHAKE,
        lambda: attacks.test_a_node_of_another_service_cannot_answer_for_this_one("XX"),
    ),
    (IgnoresTheCalendar, HANDSHAKE, attacks.test_an_expired_certificate_is_refused),
    (IgnoresTheCalendar, HANDSHAKE, attacks.test_a_certificate_of_the_future_is_refused),
    (IgnoresRevocation, HANDSHAKE, attacks.test_a_revoked_certificate_is_refused),
    (
        binds_nothing,
        "security.channel.prologue",
        lambda: attacks.test_a_message_for_another_service_or_suite_does_not_decrypt(
            {"r_service": "dht"}
        ),
    ),
    (
        revokes_the_serial_only,
        "security.identity.is_revoked",
        certificates.test_revoking_a_certificate_revokes_those_of_the_same_key,
    ),
]


def _id(value: object) -> str:
    name = getattr(value, "__name__", "")
    return "" if isinstance(value, str) else name.strip("<>")


@pytest.mark.parametrize(("bug", "where", "judge"), ZOO, ids=_id)
def test_the_bug_is_caught(bug, where, judge, monkeypatch):
    with monkeypatch.context() as planted:
        planted.setattr(where, bug)
        with pytest.raises(CAUGHT):
            judge()
