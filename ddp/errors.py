"""How a collective fails.

DdpError
├── BadCall        the arguments make no sense; nothing was begun
├── Mismatch       two ranks called different things; all ranks are told both calls
├── RankLost       a rank died, or its connection did; it is named
├── RankLate       a rank has not come in time; it is named
├── Fenced         this rank is of an epoch that is over
├── Corrupted      a frame's checksum does not hold
└── GroupClosed    the group was closed on this side

All but BadCall end the group: what was open and what is called later fails with the same error, and
the survivors go on in a group of the next epoch. A collective of survivors has one outcome: either
all have the result, or all have an error (engine.py and direct.py say how). RankLate can be
indefinite: a rank whose own part was done when its patience ended does not know what the others
decided, and says so. Nor does one that closes the group, or is fenced off, in the middle of a call.
"""

from __future__ import annotations

from typing import Final


class DdpError(Exception):
    """Base of all errors of a group."""


class BadCall(DdpError):
    """The call makes no sense, and the message says what would."""


class Mismatch(DdpError):
    """Ranks called different things under one sequence number."""


class RankLost(DdpError):
    """A rank is gone."""


class RankLate(DdpError):
    """A rank has not come in time."""


class Fenced(DdpError):
    """This rank belongs to an epoch that is over."""


class Corrupted(DdpError):
    """Bytes changed on the way."""


class GroupClosed(DdpError):
    """The group was closed here."""


# How an error crosses from rank to rank: its place in this list, and its text.
_WIRE: Final = (Mismatch, RankLost, RankLate, Fenced, Corrupted, GroupClosed)


def to_wire(error: DdpError) -> bytes:
    """One byte for the kind, then the text."""
    kind = next((i for i, k in enumerate(_WIRE) if isinstance(error, k)), len(_WIRE) - 1)
    return bytes([kind]) + str(error).encode()[:4096]


def from_wire(wire: bytes | memoryview) -> DdpError:
    """The error that `to_wire` had; GroupClosed for bytes that mean nothing."""
    data = bytes(wire)
    if not data or data[0] >= len(_WIRE):
        return GroupClosed("a rank gave up without a reason")
    return _WIRE[data[0]](data[1:].decode(errors="replace"))
