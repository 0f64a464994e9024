"""The picker against a model that knows only what was asked and what came; and its rules."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dht.torrent.picker import ASKED_MAX, ENDGAME_MAX, Picker
from dht.torrent.shape import BLOCK, Shape
from dht.torrent.strategies import RANDOM_FIRST, STRATEGIES

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


PickerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPickerMachine = PickerMachine.TestCase


def picker(strategy, shape=SHAPE, seed=1):
    return Picker(shape, random.Random(seed), STRATEGIES[strategy])


def seeds(count=1):
    return bytearray(b"\1" * SHAPE.count)


def blocks(asks):
    return [(piece, begin // BLOCK) for piece, begin, _ in asks]


class TestRules:
    @pytest.mark.parametrize("strategy", sorted(STRATEGIES))
    def test_the_last_block_of_the_last_piece_is_short(self, strategy):
        made = picker(strategy)
        made.join("a", seeds())
        lengths = {(p, b): n for p, b, n in made.pick("a", 100)}
        assert len(lengths) == 17
        assert lengths[5, BLOCK] == BLOCK - 5
        assert sum(lengths.values()) == SHAPE.length

    def test_rarest_first(self):
        """After the first pieces, which are random, the one with the fewest copies."""
        shape = Shape(10, BLOCK, 10 * BLOCK)
        made = picker("rarest", shape)
        for peer, pieces in {"a": range(10), "b": (0, 1, 2, 3, 4, 5, 6), "c": (0, 1, 2)}.items():
            have = bytearray(piece in pieces for piece in range(10))
            made.join(peer, have)
        first = [ask.piece for ask in made.pick("a", RANDOM_FIRST)]
        for piece in first:
            made.received("a", piece, 0)
            made.verified(piece)
        rest = [made.pick("a", 1)[0].piece for _ in range(10 - RANDOM_FIRST)]
        copies = [made.copies[piece] for piece in rest]
        assert copies == sorted(copies)

    def test_in_order(self):
        made = picker("sequential")
        made.join("a", seeds())
        assert blocks(made.pick("a", 5)) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]

    def test_strict_priority_finishes_what_was_left(self):
        for strategy, finishes in (("strict", True), ("parallel", True)):
            made = picker(strategy, seed=3)
            made.join("a", seeds())
            made.join("b", seeds())
            ((piece, _, _),) = made.pick("a", 1)
            made.received("a", piece, 0)
            made.leave("a")
            assert (made.pick("b", 1)[0].piece == piece) == finishes

    def test_only_parallel_shares_a_piece_that_another_fetches(self):
        for strategy in STRATEGIES:
            made = picker(strategy)
            made.join("a", seeds())
            made.join("b", seeds())
            (first,), (second,) = made.pick("a", 1), made.pick("b", 1)
            assert (first.piece == second.piece) == (strategy == "parallel")

    def test_whoever_has_nothing_else_helps(self):
        made = picker("rarest")
        only = bytearray([1, 0, 0, 0, 0, 0])
        made.join("a", only)
        made.join("b", only)
        made.pick("a", 1)
        assert blocks(made.pick("b", 9)) == [(0, 1), (0, 2)]

    def test_the_endgame_asks_a_second_peer_and_cancels_the_slower(self):
        made = picker("rarest")
        made.join("slow", seeds())
        made.join("fast", seeds())
        made.join("third", seeds())
        assert len(made.pick("slow", 100)) == 17
        again = made.pick("fast", 100)
        assert len(again) == min(17, ENDGAME_MAX)
        for piece, begin, _ in again:
            arrival = made.received("fast", piece, begin)
            assert arrival.new
            assert arrival.cancel == ("slow",)

    def test_no_block_is_asked_of_three(self):
        made = picker("rarest", Shape(1, BLOCK, BLOCK))
        have = bytearray(b"\1")
        for peer in "abc":
            made.join(peer, have)
        assert [len(made.pick(peer, 9)) for peer in "abc"] == [1, 1, 0]

    def test_a_wrong_piece_comes_from_one_peer_alone(self):
        made = picker("parallel", Shape(1, 2 * BLOCK, 2 * BLOCK))
        have = bytearray(b"\1")
        made.join("a", have)
        made.join("b", have)
        made.pick("a", 1)
        made.pick("b", 1)
        made.received("a", 0, 0)
        assert made.received("b", 0, BLOCK).whole
        assert made.failed(0) == {0: "a", BLOCK: "b"}
        assert len(made.pick("a", 1)) == 1
        assert made.pick("b", 9) == []

    def test_seeds_are_counted_once_not_at_each_piece(self):
        made = picker("rarest")
        made.join("seed", seeds())
        assert made.copies == [0] * 6
        almost = bytearray([1, 1, 1, 1, 1, 0])
        made.join("b", almost)
        assert made.copies == [1, 1, 1, 1, 1, 0]
        made.has_more("b", 5)
        assert made.copies == [0] * 6
        made.check()

    def test_repr(self):
        assert repr(picker("rarest")) == "<Picker rarest 0/6 started=0>"
