"""The picker against a model that knows only what was asked and what came."""

from __future__ import annotations

import random

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dht.torrent.picker import Picker
from dht.torrent.shape import BLOCK, Shape
from dht.torrent.strategies import STRATEGIES

# The rule, not the picker's own constant: a mutant may have another.
ASKED_MAX = 2

SHAPE = Shape(6, 3 * BLOCK, 17 * BLOCK - 5)


class PickerMachine(RuleBasedStateMachine):
    """Peers come, go, get pieces, answer, refuse and lie, in any order."""

    Picker = Picker

    def __init__(self):
        super().__init__()
        self.picker = None
        self.asked = {}  # peer -> {(piece, begin)}
        self.maps = {}
        self.got = {}  # piece -> {begin}
        self.checking = set()
        self.have = set()

    @precondition(lambda self: self.picker is None)
    @rule(name=st.sampled_from(sorted(STRATEGIES)), seed=st.integers(0, 99))
    def start(self, name, seed):
        self.picker = self.Picker(SHAPE, random.Random(seed), STRATEGIES[name])

    @precondition(lambda self: self.picker is not None and len(self.maps) < 4)
    @rule(bits=st.integers(0, 63))
    def join(self, bits):
        peer = next(n for n in range(9) if n not in self.maps)
        have = bytearray(bits >> piece & 1 for piece in range(6))
        self.maps[peer] = have
        self.asked[peer] = set()
        self.picker.join(peer, have)

    def _peer(self, data):
        return data.draw(st.sampled_from(sorted(self.maps)))

    @precondition(lambda self: self.maps)
    @rule(data=st.data())
    def leave(self, data):
        peer = self._peer(data)
        self.picker.leave(peer)
        del self.maps[peer], self.asked[peer]

    @precondition(lambda self: self.maps)
    @rule(data=st.data(), piece=st.integers(0, 5))
    def has_more(self, data, piece):
        peer = self._peer(data)
        news = not self.maps[peer][piece]
        self.maps[peer][piece] = 1
        assert self.picker.has_more(peer, piece) == news

    @precondition(lambda self: self.maps)
    @rule(data=st.data(), count=st.integers(1, 20), only=st.none() | st.sets(st.integers(0, 5)))
    def pick(self, data, count, only):
        peer = self._peer(data)
        before = set().union(*self.asked.values())
        asks = self.picker.pick(peer, count, only)
        assert len(asks) <= count
        assert len(set(asks)) == len(asks), "the same block twice in one go"
        for piece, begin, length in asks:
            key = (piece, begin)
            assert self.maps[peer][piece], "asked of one who lacks it"
            assert only is None or piece in only
            assert piece not in self.have | self.checking
            assert begin not in self.got.get(piece, ())
            assert length == SHAPE.block_size(piece, begin)
            assert key not in self.asked[peer], "asked of the same peer twice"
            if key in before:
                self.assert_endgame(asks)
            self.asked[peer].add(key)
            holders = sum(key in asked for asked in self.asked.values())
            assert holders <= ASKED_MAX, "the endgame is not bounded"

    def assert_endgame(self, asks):
        """A second request is sent only once each missing block was asked for."""
        asked = set().union(*self.asked.values()) | {ask[:2] for ask in asks}
        for piece in set(range(6)) - self.have - self.checking:
            for begin in range(0, SHAPE.piece_size(piece), BLOCK):
                if begin not in self.got.get(piece, ()):
                    assert (piece, begin) in asked, "a second request before the first of all"

    @precondition(lambda self: any(self.asked.values()))
    @rule(data=st.data())
    def receive(self, data):
        peer = data.draw(st.sampled_from(sorted(p for p in self.asked if self.asked[p])))
        piece, begin = data.draw(st.sampled_from(sorted(self.asked[peer])))
        arrival = self.picker.received(peer, piece, begin)
        self.asked[peer].discard((piece, begin))
        assert arrival.new == (begin not in self.got.get(piece, ()))
        others = {p for p in self.asked if (piece, begin) in self.asked[p]}
        assert set(arrival.cancel) == others
        for other in others:
            self.asked[other].discard((piece, begin))
        self.got.setdefault(piece, set()).add(begin)
        whole = len(self.got[piece]) == SHAPE.blocks(piece)
        assert arrival.whole == whole
        if whole:
            self.checking.add(piece)

    @precondition(lambda self: any(self.asked.values()))
    @rule(data=st.data())
    def refuse(self, data):
        peer = data.draw(st.sampled_from(sorted(p for p in self.asked if self.asked[p])))
        piece, begin = data.draw(st.sampled_from(sorted(self.asked[peer])))
        self.picker.release(peer, piece, begin)
        self.asked[peer].discard((piece, begin))

    @precondition(lambda self: self.checking)
    @rule(data=st.data(), right=st.booleans())
    def check(self, data, right):
        piece = data.draw(st.sampled_from(sorted(self.checking)))
        self.checking.discard(piece)
        if right:
            self.picker.verified(piece)
            self.have.add(piece)
        else:
            assert set(self.picker.failed(piece)) == self.got.pop(piece)

    @invariant()
    def holds(self):
        if self.picker is not None:
            self.picker.check()
            assert self.picker.left == 6 - len(self.have)
            assert self.picker.have == bytearray(p in self.have for p in range(6))

    def teardown(self):
        """Whatever was before: with a seed that answers, everything comes."""
        if self.picker is None:
            return
        for peer in list(self.maps):
            self.picker.leave(peer)
        for piece in sorted(self.checking):
            self.picker.verified(piece)
        self.picker.join("seed", bytearray(b"\1" * 6))
        for _ in range(100):
            for piece, begin, _ in self.picker.pick("seed", 5):
                if self.picker.received("seed", piece, begin).whole:
                    self.picker.verified(piece)
        assert self.picker.left == 0, "it hangs before the end"
