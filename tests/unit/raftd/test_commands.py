"""What may enter the log: every refusal names its field, and what is taken can be applied."""

from __future__ import annotations

import contextlib

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftd import commands as c
from raftd.commands import BadCommand
from raftd.store import FAILED, OK, Store

SESSION = b"s" * 16
PUT = [c.PUT, b"k", b"v", 0, False]
DELETE = [c.DELETE, b"k", b"", False]
RANGE = [c.RANGE, b"k", b"", 0, 0, False, False]
TXN = [c.TXN, [["version", "=", b"k", 0]], [PUT], [RANGE]]
OPS = [PUT, DELETE, RANGE, TXN, [c.COMPACT, 1], [c.LEASE_GRANT, 1, 1], [c.LEASE_REVOKE, 1]]
LONG_KEY = b"k" * (c.KEY_BYTES_MAX + 1)


def changed(op: list, position: int, value: object) -> list:
    return [*op[:position], value, *op[position + 1 :]]


def command(op: list, **fields: object) -> bytes:
    of = {"session": SESSION, "sequence": 1, "done": 0, "retry": False, "base": 0, **fields}
    return msgpack.packb([*of.values(), op])


def nested(depth: int, op: list = PUT) -> list:
    for _ in range(depth):
        op = [c.TXN, [], [op], []]
    return op


def txn(*then: list, compares: list | None = None, otherwise: list | None = None) -> list:
    return [c.TXN, compares or [], list(then), otherwise or []]


# -- what is taken


@pytest.mark.parametrize("op", OPS, ids=lambda op: str(op[0]))
def test_each_operation_is_taken_as_the_client_packs_it(op):
    packed = c.pack_command(SESSION, 3, 2, retry=True, base=9, op=op)
    c.check_command(packed)
    assert c.unpack_command(packed) == [SESSION, 3, 2, True, 9, op]


LIMITS = [
    changed(PUT, 1, LONG_KEY[:-1]),
    changed(PUT, 2, bytes(c.VALUE_BYTES_MAX)),
    changed(DELETE, 2, LONG_KEY[:-1]),
    changed(RANGE, 3, 2**63 - 1),
    [c.LEASE_GRANT, 2**63 - 1, c.TTL_S_MAX],
    nested(c.TXN_DEPTH_MAX),
    txn(*[changed(PUT, 1, b"%d" % i) for i in range(c.TXN_OPS_MAX)]),
    txn(PUT, otherwise=[PUT]),
    txn(txn(PUT, otherwise=[DELETE])),
    txn(changed(PUT, 1, b"z"), [c.DELETE, b"a", b"z", False]),
]


@pytest.mark.parametrize("op", LIMITS, ids=range(len(LIMITS)))
def test_the_limits_themselves_are_within_the_limits(op):
    c.check_command(command(op))


# -- what is refused, and how


