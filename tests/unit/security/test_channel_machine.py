"""A channel under an attacker who holds the line: drop, repeat, reorder, flip, reflect, renumber.

The model knows of every packet who sealed it, with which key generation, and whether it was
opened; from that it says what each attempt to open must give.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from security import channel
from security.errors import KeysExhausted, Replayed, SecurityError, Tampered
from security.replay import WINDOW

SIDES = st.integers(0, 1)


@dataclass(frozen=True)
class Packet:
    sender: int
    number: int
    phase: int
    generation: int
    header: bytes
    plaintext: bytes
    ciphertext: bytes


class ChannelMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        first, second = bytes([1]) * 32, bytes([2]) * 32
        self.sessions = [
            channel.Session("AESGCM", first, second),
            channel.Session("AESGCM", second, first),
        ]
        self.packets: list[Packet] = []
        self.next_number = [0, 0]
        self.sealing = [0, 0]  # generation of the sending key
        self.opening = [0, 0]  # newest generation that this side has opened
        self.opened: list[set[int]] = [set(), set()]
        self.tampered = [0, 0]

    @rule(side=SIDES, skip=st.sampled_from([0, 0, 0, 1, WINDOW - 1, WINDOW]), data=st.binary())
    def send(self, side: int, skip: int, data: bytes) -> None:
        number = self.next_number[side] + skip
        session, header = self.sessions[side], b"header %d" % number
        phase = session.send_phase
        sealed = session.seal(number, header, data)
        assert len(sealed) == len(data) + 16
        self.packets.append(Packet(side, number, phase, self.sealing[side], header, data, sealed))
        self.next_number[side] = number + 1

    @precondition(lambda self: self.packets)
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        """Any packet, also once more, also out of order."""
        packet = self._any(data)
        receiver = 1 - packet.sender
        expected = self._expected(packet, receiver)
        if expected is None:
            assert self._open(packet, receiver) == packet.plaintext
            self.opened[receiver].add(packet.number)
            self.opening[receiver] = max(self.opening[receiver], packet.generation)
        else:
            self._fails(expected, packet, receiver)

    @precondition(lambda self: self.packets)
    @rule(data=st.data())
    def flip_a_bit(self, data: st.DataObject) -> None:
        packet = self._any(data)
        sealed = bytearray(packet.ciphertext)
        bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
        sealed[bit // 8] ^= 1 << bit % 8
        self._fails(SecurityError, packet, 1 - packet.sender, ciphertext=bytes(sealed))

    @precondition(lambda self: self.packets)
    @rule(data=st.data())
    def change_the_header(self, data: st.DataObject) -> None:
        packet = self._any(data)
        self._fails(SecurityError, packet, 1 - packet.sender, header=packet.header + b"x")

    @precondition(lambda self: self.packets)
    @rule(data=st.data(), by=st.integers(1, 2 * WINDOW))
    def renumber(self, data: st.DataObject, by: int) -> None:
        packet = self._any(data)
        self._fails(SecurityError, packet, 1 - packet.sender, number=packet.number + by)

    @precondition(lambda self: self.packets)
    @rule(data=st.data())
    def flip_the_phase(self, data: st.DataObject) -> None:
        packet = self._any(data)
        self._fails(SecurityError, packet, 1 - packet.sender, phase=packet.phase ^ 1)

    @precondition(lambda self: self.packets)
    @rule(data=st.data())
    def reflect(self, data: st.DataObject) -> None:
        packet = self._any(data)
        self._fails(SecurityError, packet, packet.sender)

    @precondition(lambda self: any(self.next_number))
    @rule(side=SIDES, back=st.integers(1, 3))
    def seal_under_a_used_number(self, side: int, back: int) -> None:
        number = self.next_number[side] - back
        if number >= 0:
            with pytest.raises(KeysExhausted):
                self.sessions[side].seal(number, b"", b"again")

    @rule(side=SIDES)
    def rekey(self, side: int) -> None:
        """Only when the peer has opened a packet of this key: the transport's rule."""
        if self.opening[1 - side] == self.sealing[side] and any(
            p.sender == side and p.generation == self.sealing[side] for p in self.packets
        ):
            self.sessions[side].rekey(0.0)
            self.sealing[side] += 1

    @invariant()
    def counters_tell_what_happened(self) -> None:
        assert [session.tampered for session in self.sessions] == self.tampered

    def _any(self, data: st.DataObject) -> Packet:
        return data.draw(st.sampled_from(self.packets[-12:]))

    def _expected(self, packet: Packet, receiver: int) -> type[SecurityError] | None:
        opened = self.opened[receiver]
        if packet.number in opened or packet.number <= max(opened, default=-1) - WINDOW:
            return Replayed
        if packet.generation < self.opening[receiver] - 1:
            return Tampered  # that key is forgotten
        return None

    def _open(self, packet: Packet, receiver: int, **changes) -> bytes:
        seen = {**packet.__dict__, **changes}
        return self.sessions[receiver].open(
            seen["number"], seen["phase"], seen["header"], seen["ciphertext"]
        )

    def _fails(
        self, expected: type[SecurityError], packet: Packet, receiver: int, **changes
    ) -> None:
        with pytest.raises(expected) as caught:
            self._open(packet, receiver, **changes)
        self.tampered[receiver] += caught.type is Tampered


ChannelMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, database=None
)
TestChannelMachine = ChannelMachine.TestCase
