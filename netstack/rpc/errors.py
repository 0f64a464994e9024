"""What can go wrong with a call, and whether it may have happened.

    RpcError
    ├── Definite               the call did not and will not take effect
    │   ├── BadRequest         a field is missing or has the wrong type; the message names it
    │   ├── UnknownMethod
    │   ├── Forbidden          the caller's certificate does not allow this method
    │   ├── Unavailable        nobody reachable, draining, or not yet started
    │   │   └── NotListening   and the machine says so: no process has the port
    │   ├── Overloaded         a concurrency or queue limit was reached; try again later
    │   └── Failed             the service said no, with a code of its own
    └── Indefinite             it may or may not have taken effect
        ├── DeadlineExceeded
        ├── ConnectionLost     the connection ended between the request and its answer
        └── Interrupted        the service met an error of its own in the middle

A caller that sees a `Definite` may report a failure. A caller that sees an `Indefinite` may not:
it has to ask again, or say that it does not know.
"""

from __future__ import annotations

import reprlib
from typing import Any, ClassVar

_repr = reprlib.Repr()
_repr.maxother = 200


def brief(value: Any) -> str:
    """What a peer sent or a handler raised, for a message: bounded in length and in depth."""
    return _repr.repr(value)


class RpcError(Exception):
    """Base of all: `code` is stable and searchable, `details` is whatever the service attached."""

    code: ClassVar[str] = "error"
    definite: ClassVar[bool] = False

    def __init__(self, message: str, details: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class Definite(RpcError):
    """The call did not take effect and never will."""

    definite = True


class Indefinite(RpcError):
    """The call may or may not have taken effect."""


class BadRequest(Definite):
    """The body does not fit the method's schema."""

    code = "bad-request"


class UnknownMethod(Definite):
    """The service has no such method."""

    code = "unknown-method"


class Forbidden(Definite):
    """The caller's identity may not call this method."""

    code = "forbidden"


class Unavailable(Definite):
    """The request never reached a service that could have run it."""

    code = "unavailable"


class NotListening(Unavailable):
    """No process listens at the address. To a caller further away it is plain Unavailable."""


class Overloaded(Definite):
    """A limit of the service was reached before the request was looked at."""

    code = "overloaded"


class Failed(Definite):
    """The service refused; `reason` is its own code for why."""

    code = "failed"

    def __init__(self, reason: str, message: str, details: Any = None) -> None:
        super().__init__(message, details)
        self.reason = reason


class DeadlineExceeded(Indefinite):
    """No answer came within the time the caller gave."""

    code = "deadline-exceeded"


class ConnectionLost(Indefinite):
    """The connection ended after the request was sent and before its answer came."""

    code = "connection-lost"


class Interrupted(Indefinite):
    """The service failed in the middle of the call."""

    code = "interrupted"


_BY_CODE: dict[str, type[RpcError]] = {
    kind.code: kind
    for kind in (
        BadRequest,
        UnknownMethod,
        Forbidden,
        Unavailable,
        Overloaded,
        DeadlineExceeded,
        ConnectionLost,
        Interrupted,
    )
}


def to_wire(error: RpcError) -> list[Any]:
    """`[code, message, details]`; a `Failed` carries its reason behind `failed/`."""
    code = f"failed/{error.reason}" if isinstance(error, Failed) else error.code
    return [code, error.message, error.details]


def from_wire(fields: Any) -> RpcError:
    """The error a peer described; an unknown code is `Interrupted`, the safe reading."""
    if not (isinstance(fields, list) and len(fields) == 3):
        return Interrupted(f"the peer sent a malformed error: {brief(fields)}")
    code, message, details = fields
    if not (isinstance(code, str) and isinstance(message, str)):
        return Interrupted(f"the peer sent a malformed error: {brief(fields)}")
    if code.startswith("failed/"):
        return Failed(code.removeprefix("failed/"), message, details)
    return _BY_CODE.get(code, Interrupted)(message, details)
