"""Calls that are under way before anybody waits for them: what becomes of each."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from dht.chord.peers import LATE_S, SILENT_S, Peers
from dht.chord.ring import contact_of
from netstack.rpc.errors import DeadlineExceeded, Failed, Unavailable

TO = contact_of("d2", "127.0.0.1", 7002, 0)
LIMIT_S = 0.5


class Client:
    """One with a connection, or without; answers when the test says so."""

    def __init__(self) -> None:
        self.connected = True
        self.begun: list[asyncio.Future] = []
        self.called: list[str] = []

    def begin(self, method, body, timeout_s):
        if not self.connected:
            return None
        self.begun.append(asyncio.get_running_loop().create_future())
        return self.begun[-1]

    def _ready(self) -> bool:
        return True

    async def call(self, method, body, *, timeout_s):
        self.called.append(method)
        return "called"


class Node:
    """A node whose clock the test moves."""

    def __init__(self) -> None:
        self.at = 100.0
        self.runtime = SimpleNamespace(node="d1", clock=SimpleNamespace(now=lambda: self.at))
        self.one = Client()

    def client(self, address, service, name) -> Client:
        return self.one


def made() -> tuple[Peers, Node]:
    async def local(method, body):
        raise AssertionError("nothing here is for ourselves")

    node = Node()
    peers = Peers(node, local, LIMIT_S)
    peers._client(TO)
    return peers, node


async def test_it_is_under_way_before_it_is_waited_for():
    peers, node = made()
    begun = peers.begin(TO, "store", None)
    assert len(node.one.begun) == 1
    node.one.begun[0].set_result(7)
    assert await begun.answer() == 7
    assert node.one.called == []


async def test_without_a_connection_it_goes_as_any_call_does():
    peers, node = made()
    node.one.connected = False
    assert await peers.begin(TO, "store", None).answer() == "called"


async def test_who_does_not_answer_in_time_is_not_asked_again_for_a_moment():
    peers, node = made()
    begun = peers.begin(TO, "store", None)
    node.at += LIMIT_S
    node.one.begun[0].set_exception(DeadlineExceeded("no answer in time"))
    with pytest.raises(DeadlineExceeded):
        await begun.answer()
    with pytest.raises(Unavailable, match="silent a moment ago"):
        await peers.begin(TO, "store", None).answer()
    assert (len(node.one.begun), node.one.called) == (1, [])
    node.at += SILENT_S
    peers.begin(TO, "store", None)
    node.one.begun[1].set_result(None)
    assert len(node.one.begun) == 2


async def test_a_limit_that_this_process_slept_through_says_nothing_of_the_other():
    peers, node = made()
    begun = peers.begin(TO, "store", None)
    node.at += LIMIT_S + 2 * LATE_S
    node.one.begun[0].set_exception(DeadlineExceeded("no answer in time"))
    assert await begun.answer() == "called"
    assert not peers.was_silent(TO)


async def test_a_refusal_is_an_answer():
    peers, node = made()
    begun = peers.begin(TO, "store", None)
    node.one.begun[0].set_exception(Failed("mine", "d2 owns this key"))
    with pytest.raises(Failed):
        await begun.answer()
    assert not peers.was_silent(TO)


async def test_one_that_nobody_waits_for_fails_in_silence():
    """Of two copies the first may say that all is over."""
    complaints = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
    peers, node = made()
    node.one.connected = False
    peers.unheard(TO)
    peers.begin(TO, "store", None)
    for _ in range(5):
        await asyncio.sleep(0)
    assert complaints == []
