"""What `ring kv` and `ring dht` have in common: keys and values as text, and how a call can end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from cluster.control import running
from cluster.errors import UNKNOWN, NotInTime, NotRunning, RingError, Unhealthy, Usage

T = TypeVar("T")
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds to try.")]
Key = Annotated[str, typer.Argument()]


class UnknownOutcome(RingError):
    """It may or may not be so."""

    status, name = UNKNOWN, "RING_UNKNOWN"


def as_bytes(text: str) -> bytes:
    """What was typed, as a key or value; raises Usage."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Usage(f"{text!a} is no UTF-8 text; use the Python client for other bytes") from None


def as_text(data: bytes) -> str:
    """A key or value for people."""
    return data.decode(errors="backslashreplace")


def ended(
    call: Coroutine[Any, Any, T],
    home: Path,
    *,
    not_reached: type[Exception],
    unknown: type[Exception],
    refused: type[Exception],
    error: type[Exception],
    see: str,
) -> T:
    """The call's result, a service's errors as the command line's; `see` what to look at.

    Each of the four kinds is how the service's client says the same: nobody was reached in time,
    it may or may not have been done, it makes no sense, anything else.
    """
    try:
        return asyncio.run(call)
    except not_reached as why:
        if not running(home):
            raise NotRunning(f"no cluster is running in {home}; start one with: ring up") from None
        raise NotInTime(f"{why}; {see}") from None
    except unknown as why:
        raise UnknownOutcome(str(why)) from None
    except refused as why:
        raise Usage(str(why)) from None
    except error as why:
        raise Unhealthy(str(why)) from None
