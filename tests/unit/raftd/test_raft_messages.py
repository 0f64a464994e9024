"""Messages on the wire: each comes back as it went, and nothing malformed gets past `unpack`."""

from __future__ import annotations

from contextlib import suppress
from types import SimpleNamespace

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from raftd import messages as m
from raftd.log import COMMAND, CONFIG, NOOP, Entry
from raftd.membership import Membership
from raftd.outputs import Send
from raftd.replica import Replica

QUICK = settings(deadline=None, database=None, max_examples=300)

numbers = st.integers(0, 2**63 - 1)
data = st.binary(max_size=40)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5)
members = st.dictionaries(names, st.tuples(names, st.integers(0, 65535)), max_size=4).map(
    Membership.of
)


@st.composite
def appends(draw) -> m.AppendEntries:
    term, prev_index, prev_term, commit = (draw(numbers) for _ in range(4))
    kinds = draw(st.lists(st.sampled_from((COMMAND, CONFIG, NOOP)), max_size=4))
    prev_index = min(prev_index, 2**63 - 10)
    entries = [
        Entry(index, draw(numbers), kind, draw(members).pack() if kind == CONFIG else draw(data))
        for index, kind in enumerate(kinds, prev_index + 1)
    ]
    return m.AppendEntries(term, prev_index, prev_term, commit, entries)


STRATEGIES = {
    m.VoteRequest: st.builds(
        m.VoteRequest, numbers, numbers, numbers, st.booleans(), st.booleans()
    ),
    m.VoteReply: st.builds(m.VoteReply, numbers, st.booleans(), st.booleans()),
    m.AppendEntries: appends(),
    m.AppendReply: st.builds(m.AppendReply, numbers, st.booleans(), numbers, numbers, numbers),
    m.Heartbeat: st.builds(m.Heartbeat, numbers, numbers, numbers),
    m.HeartbeatReply: st.builds(m.HeartbeatReply, numbers, numbers),
    m.InstallSnapshot: st.builds(
        m.InstallSnapshot, numbers, numbers, numbers, members.map(Membership.pack), numbers,
        numbers, data,
    ),
    m.SnapshotReply: st.builds(m.SnapshotReply, numbers, numbers, numbers),
    m.TimeoutNow: st.builds(m.TimeoutNow, numbers),
    m.ReadIndex: st.builds(m.ReadIndex, numbers, numbers),
    m.ReadIndexReply: st.builds(m.ReadIndexReply, numbers, numbers, numbers),
}  # fmt: skip
messages = st.one_of(*STRATEGIES.values())
# Whatever msgpack can carry.
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | data,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


def over_the_wire(fields):
    return msgpack.unpackb(msgpack.packb(fields))


def refuse(fields) -> str:
    with pytest.raises(m.Malformed) as refused:
        m.unpack(over_the_wire(fields))
    return str(refused.value)


def test_every_kind_is_tried_here():
    assert set(STRATEGIES) == set(m.KINDS)


@QUICK
@given(messages)
def test_a_message_comes_back_as_it_went(message):
    back = m.unpack(over_the_wire(m.pack(message)))
    assert type(back) is type(message)
    assert back == message
    assert all(type(entry) is Entry for entry in getattr(back, "entries", ()))


@QUICK
@given(messages, st.integers(0, 10))
def test_a_message_with_too_few_fields_is_malformed(message, kept):
    fields = m.pack(message)
    refuse(fields[: min(kept, len(fields) - 1)])


@QUICK
@given(messages, values)
def test_a_message_with_too_many_fields_is_malformed(message, more):
    assert "fields, not" in refuse([*m.pack(message), more])


@QUICK
@given(values)
def test_what_is_no_message_is_malformed_and_raises_nothing_else(junk):
    refuse(junk)


@pytest.mark.parametrize("number", [-1, len(m.KINDS), True, 1.0, None, "0", b"0", [0]])
def test_a_kind_that_does_not_exist_is_malformed(number):
    assert "no message of kind" in refuse([number, 1])


def well_formed(kind: type) -> list:
    """A well-formed message of this kind, packed."""
    zero = {"pre": False, "granted": False, "accepted": False, "forced": False, "entries": []}
    zero |= {"membership": Membership().pack(), "data": b""}
    return m.pack(kind._make(zero.get(field, 1) for field in kind._fields))


