"""Schema-checked messages: wrong types and missing fields name the field."""

from __future__ import annotations

import pytest

from netstack.rpc.errors import BadRequest
from netstack.rpc.schema import decode, encode, message


@message
class Item:
    key: bytes
    count: int = 0


@message
class Order:
    name: str
    items: list[Item]
    labels: dict[str, str]
    note: str | None = None
    price: float = 1.0
    urgent: bool = False


def whole() -> dict:
    return {"name": "n", "items": [{"key": b"k", "count": 2}], "labels": {"a": "b"}}


def test_round_trip():
    order = decode(Order, whole())
    assert order == Order("n", [Item(b"k", 2)], {"a": "b"})
    assert decode(Order, encode(order)) == order


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"name": 7}, "Order.name: expected str, got int"),
        ({"items": {}}, "Order.items: expected list, got dict"),
        ({"items": [{"key": "text"}]}, "Order.items[0].key: expected bytes, got str"),
        ({"items": [{}]}, "Order.items[0].key: missing"),
        ({"labels": {"a": 1}}, "Order.labels.a: expected str, got int"),
        ({"labels": {1: "a"}}, "Order.labels key: expected str, got int"),
        ({"urgent": 1}, "Order.urgent: expected bool, got int"),
        ({"price": "dear"}, "Order.price: expected float, got str"),
    ],
)
def test_what_does_not_fit_is_named(change, complaint):
    with pytest.raises(BadRequest) as caught:
        decode(Order, whole() | change)
    assert caught.value.message == complaint


def test_a_missing_field_is_named():
    body = whole()
    del body["labels"]
    with pytest.raises(BadRequest, match=r"^Order\.labels: missing$"):
        decode(Order, body)


def test_a_bool_is_no_int():
    with pytest.raises(BadRequest, match=r"Item\.count: expected int, got bool"):
        decode(Item, {"key": b"k", "count": True})


def test_an_int_is_a_float():
    assert decode(Order, whole() | {"price": 3}).price == 3.0


def test_unknown_fields_are_for_newer_services():
    assert decode(Item, {"key": b"k", "colour": "red"}) == Item(b"k")


def test_not_a_map_at_all():
    with pytest.raises(BadRequest, match="Item: expected map, got list"):
        decode(Item, [b"k"])
