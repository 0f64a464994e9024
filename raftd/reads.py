"""Linearizable reads that wait: for a quorum to confirm who leads, then for the store.

    add ─(token)─> a quorum is asked ──(confirmed at an index)──> the store has applied it ─> read
                                     └─(failed, or the leader is none any more)──> told why

All that come in one turn of the loop wait under one token: one question serves them all.
"""

from __future__ import annotations

from collections.abc import Callable

Ready = Callable[[Exception | None], None]
"""Called with None when the store may be read, or with why not."""


class WaitingReads:
    """Who waits for what, from `first_token` on."""

    def __init__(self, first_token: int) -> None:
        self._token = first_token
        self._new: list[Ready] = []
        self._asked: dict[int, list[Ready]] = {}
        self._confirmed: list[tuple[int, list[Ready]]] = []

    def __repr__(self) -> str:
        return f"<WaitingReads asked={len(self._asked)} confirmed={len(self._confirmed)}>"

    def add(self, ready: Ready) -> None:
        """One that has just come."""
        self._new.append(ready)

    def ask(self) -> int | None:
        """The token under which those that have come wait from now on; None: there are none."""
        if not self._new:
            return None
        self._token += 1
        self._asked[self._token], self._new = self._new, []
        return self._token

    def confirmed(self, token: int, index: int) -> None:
        """They may be served once the store has applied `index`."""
        waiting = self._asked.pop(token, None)
        if waiting is not None:
            self._confirmed.append((index, waiting))

    def take_ready(self, applied: int) -> list[Ready]:
        """Those that may be served now."""
        if not self._confirmed:
            return []
        ready = [one for index, waiting in self._confirmed if index <= applied for one in waiting]
        self._confirmed = [item for item in self._confirmed if item[0] > applied]
        return ready

    def take_failed(self, token: int) -> list[Ready]:
        """Those of a question that nobody answers any more."""
        return self._asked.pop(token, [])

    def take_asked(self) -> list[Ready]:
        """All whose question is open: whoever was asked no longer leads."""
        asked, self._asked = self._asked, {}
        return [one for waiting in asked.values() for one in waiting]
