"""Exactly once: which requests of which client have been applied, and what they answered (§8).

The table is part of the replicated state: it is the same on all nodes, in snapshots, and after a
restart. A client names itself by 16 random bytes and opens no session in advance, so a single
`put` costs one round trip.

The table is bounded in sessions and in bytes; the session unheard of for longest is forgotten. A
*retry* of a forgotten session could be applied twice, so it must be told from a retry of one that
has simply not been heard of yet: a client says which index was applied before its session began
(`base`), and the table remembers the last use of the newest session that it ever forgot
(`horizon`). Every use of a session is an entry behind its base; so if nothing behind the base was
ever forgotten, neither was the one that it speaks of, and its retry is safe to apply.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

import msgpack

# What a laptop's clients will not reach.
SESSIONS_MAX: Final = 10_000
# Of all answers together; one alone has 4 MiB at the most, and nearly all have a few dozen bytes.
BYTES_MAX: Final = 32 * 1024 * 1024
# What a session, and an answer beside its own bytes, takes.
SESSION_BYTES: Final = 256
ANSWER_BYTES: Final = 128
# Answers a client may leave unacknowledged.
ANSWERS_MAX: Final = 1_024


class Unknown:
    """Not applied yet, as far as the table knows for sure."""


class Forgotten:
    """A retry of a session that may have been forgotten: it may have been applied."""


UNKNOWN: Final = Unknown()
FORGOTTEN: Final = Forgotten()


class Sessions:
    """The table."""

    def __init__(self, sessions_max: int = SESSIONS_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._sessions: OrderedDict[bytes, _Session] = OrderedDict()
        self._max = sessions_max
        self._bytes_max = bytes_max
        self.bytes = 0
        self.horizon = 0

    def __repr__(self) -> str:
        return f"<Sessions {len(self._sessions)} horizon={self.horizon}>"

    def __len__(self) -> int:
        return len(self._sessions)

    def lookup(
        self, session_id: bytes, sequence: int, done: int, *, retry: bool, base: int, index: int
    ) -> Any:
        """The answer that was given; or UNKNOWN, and the caller applies it and calls `record`."""
        session = self._sessions.get(session_id)
        if session is None:
            if retry and base < self.horizon:
                return FORGOTTEN
            session = self._sessions[session_id] = _Session()
            session.doubtful = base < self.horizon
            self.bytes += SESSION_BYTES
            if len(self._sessions) > self._max:
                self._forget_oldest()
        else:
            self._sessions.move_to_end(session_id)
        session.used_at = index
        if done > session.done:
            session.done = done
            for received in [s for s in session.answers if s < done]:
                self.bytes -= session.answers.pop(received)[1]
        if sequence in session.answers:
            return session.answers[sequence][0]
        if retry and session.doubtful:
            return FORGOTTEN
        if sequence < session.done or len(session.answers) >= ANSWERS_MAX:
            return FORGOTTEN
        return UNKNOWN

    def answer(self, session_id: bytes, sequence: int) -> Any:
        """What was answered, if it was applied and is remembered; else UNKNOWN. Changes nothing."""
        session = self._sessions.get(session_id)
        if session is None or sequence not in session.answers:
            return UNKNOWN
        return session.answers[sequence][0]

    def record(self, session_id: bytes, sequence: int, answer: Any) -> None:
        """Remember what was answered, if need be instead of what others were."""
        size = _size(answer)
        self._sessions[session_id].answers[sequence] = (answer, size)
        self.bytes += size
        while self.bytes > self._bytes_max:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        _, session = self._sessions.popitem(last=False)
        self.bytes -= session.bytes
        self.horizon = max(self.horizon, session.used_at)

    def dump(self) -> list[Any]:
        """For a snapshot, in the order of use."""
        return [
            self.horizon,
            [
                [i, s.done, s.used_at, [(n, a) for n, (a, _) in s.answers.items()], s.doubtful]
                for i, s in self._sessions.items()
            ],
        ]

    def load(self, dumped: list[Any]) -> None:
        """From a snapshot."""
        self.horizon, rows = dumped
        self._sessions.clear()
        self.bytes = 0
        for session_id, done, used_at, answers, doubtful in rows:
            session = self._sessions[session_id] = _Session()
            session.done, session.used_at, session.doubtful = done, used_at, doubtful
            session.answers = {sequence: (answer, _size(answer)) for sequence, answer in answers}
            self.bytes += session.bytes


_packer = msgpack.Packer()


def _size(answer: Any) -> int:
    return ANSWER_BYTES + len(_packer.pack(answer))


class _Session:
    """One client."""

    __slots__ = ("answers", "done", "doubtful", "used_at")

    def __init__(self) -> None:
        self.done = 0
        self.used_at = 0
        self.doubtful = False  # it may have had an earlier life here, that was forgotten
        self.answers: dict[int, tuple[Any, int]] = {}  # and its bytes

    @property
    def bytes(self) -> int:
        """What it takes in the table."""
        return SESSION_BYTES + sum(size for _, size in self.answers.values())
