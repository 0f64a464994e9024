"""What a command may end with: one plain sentence and an exit status.

0 done   1 unhealthy, or verdict invalid   2 usage   3 verdict unknown   4 not in time
5 conflict (a port or name is taken)   6 not running   70 a bug of ours
"""

from __future__ import annotations

from typing import ClassVar

OK, UNHEALTHY, USAGE, UNKNOWN, TIMEOUT, CONFLICT, NOT_RUNNING, INTERNAL = 0, 1, 2, 3, 4, 5, 6, 70


class RingError(Exception):
    """Base: the text is for a person, `status` for a program."""

    status: ClassVar[int] = INTERNAL
    name: ClassVar[str] = "RING_INTERNAL"


class Usage(RingError):
    """What was typed makes no sense."""

    status, name = USAGE, "RING_USAGE"


class Unhealthy(RingError):
    """Something is down that should be up."""

    status, name = UNHEALTHY, "RING_UNHEALTHY"


class NotInTime(RingError):
    """What was waited for did not come true."""

    status, name = TIMEOUT, "RING_TIMEOUT"


class Conflict(RingError):
    """A port or a name is taken."""

    status, name = CONFLICT, "RING_CONFLICT"


class NotRunning(RingError):
    """There is no such cluster."""

    status, name = NOT_RUNNING, "RING_NOT_RUNNING"