REFUSED = [
    (changed(PUT, 1, "text"), "key: expected bytes, got str"),
    (changed(PUT, 1, b""), "key: a key has at least one byte"),
    (changed(PUT, 1, LONG_KEY), "key: 4097 bytes are over the limit of 4096"),
    (changed(PUT, 2, None), "value: expected bytes, got NoneType"),
    (changed(PUT, 2, bytes(c.VALUE_BYTES_MAX + 1)), "value: 1048577 bytes are over the limit"),
    (changed(PUT, 3, -1), "lease: expected a number from 0"),
    (changed(PUT, 3, True), "lease: expected a number from 0"),
    (changed(PUT, 3, 2**63), "lease: expected a number from 0"),
    (changed(PUT, 4, 1), "prev: expected bool, got 1"),
    (changed(DELETE, 1, None), "key: expected bytes, got NoneType"),
    (changed(DELETE, 2, LONG_KEY), "range_end: expected at most 4096 bytes"),
    (changed(DELETE, 2, "b"), "range_end: expected at most 4096 bytes"),
    (changed(DELETE, 3, None), "prev: expected bool, got None"),
    (changed(RANGE, 3, -1), "revision: expected a number from 0"),
    (changed(RANGE, 4, 1.0), "limit: expected a number from 0"),
    (changed(RANGE, 5, 0), "keys_only: expected bool, got 0"),
    (changed(RANGE, 6, "no"), "count_only: expected bool, got 'no'"),
    ([c.COMPACT, -1], "revision: expected a number from 0"),
    ([c.COMPACT, "1"], "revision: expected a number from 0"),
    ([c.LEASE_GRANT, 0, 1], "lease: id and ttl are 1 or more"),
    ([c.LEASE_GRANT, 1, 0], "lease: id and ttl are 1 or more"),
    ([c.LEASE_GRANT, 1, c.TTL_S_MAX + 1], "ttl: expected a number from 0 to 9000000000"),
    ([c.LEASE_GRANT, b"1", 1], "lease id: expected a number from 0"),
    ([c.LEASE_REVOKE, None], "lease id: expected a number from 0"),
    ([], "op: expected a list that begins with a number"),
    ("put", "op: expected a list that begins with a number"),
    ([None], "op: expected a list that begins with a number"),
    ([True, b"k", b"", False], "op: expected a list that begins with a number"),
    ([99], "op: there is no operation 99"),
    (PUT[:-1], "op: operation 0 has other fields than 3"),
    ([*PUT, 0], "op: operation 0 has other fields than 5"),
    (nested(c.TXN_DEPTH_MAX + 1), "txn: nested deeper than 4"),
    ([c.TXN, None, [], []], "txn.compares: expected a list"),
    ([c.TXN, [], {}, []], "txn.then: expected a list"),
    ([c.TXN, [], [], b""], "txn.else: expected a list"),
    (txn(*[RANGE] * 129), "txn.then: 129 are over the limit of 128"),
    (txn(otherwise=[RANGE] * 129), "txn.else: 129 are over the limit of 128"),
    (txn(compares=[TXN[1][0]] * 129), "txn.compares: 129 are over the limit of 128"),
    (txn(compares=[["version", "=", b"k"]]), "txn.compares: expected"),
    (txn(compares=[["size", "=", b"k", 0]]), "txn.compares: target 'size' is not one of version"),
    (txn(compares=[["mod", "<=", b"k", 0]]), "txn.compares: operator '<=' is not one of"),
    (txn(compares=[["mod", "=", b"", 0]]), "txn.compares.key: a key has at least one byte"),
    (txn(compares=[["mod", "=", b"k", b"0"]]), "txn.compares: mod is compared with int"),
    (txn(compares=[["mod", "=", b"k", True]]), "txn.compares: mod is compared with int"),
    (txn(compares=[["value", "=", b"k", 0]]), "txn.compares: value is compared with bytes"),
    (txn([c.COMPACT, 1]), "txn: only range, put, delete and txn"),
    (txn([c.LEASE_REVOKE, 1]), "txn: only range, put, delete and txn"),
    (txn([]), "txn: only range, put, delete and txn"),
    (txn(changed(PUT, 4, 0)), "prev: expected bool"),
    (txn([c.TXN, []]), "txn: a nested one has compares, then and else"),
    (txn(PUT, PUT), "txn: key b'k' is put twice"),
    (txn(otherwise=[PUT, PUT]), "txn: key b'k' is put twice"),
    (txn(PUT, txn(otherwise=[PUT])), "txn: key b'k' is put twice"),
    (txn(txn(PUT), txn(otherwise=[PUT])), "txn: key b'k' is put twice"),
    (txn(PUT, DELETE), "txn: key b'k' is put and deleted"),
    (txn(DELETE, PUT), "txn: key b'k' is put and deleted"),
    (txn(txn(PUT), [c.DELETE, b"a", b"\0", False]), "txn: key b'k' is put and deleted"),
    (txn(txn([c.DELETE, b"a", b"z", False]), txn(PUT)), "txn: key b'k' is put and deleted"),
]


@pytest.mark.parametrize(("op", "text"), REFUSED, ids=range(len(REFUSED)))
def test_a_refusal_names_the_field_and_what_is_wrong(op, text):
    with pytest.raises(BadCommand) as caught:
        c.check_command(command(op))
    assert str(caught.value).startswith(text)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"session": b"short"}, "session: expected 16 bytes"),
        ({"session": "s" * 16}, "session: expected 16 bytes"),
        ({"sequence": -1}, "sequence: expected a number of 0 or more, got -1"),
        ({"sequence": 2**63}, "sequence: expected a number of 0 or more"),
        ({"done": None}, "done: expected a number of 0 or more, got None"),
        ({"base": True}, "base: expected a number of 0 or more, got True"),
        ({"retry": 0}, "retry: expected bool, got 0"),
    ],
)
def test_what_is_wrong_around_an_operation_is_named_too(fields, text):
    with pytest.raises(BadCommand, match=text):
        c.check_command(command(PUT, **fields))


