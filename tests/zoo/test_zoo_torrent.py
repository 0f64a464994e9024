"""Planted bugs in BitTorrent: each must be caught by the check that claims to catch its kind."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from dht.torrent import bencode, picker
from dht.torrent.creation import create
from dht.torrent.errors import Malformed
from dht.torrent.metainfo import parse_info
from dht.torrent.picker import CHECKING, Ask, Picker
from dht.torrent.shape import BLOCK
from dht.torrent.simulation import Node
from dht.torrent.storage import Storage
from dht.torrent.swarm import Swarm

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "unit" / "torrent"), str(TESTS / "simulation")]
kit = importlib.import_module("torrent_kit")
PickerMachine = importlib.import_module("torrent_picker_kit").PickerMachine

# -- the picker, shown to its machine


class AsksTwice(Picker):
    """Gives the same block out again: it forgets that it was asked for."""

    def _take(self, peer, piece, count, asks):
        free = list(self._started[piece].free)
        super()._take(peer, piece, count, asks)
        if free and self._started[piece].free:
            self._started[piece].free.append(free[-1])


class AsksEverybodyInTheEnd(Picker):
    """An endgame without a bound."""

    def _endgame(self, peer, have, count, asks):
        for piece, progress in self._started.items():
            for begin, peers in progress.asked.items():
                if have[piece] and peer not in peers:
                    peers.append(peer)
                    asks.append(Ask(piece, begin, self.shape.block_size(piece, begin)))


class BeginsTheEndTooSoon(Picker):
    """Asks a second peer while others' blocks were never asked for."""

    def pick(self, peer, count, only=None):
        asks = super().pick(peer, max(1, count // 2), only)
        have = self._maps.get(peer)
        for piece, progress in self._started.items():
            for begin, peers in progress.asked.items():
                if have and have[piece] and peer not in peers and len(peers) < 2 and only is None:
                    peers.append(peer)
                    return [*asks, Ask(piece, begin, self.shape.block_size(piece, begin))][:count]
        return asks


class AsksWhoLacksIt(Picker):
    """Takes a piece for a peer that does not have it."""

    def _next_piece(self, peer, have):
        return super()._next_piece(peer, bytearray(b"\1" * len(have)))


class ForgetsTheDead(Picker):
    """What a peer that left was asked for stays asked for."""

    def release_all(self, peer):
        self._current.pop(peer, None)


class LosesARejectedBlock(Picker):
    """A refused block is not asked for again."""

    def release(self, peer, piece, begin):
        super().release(peer, piece, begin)
        progress = self._started.get(piece)
        if progress and begin in progress.free:
            progress.free.remove(begin)
            if not progress.free:
                self._with_free.pop(piece, None)


class CountsSeedsAtEachPiece(Picker):
    """A peer that becomes a seed stays counted at every piece."""

    def has_more(self, peer, piece):
        have = self._maps[peer]
        if have[piece]:
            return False
        have[piece] = 1
        self._count(piece, +1)
        if 0 not in have:
            self._seeds.add(peer)
        return True


class TakesWrongForRight(Picker):
    """A piece whose hash was wrong counts as there."""

    def failed(self, piece):
        sent = self._started[piece].got
        assert self.state[piece] == CHECKING
        self.verified(piece)
        return sent


PICKERS = (
    AsksTwice,
    AsksEverybodyInTheEnd,
    BeginsTheEndTooSoon,
    AsksWhoLacksIt,
    ForgetsTheDead,
    LosesARejectedBlock,
    CountsSeedsAtEachPiece,
    TakesWrongForRight,
)


@pytest.mark.parametrize("bug", PICKERS, ids=lambda bug: bug.__name__)
def test_a_bug_in_the_picker_is_caught(bug):
    machine = type("Machine", (PickerMachine,), {"Picker": bug})
    quick = settings(
        max_examples=400,
        stateful_step_count=40,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=quick)


# -- the swarm, shown to whole swarms in virtual time


class ChecksNoHash(Node):
    """Whatever comes is taken for the piece."""

    def _check(self, check):
        self.pieces[check.piece] = bytes(check.data)
        self.swarm.checked(check.piece, True, {}, self.world.now)


class TellsBeforeItChecks(Swarm):
    """Sends have as soon as the last block is there."""

    def _block(self, remote, block, now):
        checking = self._checking
        super()._block(remote, block, now)
        if self._checking > checking:
            for other in self.remotes.values():
                if other.connection.open:
                    other.connection.tell_have(block.piece)
                    self._dirty[other.key] = None


class BansNobody(Swarm):
    """Who lies may go on."""

    def _ban(self, key, why):
        pass


class CancelsNothing(Swarm):
    """In the endgame both answers come, and nothing is taken back."""

    def _block(self, remote, block, now):
        arrival = self.picker.received

        def received(peer, piece, begin):
            return arrival(peer, piece, begin)._replace(cancel=())

        self.picker.received = received
        try:
            super()._block(remote, block, now)
        finally:
            del self.picker.received


class EndgameForAll(Picker):
    """Everything that was asked of the slow is asked of the fast as well, from the start."""

    def pick(self, peer, count, only=None):
        asks = []
        for piece, progress in self._started.items():
            for begin, peers in progress.asked.items():
                if peer not in peers and len(asks) < count // 2:
                    peers.append(peer)
                    asks.append(Ask(piece, begin, self.shape.block_size(piece, begin)))
        return asks + super().pick(peer, count - len(asks), only)


class WaitsForEver(Swarm):
    """A peer that owes blocks keeps them."""

    def _snubbed(self, remote, now):
        pass


class BearsWithTheUseless(Swarm):
    """Who chokes us has never choked us for long."""

    def _look_after(self, remote, now):
        remote.choked_since = now
        super()._look_after(remote, now)


class KeepsTheDead(Swarm):
    """Nothing is taken back from who is gone."""

    def disconnected(self, key, now):
        remote = self.remotes.pop(key, None)
        if remote is not None:
            self.giving.forget(key)


SWARMS = (
    (kit.completes_with_a_liar, {"node": ChecksNoHash}),
    (kit.completes_with_a_liar, {"swarm": BansNobody}),
    (kit.tells_only_what_it_has, {"swarm": TellsBeforeItChecks}),
    (kit.leaves_the_mute, {"swarm": WaitsForEver}),
    (kit.leaves_the_miser, {"swarm": BearsWithTheUseless}),
    (kit.goes_on_after_a_death, {"swarm": KeepsTheDead}),
)


HONEST = sorted({check for check, _ in SWARMS} | {kit.wastes_little}, key=lambda it: it.__name__)


@pytest.mark.parametrize("check", HONEST, ids=lambda check: check.__name__)
def test_the_real_thing_passes(check):
    check()


@pytest.mark.parametrize(
    ("check", "parts"), SWARMS, ids=[next(iter(p.values())).__name__ for _, p in SWARMS]
)
def test_a_bug_in_the_swarm_is_caught(check, parts):
    # Who keeps the dead looks them up: that ends the peer, and the check with it.
    caught = KeyError if KeepsTheDead in parts.values() else AssertionError
    with pytest.raises(caught):
        check(**parts)


def test_an_endgame_without_cancels_and_bound_is_caught():
    class Greedy(CancelsNothing):
        def _begin(self, info, have):
            super()._begin(info, have)
            self.picker.__class__ = EndgameForAll

    with pytest.raises(AssertionError, match="came twice"):
        kit.wastes_little(swarm=Greedy)


# -- bencode


def test_a_decoder_that_takes_keys_in_any_order_is_caught(monkeypatch):
    place = bencode._Frame.place

    def lax(frame, value, start):
        frame.last_key = None
        return place(frame, value, start)

    wrong = b"d1:b1:x1:a1:ye"
    with pytest.raises(Malformed):
        bencode.decode(wrong)
    monkeypatch.setattr(bencode._Frame, "place", lax)
    assert bencode.encode(bencode.decode(wrong)) != wrong  # what the property test holds against


def asks_a_third(kind):
    """The machine of the unit tests, driven to where a bound of its own would let a third ask."""
    machine = type("It", (PickerMachine,), {"Picker": kind})()
    machine.start("rarest", 1)
    for _ in range(3):
        machine.join(bits=63)
    for peer in range(3):
        machine.pick(First(peer), count=20, only=None)


class First:
    """Draws what it was told to."""

    def __init__(self, value):
        self.value = value

    def draw(self, _):
        return self.value


def test_a_picker_whose_endgame_has_another_bound_is_caught(monkeypatch):
    asks_a_third(Picker)
    monkeypatch.setattr(picker, "ASKED_MAX", 3)
    with pytest.raises(AssertionError, match="the endgame is not bounded"):
        asks_a_third(Picker)


# -- the journal: what it names is not believed


class BelievesItsJournal(Storage):
    """What is named as written is taken for right."""

    def is_right(self, piece):
        return True


def sees_damage(kind, folder):
    """A byte was changed while nobody ran: that piece, and only that, is missing."""
    (folder / "f").write_bytes(bytes(4 * BLOCK))
    info = parse_info(create(folder / "f", piece_length=BLOCK))
    with (folder / "f").open("r+b") as file:
        file.seek(2 * BLOCK + 5)
        file.write(b"x")
    storage = kind(info, folder)
    try:
        assert storage.verify([0, 1, 2, 3]) == b"\1\1\0\1"
    finally:
        storage.close()


def test_a_journal_that_is_believed_is_caught(tmp_path):
    sees_damage(Storage, tmp_path)
    with pytest.raises(AssertionError):
        sees_damage(BelievesItsJournal, tmp_path)
