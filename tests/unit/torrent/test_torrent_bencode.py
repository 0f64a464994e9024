"""Bencode: what is canonical is read and written; all else is refused, at the right byte."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dht.torrent import bencode
from dht.torrent.bencode import DEPTH_MAX, decode, decode_prefix, encode, spans
from dht.torrent.errors import Malformed

values = st.recursive(
    st.integers(-(2**63), 2**63) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.binary(max_size=4), inner),
    max_leaves=20,
)


@given(values)
def test_what_is_encoded_is_decoded(value):
    assert decode(encode(value)) == value


@given(st.binary(max_size=60))
def test_bytes_that_decode_are_the_one_encoding_of_their_value(data):
    try:
        value = decode(data)
    except Malformed:
        return
    assert encode(value) == data


@given(values, st.data())
def test_any_changed_byte_is_refused_or_is_another_value(value, data):
    encoded = bytearray(encode(value))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(Malformed):
        assert decode(bytes(encoded)) != value


@given(values)
def test_a_beginning_alone_is_never_a_value(value):
    encoded = encode(value)
    for end in range(len(encoded)):
        with pytest.raises(Malformed):
            decode(encoded[:end])


@given(values, st.binary(max_size=9))
def test_a_prefix_ends_where_the_value_does(value, rest):
    encoded = encode(value)
    if isinstance(value, bytes) or encoded[-1:] == b"e":
        assert decode_prefix(encoded + b":" + rest) == (value, len(encoded))


@pytest.mark.parametrize(
    ("data", "why", "offset"),
    [
        (b"", "ends too early", 0),
        (b"i03e", "leading zeros", 0),
        (b"i-0e", "no -0", 0),
        (b"ie", "digits", 0),
        (b"i-e", "digits", 0),
        (b"i 1e", "digits", 0),
        (b"i+1e", "digits", 0),
        (b"i1_0e", "digits", 0),
        (b"i1", "without an end", 0),
        (b"i" + b"9" * 30 + b"e", "without an end", 0),
        (b"04:spam", "leading zeros", 0),
        (b"-1:a", "begins with", 0),
        (b"5:spam", "longer than what is there", 0),
        (b"99999999999999999999:", "longer than what is there", 0),
        (b"999999999999999999999999:", "length and a colon", 0),
        (b"4spam", "length and a colon", 0),
        (b"l4:spam", "ends too early", 7),
        (b"d1:a1:b1:a1:ce", "comes twice", 7),
        (b"d1:b1:x1:a1:ye", "out of order", 7),
        (b"d1:ae", "key without a value", 4),
        (b"di1e1:ae", "key must be a string", 1),
        (b"dl1:ae1:be", "key must be a string", 1),
        (b"e", "end without a beginning", 0),
        (b"i1ei2e", "something follows", 3),
        (b"x", "begins with", 0),
        (b"l" * 100_000, "nested deeper", DEPTH_MAX),
        (b"d1:a" * 100_000, "nested deeper", 4 * DEPTH_MAX),
    ],
)
def test_refused(data, why, offset):
    with pytest.raises(Malformed, match=why) as caught:
        decode(data)
    assert caught.value.offset == offset


def test_the_number_of_values_is_bounded(monkeypatch):
    monkeypatch.setattr(bencode, "VALUES_MAX", 10)
    assert decode(b"l" + b"i1e" * 9 + b"e") == [1] * 9
    with pytest.raises(Malformed, match="more than 10 values"):
        decode(b"l" + b"i1e" * 10 + b"e")


def test_spans_are_where_the_values_lie():
    data = b"d4:infod6:lengthi5e4:name1:xe4:listli1eli2eeee"
    found = spans(data)
    assert data[slice(*found[b"info",])] == b"d6:lengthi5e4:name1:xe"
    assert data[slice(*found[b"info", b"length"])] == b"i5e"
    assert data[slice(*found[b"list", 1, 0])] == b"i2e"
    assert found[()] == (0, len(data))


@given(values)
def test_each_span_holds_the_encoding_of_its_value(value):
    data = encode(value)
    for path, (start, end) in spans(data).items():
        at = value
        for step in path:
            at = at[step]
        assert decode(data[start:end]) == at


@pytest.mark.parametrize("value", [None, 1.5, "text", True, {"a": 1}, [b"a", {1: b"b"}]])
def test_what_has_no_form_is_refused(value):
    with pytest.raises(TypeError):
        encode(value)
