"""Whom we give to, on paper; rates and limits; the address book."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from dht.torrent.book import FAILURES_MAX, KNOWN_MAX, RETRY_S, AddressBook
from dht.torrent.choker import NEWCOMER_S, OPTIMISTIC_ROUNDS, Candidate, Choker
from dht.torrent.rates import SMOOTHED_S, Bucket, Rate


def candidate(peer, gives=0.0, takes=0.0, interested=True, snubs=False, connected_s=1000.0):
    return Candidate(peer, interested, gives, takes, snubs, connected_s)


class TestChoker:
    def test_the_four_that_give_most_and_one_at_random(self):
        choker = Choker(random.Random(1))
        peers = [candidate(n, gives=n) for n in range(10)]
        chosen = choker.round(peers, seeding=False)
        assert {9, 8, 7, 6} < chosen
        assert len(chosen) == 5

    def test_who_is_not_interested_takes_no_place(self):
        choker = Choker(random.Random(1))
        peers = [candidate(n, gives=n, interested=n < 5) for n in range(10)]
        assert choker.round(peers, seeding=False) == {0, 1, 2, 3, 4}

    def test_a_seed_goes_by_what_they_take(self):
        choker = Choker(random.Random(1))
        peers = [candidate(n, gives=-n, takes=n) for n in range(10)]
        assert {9, 8, 7, 6} < choker.round(peers, seeding=True)

    def test_who_snubs_us_is_no_partner(self):
        choker = Choker(random.Random(1))
        peers = [candidate(n, gives=n, snubs=n == 9) for n in range(6)]
        peers.append(candidate(9, gives=99, snubs=True))
        chosen = choker.round(peers, seeding=False)
        assert {5, 4, 3, 2} < chosen

    def test_the_optimistic_one_changes_every_third_round(self):
        choker = Choker(random.Random(4))
        peers = [candidate(n, gives=100 if n < 4 else 0) for n in range(40)]
        drawn = []
        for _ in range(4 * OPTIMISTIC_ROUNDS):
            choker.round(peers, seeding=False)
            drawn.append(choker.optimistic)
        for at in range(0, len(drawn), OPTIMISTIC_ROUNDS):
            assert len(set(drawn[at : at + OPTIMISTIC_ROUNDS])) == 1
        assert len(set(drawn)) > 2

    def test_newcomers_are_three_times_as_likely(self):
        rng = random.Random(5)
        hits = 0
        for _ in range(2000):
            choker = Choker(rng, slots=0)
            peers = [candidate("old"), candidate("new", connected_s=NEWCOMER_S / 2)]
            hits += choker.round(peers, seeding=False) == {"new"}
        assert 0.70 < hits / 2000 < 0.80

    def test_everybody_has_a_turn(self):
        """Twenty idle peers: none is left out for ever (libtorrent's optimistic_unchoke)."""
        choker = Choker(random.Random(6))
        peers = [candidate(n, gives=100 if n < 4 else 0) for n in range(24)]
        seen = set()
        for _ in range(24 * 3 * 10):
            seen |= choker.round(peers, seeding=False)
        assert seen == set(range(24))


class TestRate:
    def test_comes_to_what_passes_and_forgets(self):
        rate = Rate(0.0)
        for second in range(1, 31):
            rate.add(1000)
            found = rate.now(float(second))
        assert found == pytest.approx(1000)
        assert rate.now(30 + 10 * SMOOTHED_S) < 100
        assert rate.total == 30_000

    def test_a_limit_is_kept_and_used_up(self):
        bucket, now, passed = Bucket(1000.0, 100.0, 0.0), 0.0, 0
        while now < 60.0:
            if bucket.take(50, now):
                passed += 50
            else:
                now = bucket.ready_at(50)
        assert passed == pytest.approx(60_000, rel=0.01)

    def test_no_limit(self):
        assert Bucket(0.0, 1.0, 0.0).take(10**9, 0.0)


class TestAddressBook:
    OURS = ("127.0.0.1", 1)

    def book(self):
        return AddressBook(self.OURS)

    def test_each_is_dialled_once_at_a_time(self):
        book, rng = self.book(), random.Random(1)
        book.learn([("127.0.0.1", port) for port in (2, 3, 3, 4)], 0.0)
        first = book.due(2, 0.0, rng)
        assert len(first) == 2
        assert len(book.due(9, 0.0, rng)) == 1
        assert book.due(9, 0.0, rng) == []

    @pytest.mark.parametrize(
        "address",
        [OURS, ("10.0.0.1", 5), ("8.8.8.8", 53), ("127.0.0.1", 0), ("localhost", 5), ("::1", 5)],
    )
    def test_neither_ourselves_nor_anything_beyond_this_machine(self, address):
        book = self.book()
        book.learn([address], 0.0)
        assert len(book) == 0

    def test_who_does_not_answer_is_tried_less_and_less(self):
        book, rng, now, tries = self.book(), random.Random(1), 0.0, []
        book.learn([("127.0.0.1", 2)], 0.0)
        while now < 10_000:
            for address in book.due(1, now, rng):
                tries.append(now)
                book.ended(address, now)
            now += RETRY_S / 2
        assert len(tries) == FAILURES_MAX
        gaps = [b - a for a, b in pairwise(tries)]
        assert gaps == sorted(gaps)
        book.learn([("127.0.0.1", 2)], now)  # a tracker names it anew
        assert book.due(1, now, rng)

    def test_the_banned_are_not_learned_again(self):
        book = self.book()
        book.ban(("127.0.0.1", 2), b"liar")
        book.learn([("127.0.0.1", 2)], 0.0)
        assert len(book) == 0
        assert book.is_banned(("127.0.0.1", 2))
        assert book.is_banned(("127.0.0.1", 99), b"liar")
        assert not book.is_banned(("127.0.0.1", 99), b"other")

    def test_is_bounded(self):
        book = self.book()
        book.learn([("127.0.0.2", port) for port in range(1, 2 * KNOWN_MAX)], 0.0)
        assert len(book) == KNOWN_MAX
