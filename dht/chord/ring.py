"""The identifier circle: where keys and peers lie, and who comes after whom.

Identifiers are SHA-1 (Chord §IV-B): of a key, or of a peer's address and the number of its virtual
node. So an identifier need not be sent: whoever knows the address computes it, and no peer can
choose its place.

    key 30        owned by its successor: the first identifier at or after it
      │
    ──N25──────N40──────N60──►     (25, 40] is N40's range
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

BITS: Final = 160  # of SHA-1
SIZE: Final = 1 << BITS

# Identifiers that one process keeps computed; a ring of that many is larger than any laptop's.
REMEMBERED: Final = 65_536


class Contact(NamedTuple):
    """One identifier on the circle, and how to reach it.

    A contact without a name is a placeholder: the tail of a successor list (see node.py).
    """

    id: int
    name: str = ""
    host: str = ""
    port: int = 0
    vnode: int = 0  # which of its process's virtual nodes

    @property
    def real(self) -> bool:
        """Whether there is somebody behind it."""
        return bool(self.name)

    @property
    def address(self) -> tuple[str, int]:
        """(host, port) of its process."""
        return self.host, self.port

    def __repr__(self) -> str:
        return f"{self.name}/{self.vnode}@{brief(self.id)}" if self.name else f"~{brief(self.id)}"


def key_id(key: bytes) -> int:
    """Where a key lies."""
    return int.from_bytes(hashlib.sha1(key, usedforsecurity=False).digest(), "big")


@lru_cache(maxsize=REMEMBERED)
def contact_of(name: str, host: str, port: int, index: int) -> Contact:
    """The contact at an address, its identifier computed."""
    return Contact(key_id(f"{host}:{port}/{index}".encode()), name, host, port, index)


def brief(identifier: int) -> str:
    """For people: small circles in full, large ones by their first digits."""
    return f"{identifier:040x}"[:8] if identifier >> 32 else str(identifier)


def between(low: int, x: int, high: int) -> bool:
    """Whether x lies on the open arc from `low` to `high`; the whole circle if they are equal."""
    if low < high:
        return low < x < high
    return x > low or x < high if low != high else x != low


def within(low: int, x: int, high: int) -> bool:
    """Whether x lies on the arc (low, high]: what `high` owns if `low` precedes it."""
    return x == high or between(low, x, high)


def padded(me: Contact, contacts: Iterable[Contact], length: int, bits: int) -> list[Contact]:
    """A successor list of exactly `length`: those of `contacts` that follow `me` and one another
    before `me` comes round again, then placeholders."""
    mask = (1 << bits) - 1
    found: list[Contact] = []
    after = 0
    for contact in contacts:
        distance = (contact.id - me.id) & mask
        if not contact.real or distance <= after:
            break
        found.append(contact)
        after = distance
    del found[length:]
    while len(found) < length:
        last = found[-1] if found else me
        found.append(Contact((last.id + 1) & mask))
    return found


def first_at(me: Contact, succ: list[Contact], distance: int, bits: int) -> Contact | None:
    """Who is first there at so far from `me`, if that lies within its successor list.

    Stabilising keeps the list right: nobody has to be asked for this, nor dialled to be asked.
    """
    mask = (1 << bits) - 1
    for contact in succ:
        if contact.real and (contact.id - me.id) & mask >= distance:
            return contact
    return None


def population(me: Contact, succ: list[Contact], bits: int) -> float:
    """About how many members the ring of `me` has: exactly if its successor list has room left,
    else by how densely they lie on the arc that the list covers."""
    reals = 0
    for contact in succ:
        if contact.real:
            reals += 1
    if reals < len(succ):
        return reals + 1.0
    covered = (succ[-1].id - me.id) & ((1 << bits) - 1)
    return reals * float(1 << bits) / covered
