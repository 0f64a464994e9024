"""At most once: what a receiver does with a copy of a request, and what it must remember for it.

    copy ──► admit ──► EXECUTE           execute, answer, then `executed` is told
                  ├──► Answer(body)      it was executed: here is the reply again
                  ├──► Refuse(reason)    not this copy
                  └──► IGNORE            no room to remember it: as if it had been lost

Four ways (lecture 19.19), each a file, and what each remembers:

    nonce_table.py    every request and its reply        answers a duplicate again
    idempotence.py    nothing                            executes it again, which must do no harm
    monotone.py       one number a client                refuses it, and what was overtaken
    fresh_port.py     which ports are open or resting    refuses it at a closed port

Each has an end to its memory: `capacity` entries at the most, and none for longer than the
horizon. When it is full it ignores what is new rather than forget what it still needs: a request
that is ignored comes again, one that is forgotten is executed again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from netstack.delivery.messages import WELL_KNOWN, Request


class Plain(Enum):
    """Verdicts that say all by their name."""

    EXECUTE = "execute"
    IGNORE = "ignore"


EXECUTE: Final = Plain.EXECUTE
IGNORE: Final = Plain.IGNORE


@dataclass(frozen=True, slots=True)
class Answer:
    """It was executed before, and this was the reply."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Refuse:
    """Not this copy; `reason` is one of messages.REASONS."""

    reason: str


Verdict = Plain | Answer | Refuse


class Suppressor(ABC):
    """A receiver's memory of what it has executed."""

    # Where requests are to be sent; another one in each life, if that is the cure.
    port: int = WELL_KNOWN

    @abstractmethod
    def admit(self, request: Request, now: float) -> Verdict:
        """What to do with a copy that has come to an open port."""

    @abstractmethod
    def executed(self, request: Request, reply: bytes, now: float) -> None:
        """The verdict was EXECUTE, and this came of it."""

    def open(self, now: float) -> int | None:
        """The port for a client that asks; None: there is none to be had now."""
        return self.port

    def is_open(self, port: int, now: float) -> bool:
        """Whether a copy to `port` comes to anybody."""
        return port == self.port

    @abstractmethod
    def __len__(self) -> int:
        """Entries in memory."""

    @abstractmethod
    def snapshot(self, now: float) -> Any:
        """The memory, in what msgpack can carry; ages, since another life has another clock."""

    @abstractmethod
    def restore(self, saved: Any, now: float) -> None:
        """Go on with what another life remembered."""
