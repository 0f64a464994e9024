"""The pair of key and value as store, watch and client all see it."""

from __future__ import annotations

from typing import NamedTuple


class KeyValue(NamedTuple):
    """One version of a key. Deleted: version 0 and an empty value."""

    key: bytes
    value: bytes
    create: int  # revision at which the key's current life began
    mod: int  # revision of this change
    version: int  # changes in the current life
    lease: int
