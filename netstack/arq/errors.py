"""How a transfer fails.

ArqError
├── Malformed   a datagram that is none of ours, or was damaged on the way
├── TooLong     a message of more segments than a segment can count
└── GaveUp      a segment was sent as often as allowed and never acknowledged
"""

from __future__ import annotations


class ArqError(Exception):
    """Base of all errors of this package."""


class Malformed(ArqError):
    """The datagram is not what it should be; the message says how."""


class TooLong(ArqError):
    """The message needs more segments than there are numbers for them."""


class GaveUp(ArqError):
    """The sender has tried often enough.

    An indefinite end: the segment, and even the whole message, may have arrived. All that is
    known is that no acknowledgement came back.
    """

    def __init__(self, message: int, index: int, count: int, tries: int) -> None:
        super().__init__(
            f"message {message}: gave up after {tries} tries, segment {index + 1} of {count} was "
            f"never acknowledged"
        )
        self.message = message
        self.index = index  # all before it were
        self.count = count
        self.tries = tries
