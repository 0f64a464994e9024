"""What comes from others is checked before it is used."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dht.chord import wire
from dht.chord.lookup import Route
from dht.chord.outputs import BUSY, State
from dht.chord.records import Record
from dht.chord.ring import Contact, contact_of
from netstack.rpc.errors import BadRequest

ONE, TWO = contact_of("d1", "127.0.0.1", 7401, 0), contact_of("d2", "127.0.0.1", 7402, 3)
PADDED = State(ONE, (TWO, Contact(TWO.id + 1), Contact(TWO.id + 2)))

JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.binary() | st.text(),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=8,
)


def test_there_and_back():
    assert wire.read_contact(wire.pack_contact(TWO)) == TWO
    assert wire.read_state(wire.pack_state(PADDED)) == PADDED
    assert wire.read_state(wire.pack_state(BUSY)) == BUSY
    for pred in (None, TWO):
        route = Route(False, (TWO, ONE), (ONE,), pred)
        assert wire.read_route(wire.pack_route(route)) == route
    with pytest.raises(BadRequest, match="ends at nobody"):
        wire.read_route([True, [None], [], None])
    assert wire.read_id(wire.pack_id(TWO.id)) == TWO.id
    record = Record(b"k", None, 3, "d1/0", 12.5)
    assert wire.read_records([list(record)]) == [record]


def test_an_identifier_is_computed_and_never_taken_from_the_wire():
    forged = wire.pack_contact(TWO._replace(id=5))
    assert wire.read_contact(forged) == TWO


@given(JUNK)
def test_junk_is_a_bad_request_whatever_it_is_taken_for(value):
    for read in (
        wire.read_contact,
        wire.read_contacts,
        wire.read_state,
        wire.read_route,
        wire.read_id,
        wire.read_record,
        wire.read_records,
        wire.read_key,
        wire.read_value,
    ):
        with contextlib.suppress(BadRequest):
            read(value)


@pytest.mark.parametrize(
    "wrong",
    [
        ["d1", "127.0.0.1", 0, 0],
        ["d1", "127.0.0.1", 7401, -1],
        ["d1", "127.0.0.1", 7401, 5000],
        ["", "127.0.0.1", 7401, 0],
        ["x" * 65, "127.0.0.1", 7401, 0],
        ["d1", b"127.0.0.1", 7401, 0],
        ["d1", "127.0.0.1", 7401],
    ],
)
def test_no_contact(wrong):
    with pytest.raises(BadRequest, match="contact"):
        wire.read_contact(wrong)


def test_pages_are_bounded_and_hold_one_at_least():
    records = [Record(b"k%d" % i, bytes(400), 1, "a") for i in range(10)]
    found = list(wire.pages(records, 1500))
    assert [len(page) for page in found] == [2, 2, 2, 2, 2]
    assert [len(page) for page in wire.pages(records, 1)] == [1] * 10
    assert list(wire.pages([], 1500)) == []
