"""Sessions: a command is applied once, however often it comes; what is forgotten is said so."""

from __future__ import annotations

from raftd import commands as c
from raftd.sessions import ANSWERS_MAX
from raftd.store import FAILED, OK, Store

ALICE, BOB = b"a" * 16, b"b" * 16


class Log:
    """Applies commands at rising indexes, as a log does."""

    def __init__(self, sessions_max: int = 10_000) -> None:
        self.store = Store()
        self.store.sessions._max = sessions_max
        self.index = 0

    def put(self, session, sequence, value, *, done=0, retry=False, base=0):
        self.index += 1
        op = [c.PUT, b"k", value, 0, False]
        command = c.pack_command(session, sequence, done, retry=retry, base=base, op=op)
        return self.store.apply(self.index, command)

    @property
    def writes(self) -> int:
        pair = self.store.get(b"k")
        return pair.version if pair else 0


def test_a_repeated_command_is_applied_once_and_answered_as_before():
    log = Log()
    first = log.put(ALICE, 1, b"x")
    assert log.put(BOB, 1, b"y")[0] == OK
    assert log.put(ALICE, 1, b"x", retry=True) == first
    assert log.writes == 2
    assert log.store.get(b"k").value == b"y"


def test_commands_of_one_session_may_arrive_in_any_order():
    log = Log()
    for sequence in (3, 1, 2, 3, 1):
        log.put(ALICE, sequence, b"%d" % sequence, retry=True)
    assert log.writes == 3


def test_an_answer_is_kept_until_the_client_says_that_it_has_it():
    log = Log()
    for sequence in range(1, 6):
        log.put(ALICE, sequence, b"x")
    log.put(ALICE, 6, b"x", done=4)
    assert log.put(ALICE, 5, b"x", retry=True)[0] == OK
    late = log.put(ALICE, 3, b"x", retry=True)
    assert late[:2] == [FAILED, "session-expired"]
    assert log.writes == 6


def test_the_table_goes_through_a_snapshot():
    log = Log()
    first = log.put(ALICE, 1, b"x")
    other = Log()
    other.store.restore(log.store.freeze().encode())
    other.index = log.index
    assert other.put(ALICE, 1, b"x", retry=True) == first
    assert other.writes == 1


def test_a_retry_of_a_forgotten_session_is_not_applied_again():
    log = Log(sessions_max=2)
    log.put(ALICE, 1, b"x", base=0)
    for other in (BOB, b"c" * 16, b"d" * 16):
        log.put(other, 1, b"y", base=log.index)
    answer = log.put(ALICE, 1, b"x", retry=True, base=0)
    assert answer[:2] == [FAILED, "session-expired"]
    assert log.writes == 4


def test_a_retry_of_a_session_that_was_never_heard_of_is_applied():
    """Nothing was forgotten since it began, so its first try was never applied."""
    log = Log(sessions_max=2)
    for name in (b"c", b"d", b"e", b"f"):
        log.put(name * 16, 1, b"y", base=log.index)
    assert log.put(ALICE, 1, b"x", retry=True, base=log.index)[0] == OK
    assert log.writes == 5


def test_the_session_heard_of_last_is_the_last_to_be_forgotten():
    log = Log(sessions_max=2)
    log.put(ALICE, 1, b"x")
    log.put(BOB, 1, b"x")
    first = log.put(ALICE, 2, b"x")
    log.put(b"c" * 16, 1, b"x")
    assert log.put(ALICE, 2, b"x", retry=True) == first
    assert log.put(BOB, 1, b"x", retry=True)[:2] == [FAILED, "session-expired"]


def test_answers_that_nobody_acknowledges_are_bounded():
    log = Log()
    for sequence in range(1, ANSWERS_MAX + 1):
        assert log.put(ALICE, sequence, b"x")[0] == OK
    assert log.put(ALICE, ANSWERS_MAX + 1, b"x")[:2] == [FAILED, "session-expired"]
    assert log.put(ALICE, ANSWERS_MAX + 1, b"x", done=ANSWERS_MAX)[0] == OK
