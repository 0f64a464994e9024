"""The shell's receiving side, on an endpoint in the hands of the test."""

from __future__ import annotations

import pytest
from arq_kit import message

from netstack.arq import shell
from netstack.arq.buffering import BufferingReceiver
from netstack.arq.segment import Ack, Segment, cut, decode
from netstack.arq.shell import Inbox

HERE, THERE = ("127.0.0.1", 1), ("127.0.0.1", 2)


class Hands:
    """What was sent, and a way to let something arrive."""

    def __init__(self) -> None:
        self.sent = []

    def send(self, datagrams, destination, mark=0):
        self.sent += [(decode(datagram), destination) for datagram in datagrams]

    def set_receiver(self, receiver):
        self.arrive = receiver


class Shelf(list):
    full = False

    def put(self, source, receiver, data):
        self.append((source, receiver.message, data, receiver.done))
        return not self.full


@pytest.fixture
def inbox():
    endpoint, shelf = Hands(), Shelf()
    return Inbox(endpoint, lambda source: BufferingReceiver(), shelf.put), endpoint, shelf


def whole(number: int, text: bytes = b"x") -> bytes:
    """A message that is one segment."""
    return Segment(number, 0, 1, text).encode()


def part(number: int) -> bytes:
    """The first half of one that never ends."""
    return Segment(number, 0, 2, b"half").encode()


def test_messages_of_several_sources_are_kept_apart(inbox):
    _, endpoint, shelf = inbox
    _, segments = message(2)
    first, last = (segment.encode() for segment in segments)
    endpoint.arrive([first], HERE, 0)
    endpoint.arrive([first, last], THERE, 0)
    assert [(source, done) for source, _, _, done in shelf] == [
        (HERE, False),
        (THERE, False),
        (THERE, True),
    ]
    assert endpoint.sent == [
        (Ack(914, 0, 0, 1), HERE),
        (Ack(914, 0, 0, 1), THERE),
        (Ack(914, 1, 1, 2), THERE),
    ]


def test_what_is_no_segment_changes_nothing(inbox):
    box, endpoint, shelf = inbox
    damaged = whole(1)[:-1] + b"?"
    endpoint.arrive([b"", b"noise", damaged, Ack(1, 0, 0, 0).encode()], HERE, 0)
    assert (endpoint.sent, shelf) == ([], [])
    assert repr(box) == "<Inbox 0 messages, 0 complete>"


def test_the_end_is_told_once_and_answered_always(inbox):
    _, endpoint, shelf = inbox
    empty = cut(1, b"", 100)[0].encode()
    endpoint.arrive([empty, empty], HERE, 0)
    assert shelf == [(HERE, 1, b"", True)]
    assert len(endpoint.sent) == 2


def test_what_could_not_be_kept_is_not_acknowledged(inbox):
    _, endpoint, shelf = inbox
    shelf.full = True
    endpoint.arrive([part(1), part(1), whole(2)], HERE, 0)
    assert (endpoint.sent, len(shelf)) == ([], 1)


def test_knows_so_many_messages_at_once_and_forgets_the_oldest_that_is_complete(inbox):
    box, endpoint, shelf = inbox
    most = shell.MESSAGES_MAX
    endpoint.arrive([whole(0), whole(1), *map(part, range(2, most))], HERE, 0)
    endpoint.arrive([whole(most)], HERE, 0)
    assert repr(box) == f"<Inbox {most} messages, 2 complete>"
    shelf.clear()
    endpoint.arrive([whole(1)], HERE, 0)
    assert shelf == []  # still known
    endpoint.arrive([whole(0)], HERE, 0)
    assert shelf == [(HERE, 0, b"x", True)]  # forgotten, so it is new


def test_takes_no_more_when_none_of_them_is_complete(inbox):
    _, endpoint, shelf = inbox
    endpoint.arrive([part(number) for number in range(shell.MESSAGES_MAX + 1)], HERE, 0)
    assert len(shelf) == len(endpoint.sent) == shell.MESSAGES_MAX