@pytest.mark.parametrize(
    "data",
    [None, "text", b"", b"\xc1", command(PUT)[:-1], command(PUT) + b"x", msgpack.packb([1] * 5)],
    ids=["nothing", "text", "empty", "no msgpack", "cut", "more", "too few"],
)
def test_what_is_no_command_is_refused(data):
    with pytest.raises(BadCommand):
        c.check_command(data)


def test_a_command_has_a_size_limit_however_it_is_made_up():
    puts = [changed(changed(PUT, 1, b"%d" % i), 2, bytes(c.VALUE_BYTES_MAX)) for i in range(3)]
    with pytest.raises(BadCommand, match=f"over the limit of {c.COMMAND_BYTES_MAX}"):
        c.check_command(command(txn(*puts)))


def test_the_number_of_an_operation_is_a_number_in_a_transaction_too():
    with pytest.raises(BadCommand):
        c.check_op(txn([float(c.TXN), [], [], []]))


def test_checking_a_command_takes_time_like_its_size(monkeypatch):
    """2 MiB of them would hold up the leader's loop for minutes, heartbeats included."""
    compared = 0

    def counted(*of):
        nonlocal compared
        compared += 1
        return in_range(*of)

    in_range = c.in_range
    monkeypatch.setattr(c, "in_range", counted)
    keys = [b"%d" % i for i in range(1024)]
    puts = [changed(PUT, 1, b"p" + key) for key in keys]
    deletes = [changed(DELETE, 1, b"d" + key) for key in keys]
    groups = [txn(*ops[i : i + 128]) for ops in (puts, deletes) for i in range(0, 1024, 128)]
    with contextlib.suppress(BadCommand):  # a limit on all of it would do as well
        c.check_op(txn(*groups))
    assert compared < 100 * len(puts)


# -- ranges


# Few bytes, so that keys and prefixes meet; the highest and the lowest among them.
EDGY = st.lists(st.sampled_from([0, 1, 97, 254, 255]), min_size=1, max_size=3).map(bytes)


@settings(deadline=None, database=None, max_examples=500)
@given(prefix=EDGY, key=EDGY)
def test_the_end_of_a_prefix_takes_in_what_begins_with_it_and_no_more(prefix, key):
    assert c.in_range(key, prefix, c.prefix_end(prefix)) == key.startswith(prefix)


def test_a_prefix_of_the_highest_bytes_ends_nowhere():
    assert c.prefix_end(b"\xff\xff") == c.EVERYTHING
    assert c.in_range(b"\xff\xff\xff", b"\xff\xff", c.EVERYTHING)
    assert not c.in_range(b"\xff\xfe", b"\xff\xff", c.EVERYTHING)


def test_a_range_without_an_end_is_one_key():
    assert c.in_range(b"a", b"a", b"")
    assert not c.in_range(b"aa", b"a", b"")
    assert not c.in_range(b"b", b"b", b"b")


# -- what is taken can be applied


LEAVES = st.one_of(
    st.sampled_from([b"k", b"", b"\0", "version", "value", "=", "<", None, True, False, 0, 1, 2]),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.binary(max_size=3),
)


WHOLE = st.sampled_from([*OPS, *LIMITS[5:]])


@st.composite
def mangled(draw):
    """An operation in which something was put in the place of something else."""

    def mangle(part, depth=0):
        if isinstance(part, list) and part and (depth == 0 or draw(st.integers(0, 5))):
            at = draw(st.integers(0, len(part) - 1))
            return [mangle(x, depth + 1) if i == at else x for i, x in enumerate(part)]
        return draw(st.one_of(LEAVES, WHOLE, st.lists(LEAVES, max_size=4)))

    return mangle(draw(WHOLE))


@settings(deadline=None, database=None, max_examples=1_000)
@given(op=mangled())
def test_whatever_is_taken_can_be_applied_and_answered(op):
    """A command that cannot be applied would end every node, one after the other."""
    store = Store()
    store.apply(1, command([c.LEASE_GRANT, 1, 5], sequence=1))
    store.apply(2, command(PUT, sequence=2))
    try:
        packed = command(op, sequence=3)
        c.check_command(packed)
    except (BadCommand, OverflowError):
        return
    answer = store.apply(3, packed)
    assert answer[0] in (OK, FAILED)
    assert msgpack.unpackb(msgpack.packb(answer))[0] == answer[0]
    other = Store()
    other.restore(store.freeze().encode())
    assert other.hash() == store.hash()
