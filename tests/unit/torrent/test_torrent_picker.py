"""The picker: a machine that does anything in any order, and its rules one by one."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import settings
from torrent_picker_kit import SHAPE, PickerMachine

from dht.torrent.picker import ENDGAME_MAX, Picker
from dht.torrent.shape import BLOCK, Shape
from dht.torrent.strategies import RANDOM_FIRST, STRATEGIES

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

    @pytest.mark.parametrize(
        ("strategy", "finishes"),
        # The others pick among all six; by dice each finds the one left behind now and then.
        [("strict", 60), ("parallel", 60), ("sequential", 60), ("random", 10), ("rarest", 10)],
    )
    def test_strict_priority_finishes_what_was_left(self, strategy, finishes):
        """Sixty times a peer leaves in the middle of a piece: is that piece the next one asked?"""
        taken_up = 0
        for seed in range(60):
            made = picker(strategy, seed=seed)
            made.join("a", seeds())
            made.join("b", seeds())
            ((piece, _, _),) = made.pick("a", 1)
            made.received("a", piece, 0)
            made.leave("a")
            taken_up += made.pick("b", 1)[0].piece == piece
        if finishes == 60:
            assert taken_up == 60
        else:  # a sixth of sixty, and four standard deviations of a binomial
            assert abs(taken_up - finishes) <= 4 * math.sqrt(60 * 1 / 6 * 5 / 6)

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
