"""After kill -9: the memory is gone, and copies of what was executed are still under way.

    cure            what it does                                        what it costs
    none            goes on as if nothing had been                      a copy is executed again
    fresh port      listens on another port in each life                one write a life
    silence         ignores everything until all old copies are gone    horizon_s of no service
    durable table   keeps the memory with the application's data        a larger write a request

(Lecture 19.21.) The first two cures cannot answer a copy of what the earlier life executed: its
client is told Refused, or gives up, and does not know. Only the durable table can tell him.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final

import msgpack

from netstack.delivery.client import Ports
from netstack.delivery.errors import BadMessage
from netstack.delivery.fresh_port import FreshPort
from netstack.delivery.idempotence import Idempotence
from netstack.delivery.monotone import Monotone
from netstack.delivery.nonce_table import NonceTable
from netstack.delivery.server import Application, Server
from netstack.delivery.suppressor import Suppressor
from netstack.delivery.terms import Terms


class Cure(StrEnum):
    """What is done about a restart."""

    NONE = "none"
    FRESH_PORT = "fresh-port"
    SILENCE = "silence"
    DURABLE_TABLE = "durable-table"


STRATEGIES: Final[dict[str, Callable[[Terms], Suppressor]]] = {
    "nonce-table": lambda terms: NonceTable(terms.horizon_s),
    "idempotence": lambda terms: Idempotence(),
    "monotone": lambda terms: Monotone(terms.horizon_s),
    "fresh-port": lambda terms: FreshPort(terms.horizon_s),
}


def ports_for(strategy: str, cure: Cure) -> Ports:
    """Which port a client of such a server must ask for."""
    if strategy == "fresh-port":
        return Ports.OF_A_REQUEST
    return Ports.OF_A_LIFE if cure is Cure.FRESH_PORT else Ports.WELL_KNOWN


def start(
    application: Application,
    suppressor: Suppressor,
    cure: Cure,
    terms: Terms,
    image: bytes | None,
    now: float,
) -> Server[Any]:
    """The next life of a server; `image` is the last that was persisted, None before the first.

    Raises BadMessage for an image that is none.
    """
    life, table = 0, None
    if image is not None:
        last, saved, table = _parse(image)
        life = last + 1
        application.restore(saved)
    if cure is Cure.FRESH_PORT:
        suppressor.port = life + 1
    if cure is Cure.DURABLE_TABLE and table is not None:
        suppressor.restore(table, now)
    # Before the first life there was nothing of which copies could be under way.
    silent = cure is Cure.SILENCE and life > 0
    server = Server[Any](
        application,
        suppressor,
        life=life,
        silent_until=now + terms.horizon_s if silent else now,
        keeps_table=cure is Cure.DURABLE_TABLE,
    )
    server.persist(now)  # this life has begun: none may take its number again
    return server


def _parse(image: bytes) -> tuple[int, Any, Any]:
    try:
        life, saved, table = msgpack.unpackb(image)
        if type(life) is not int:
            raise TypeError(f"a life is a number, not {life!r}")
    except Exception as error:
        raise BadMessage(f"the saved image cannot be read: {error}") from None
    return life, saved, table
