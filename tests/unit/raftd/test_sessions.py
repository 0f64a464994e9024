"""Sessions beside a bookkeeper who forgets nothing: no request is ever applied a second time.

test_exactly_once.py has the examples; here clients with several requests under way lose answers,
try again, and are forgotten by a table of two, in any order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgpack
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from storage_kit import restored

from raftd import commands as c
from raftd.sessions import FORGOTTEN, UNKNOWN, Sessions
from raftd.store import FAILED, OK, Store

TABLE = 2
EXPIRED = [FAILED, "session-expired"]
ALICE, BOB, CAROL, DAVE = (letter * 16 for letter in (b"a", b"b", b"c", b"d"))


def small(store: Store) -> Store:
    store.sessions._max = TABLE
    return store


@dataclass
class Client:
    """Like RaftClient: numbers its requests, and says below which it waits for none."""

    session: bytes
    base: int
    next: int = 1
    open: dict[int, int] = field(default_factory=dict)  # sequence -> tries

    @property
    def done(self) -> int:
        return min(self.open, default=self.next)


class SessionMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.store = small(Store())
        self.index = 0
        self.clients = [Client(bytes([i]) * 16, 0) for i in range(4)]
        self.made = len(self.clients)
        self.first: dict[tuple[bytes, int], Any] = {}  # answers to what was applied
        self.used: dict[bytes, int] = {}  # the table, the longest unused first
        self.horizon = 0
        self.since: dict[bytes, int] = {}  # the horizon when the table learned of a session

    # -- clients

    @precondition(lambda self: self.index % 8 == 7)  # most of them stay for long
    @rule(who=st.integers(0, 3))
    def begin_anew(self, who: int) -> None:
        self.made += 1
        self.clients[who] = Client(self.made.to_bytes(16, "big"), self.index)

    @rule(who=st.integers(0, 3), fate=st.sampled_from(["answered", "answer lost", "lost"]))
    def send(self, who: int, fate: str) -> None:
        client = self.clients[who]
        sequence, client.next = client.next, client.next + 1
        client.open[sequence] = 1
        if fate != "lost":
            self._apply(client, sequence)
        if fate == "answered":
            del client.open[sequence]

    @precondition(lambda self: any(client.open for client in self.clients))
    @rule(data=st.data(), answered=st.booleans())
    def send_again(self, data: st.DataObject, answered: bool) -> None:
        client = data.draw(st.sampled_from([x for x in self.clients if x.open]))
        sequence = data.draw(st.sampled_from(sorted(client.open)))
        client.open[sequence] += 1
        self._apply(client, sequence)
        if answered:
            del client.open[sequence]

    # -- the log

    def _apply(self, client: Client, sequence: int) -> None:
        """One entry; the answer must be one of those that keep the promise."""
        request, retry = (client.session, sequence), client.open[sequence] > 1
        known, since = client.session in self.used, self._since(client)
        self.index += 1
        op = [c.PUT, b"%s/%d" % (client.session.hex().encode(), sequence), b"", 0, False]
        command = c.pack_command(
            client.session, sequence, client.done, retry=retry, base=client.base, op=op
        )
        answer = self.store.apply(self.index, command)
        if answer[:2] == EXPIRED:
            assert retry
            assert client.base < since, "nothing of this client can have been forgotten"
            assert not (known and since <= client.base)
        elif request in self.first:
            assert msgpack.packb(answer) == msgpack.packb(self.first[request])
        else:
            assert answer == [OK, len(self.first) + 1, None]
            self.first[request] = answer
        self._use(client, answer)

    def _since(self, client: Client) -> int:
        return self.since.get(client.session, self.horizon)

    def _use(self, client: Client, answer: list[Any]) -> None:
        if client.session not in self.used:
            if answer[:2] == EXPIRED:
                return
            self.since[client.session] = self.horizon
        self.used.pop(client.session, None)
        self.used[client.session] = self.index
        if len(self.used) > TABLE:
            forgotten = next(iter(self.used))
            self.horizon = max(self.horizon, self.used.pop(forgotten))
            del self.since[forgotten]

    @rule()
    def go_on_from_a_snapshot(self) -> None:
        self.store = restored(self.store, of=small(Store()))

    # -- what holds

    @invariant()
    def each_request_was_applied_once_at_most(self) -> None:
        pairs, _, count = self.store.range(b"\0", c.EVERYTHING)
        assert count == len(self.first) == self.store.revision
        assert all(pair.version == 1 for pair in pairs)

    @invariant()
    def the_table_is_bounded_and_forgets_the_longest_unused(self) -> None:
        horizon, rows = self.store.sessions.dump()
        assert [row[0] for row in rows] == list(self.used)
        assert [row[2] for row in rows] == list(self.used.values())
        assert horizon == self.horizon


SessionMachine.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=40,
    deadline=None,
    database=None,
)
TestSessionMachine = SessionMachine.TestCase


# -- one at a time


class Log:
    """Puts of one key a session, so that its version counts how often they were applied."""

    def __init__(self) -> None:
        self.store = small(Store())
        self.index = 0

    def put(self, session: bytes, sequence: int, *, done: int = 0, retry=False, base=0, lease=0):
        self.index += 1
        op = [c.PUT, session, b"%d" % sequence, lease, False]
        return self.store.apply(
            self.index,
            c.pack_command(session, sequence, done, retry=retry, base=base, op=op),
        )

    def applied(self, session: bytes) -> int:
        pair = self.store.get(session)
        return pair.version if pair is not None else 0


def test_a_forgotten_session_that_sends_something_new_is_still_a_forgotten_one():
    """Two requests are under way; the table forgot the first, and learns of the second."""
    log = Log()
    log.put(ALICE, 1, done=1)
    for other in (BOB, CAROL, DAVE):
        log.put(other, 1, base=log.index)
    assert log.put(ALICE, 2, done=1)[0] == OK
    assert log.put(ALICE, 1, done=1, retry=True)[:2] == EXPIRED
    assert log.applied(ALICE) == 2


def test_a_failure_is_an_answer_like_any_other():
    """It was definite: that the lease exists by now must not make it a success."""
    log = Log()
    failed = log.put(ALICE, 1, lease=5)
    assert failed[:2] == [FAILED, "no-lease"]
    log.index += 1
    grant = c.pack_command(BOB, 1, 0, retry=False, base=0, op=[c.LEASE_GRANT, 5, 9])
    assert log.store.apply(log.index, grant)[0] == OK
    assert log.put(ALICE, 1, lease=5, retry=True) == failed
    assert log.applied(ALICE) == 0


def test_what_a_client_has_got_is_not_kept():
    log = Log()
    for sequence in range(1, 51):
        log.put(ALICE, sequence, done=max(1, sequence - 2))
    [[_, done, _, answers, *_]] = log.store.sessions.dump()[1]
    assert done == 48
    assert [sequence for sequence, _ in answers] == [48, 49, 50]


def test_a_late_command_does_not_take_back_what_its_client_has_said():
    log = Log()
    log.put(ALICE, 1)
    log.put(ALICE, 5, done=5)
    log.put(ALICE, 4, done=2, retry=True)
    assert log.store.sessions.dump()[1][0][1] == 5
    assert log.put(ALICE, 1, done=1, retry=True)[:2] == EXPIRED
    assert log.applied(ALICE) == 2


def test_sessions_do_not_see_each_other():
    log = Log()
    for session in (ALICE, BOB):
        log.put(session, 1)
    answers = [log.put(session, 1, retry=True)[1] for session in (ALICE, BOB)]
    assert answers == [1, 2]


def test_a_refused_retry_takes_nobody_elses_place():
    table = Sessions(2)
    for index, session in enumerate((ALICE, BOB, CAROL), 1):
        assert table.lookup(session, 1, 0, retry=False, base=index, index=index) is UNKNOWN
        table.record(session, 1, session)
    assert table.lookup(ALICE, 1, 0, retry=True, base=0, index=4) is FORGOTTEN
    assert table.lookup(BOB, 1, 0, retry=True, base=0, index=5) == BOB
    assert len(table) == 2


def test_a_table_that_was_loaded_decides_as_the_one_that_was_dumped():
    table = Sessions(2)
    for index, session in enumerate((ALICE, BOB, CAROL), 1):
        table.lookup(session, 1, 1, retry=False, base=0, index=index)
        table.record(session, 1, [OK, index])
    other = Sessions(2)
    other.lookup(DAVE, 1, 1, retry=False, base=0, index=1)  # of before, to be gone
    other.load(msgpack.unpackb(msgpack.packb(table.dump())))
    for ask in ((ALICE, 1), (BOB, 1), (CAROL, 1), (CAROL, 2), (DAVE, 1), (BOB, 1)):
        one, two = (x.lookup(*ask, 1, retry=True, base=0, index=9) for x in (table, other))
        assert one == two
    assert repr(other) == repr(table)


def test_the_table_says_what_it_is():
    table = Sessions(1)
    table.lookup(ALICE, 1, 0, retry=False, base=0, index=7)
    table.lookup(BOB, 1, 0, retry=False, base=0, index=8)
    assert repr(table) == "<Sessions 1 horizon=7>"
