"""The circle: who lies between whom, and where peers and keys lie."""

from __future__ import annotations

import hashlib
import random
import statistics

from dht.chord.ring import Contact, between, brief, contact_of, key_id, padded, population, within

SIZE = 8


def walk(low: int, high: int) -> list[int]:
    """Naively: the points passed on the way, both ends left out."""
    passed, at = [], (low + 1) % SIZE
    while at != high:
        passed.append(at)
        at = (at + 1) % SIZE
    return passed


def test_between_is_what_one_passes_on_the_way():
    for low in range(SIZE):
        for high in range(SIZE):
            for x in range(SIZE):
                assert between(low, x, high) == (x in walk(low, high)), (low, x, high)
                assert within(low, x, high) == (x in walk(low, high) or x == high)


def test_one_node_alone_owns_everything():
    assert all(within(5, x, 5) for x in range(SIZE))


def test_identifiers_are_sha1_of_key_and_address():
    assert key_id(b"k") == int(hashlib.sha1(b"k").hexdigest(), 16)
    contact = contact_of("d1", "127.0.0.1", 7401, 3)
    assert contact.id == int(hashlib.sha1(b"127.0.0.1:7401/3").hexdigest(), 16)
    assert contact.address == ("127.0.0.1", 7401)
    assert contact.vnode == 3


def test_a_contact_says_who_it_is():
    assert repr(Contact(36, "N36")) == "N36/0@36"
    assert repr(Contact(37)) == "~37"
    assert not Contact(37).real
    assert brief(1 << 159) == "80000000"


def test_how_many_there_are_is_told_by_how_dense_the_successors_lie():
    dice = random.Random(7)
    for count in (2, 5, 9, 64, 1000):
        ring = sorted(Contact(dice.randrange(2**160), f"n{i}") for i in range(count))
        told = []
        for i, me in enumerate(ring):
            succ = padded(me, [*ring[i + 1 :], *ring[:i]], 8, 160)
            told.append(population(me, succ, 160))
        if count <= 8:
            assert told == [count] * count  # its own list names all of them
        else:
            assert 0.7 * count < statistics.median(told) < 1.4 * count
            assert min(told) > count / 5
