"""What a caller can be told, sorted by what he then knows.

DeliveryError
├── NotExecuted     definite: no copy of the request was ever sent to be executed
│   └── TooManyOpen     the client has as many requests open as it may
├── GaveUp          indefinite: no answer in time; executed once, more than once or never
├── Refused         indefinite: the receiver will not execute this copy; another copy may
│                   have been executed
└── BadMessage      a datagram, or a request's body, that is not what it should be
"""

from __future__ import annotations


class DeliveryError(Exception):
    """Why a request has no answer."""


class NotExecuted(DeliveryError):
    """It did not happen and will not."""


class TooManyOpen(NotExecuted):
    """The client keeps no more requests at a time."""


class GaveUp(DeliveryError):
    """No answer after all tries."""

    def __init__(self, tries: int, waited_s: float) -> None:
        super().__init__(
            f"no answer after {tries} {'try' if tries == 1 else 'tries'} in {waited_s:.3g} s: "
            "the request may have been executed once, more than once or never"
        )


class Refused(DeliveryError):
    """The receiver answered that it would not execute this copy."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}: this copy was not executed, an earlier one may have been")


class BadMessage(DeliveryError):
    """Not a message of this protocol."""
