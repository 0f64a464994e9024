"""The writes of one key go one after the other, in the order in which they came."""

from __future__ import annotations

import asyncio

import pytest

from dht.chord.turns import Turns

KEY, OTHER = b"key", b"other"


async def test_nobody_waits_for_a_key_that_is_not_in_use():
    turns = Turns()
    assert turns.take(KEY)
    assert turns.take(OTHER)
    assert not turns.take(KEY)
    turns.end(KEY)
    assert turns.take(KEY)


async def test_each_has_its_turn_in_the_order_in_which_they_came():
    turns, order = Turns(), []
    assert turns.take(KEY)

    async def one(name: str) -> None:
        await turns.wait(KEY)
        order.append(name)
        assert not turns.take(KEY)
        await asyncio.sleep(0)
        turns.end(KEY)

    waiting = [asyncio.ensure_future(one(name)) for name in "abc"]
    await asyncio.sleep(0)
    assert order == []
    turns.end(KEY)
    await asyncio.gather(*waiting)
    assert order == ["a", "b", "c"]
    assert turns.take(KEY)


@pytest.mark.parametrize("when", ["it waits", "its turn has come"])
async def test_who_is_cancelled_keeps_nobody_waiting(when):
    turns = Turns()
    assert turns.take(KEY)
    first, second = (asyncio.ensure_future(turns.wait(KEY)) for _ in range(2))
    await asyncio.sleep(0)
    if when == "it waits":
        first.cancel()
        await asyncio.sleep(0)
        turns.end(KEY)
    else:
        turns.end(KEY)
        first.cancel()
    await asyncio.wait_for(second, 1)
    assert first.cancelled()
    turns.end(KEY)
    assert turns.take(KEY)