def right_type(field: str) -> type:
    if field in ("pre", "granted", "accepted", "forced"):
        return bool
    return {"entries": list, "membership": bytes, "data": bytes}.get(field, int)


@pytest.mark.parametrize("kind", m.KINDS, ids=lambda kind: kind.__name__)
def test_a_field_of_a_wrong_type_is_malformed_and_named(kind):
    for place, field in enumerate(kind._fields, start=1):
        for wrong in (None, 1.5, "text", [1], {"a": 1}, b"bytes", True, 1):
            if type(wrong) is not right_type(field):
                fields = well_formed(kind)
                fields[place] = wrong
                assert f"{kind.__name__}.{field}: expected" in refuse(fields)


@pytest.mark.parametrize("kind", m.KINDS, ids=lambda kind: kind.__name__)
def test_a_negative_number_is_malformed(kind):
    for place, field in enumerate(kind._fields, start=1):
        if right_type(field) is int:
            fields = well_formed(kind)
            fields[place] = -1
            assert f"{field}: -1 is negative" in refuse(fields)


@QUICK
@given(messages, st.integers(0, 10), values)
@example(m.AppendEntries(1, 0, 0, 0, [Entry(1, 1, COMMAND, b"")]), 2, None)
def test_a_message_with_anything_in_place_of_a_field_is_taken_or_malformed(message, place, junk):
    fields = m.pack(message)
    fields[place % len(fields)] = junk
    with suppress(m.Malformed):
        m.unpack(over_the_wire(fields))


NESTED_DEEPLY = b"\x92\x08" + b"\x91" * 1010 + b"\x90"


@pytest.mark.parametrize("packed", [NESTED_DEEPLY, msgpack.packb([8, bytes(1_000_000)])])
def test_what_is_told_of_a_malformed_message_is_short(packed):
    with pytest.raises(m.Malformed) as refused:
        m.unpack(msgpack.unpackb(packed))
    assert len(str(refused.value)) < 500


GOOD = [4, 2, COMMAND, b"x"]


@pytest.mark.parametrize(
    "entry",
    [
        None, 7, "abcd", b"abcd", {}, [], GOOD[:3], [*GOOD, 1], [5, *GOOD[1:]], [3, *GOOD[1:]],
        [None, *GOOD[1:]], [4, None, COMMAND, b"x"], [4, 2.0, COMMAND, b"x"],
        [4, True, COMMAND, b"x"], [4, 2, NOOP + 1, b"x"], [4, 2, -1, b"x"], [4, 2, None, b"x"],
        [4, 2, False, b"x"], [4, 2, COMMAND, "x"], [4, 2, COMMAND, None],
    ],
)  # fmt: skip
def test_an_entry_that_is_none_is_malformed(entry):
    assert "entr" in refuse([2, 2, 2, 1, 0, [[3, 2, COMMAND, b"x"], entry]])


@pytest.mark.parametrize(
    "entry", [[1.0, 1, COMMAND, b""], [True, 1, COMMAND, b""], [1, -1, COMMAND, b""]]
)
def test_an_entrys_index_and_term_are_counted_from_nought_in_whole_numbers(entry):
    refuse([2, 1, 0, 0, 0, [entry]])


@pytest.mark.parametrize(
    "packed", [b"", b"junk", msgpack.packb([[], [], [], [], []]), msgpack.packb([1, 2, 3])]
)
def test_a_membership_that_is_none_is_malformed(packed):
    refuse([2, 1, 0, 0, 0, [[1, 1, CONFIG, packed]]])
    refuse([6, 1, 1, 1, packed, 0, 1, b"x"])


def test_two_kinds_that_look_alike_leave_the_node_as_what_they_are():
    """A NamedTuple equals any other with the same values: `HeartbeatReply(3, 5)` for one equals
    `ReadIndex(3, 5)`."""
    left = []
    node = SimpleNamespace(_encoded=(None, b""), _send=lambda to, data, bulk: left.append(data))
    alike = [m.HeartbeatReply(3, 5), m.ReadIndex(3, 5)]
    alike += [m.VoteReply(3, True, False), m.ReadIndexReply(3, 1, 0), m.SnapshotReply(3, 1, 0)]
    for message in alike:
        Replica._send_out(node, Send("n2", message))
    assert len(set(left)) == len(alike)
