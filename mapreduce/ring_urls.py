"""Where `ring://` leads: to the chunk store of one cluster, by fsspec's own settings.

Whoever opens `ring://logs/monday` says no cluster; without a word it is that of $RING_HOME, or of
`.ring` here. A job is planned, run and committed for *its* cluster, so the three that do this say
so first: a caller and a master by `leads_to`, a worker by the environment of its children. What the
user's code opens there by itself leads to the same place.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import fsspec

PROTOCOL: Final = "ring"


def environment(config: Path, beside: str) -> dict[str, str]:
    """For children of the worker `beside`: they read its chunks from its disk."""
    return {"FSSPEC_RING_CONFIG": str(config), "FSSPEC_RING_BESIDE": beside}


_users: Counter[str] = Counter()
_counting = threading.Lock()


@contextmanager
def leads_to(config: Path) -> Iterator[None]:
    """In this process, until the last who said so is done; then the connection is closed.

    One cluster at a time: of two, the one that was named last.
    """
    known, name = fsspec.config.conf, str(config.absolute())
    with _counting:
        _users[name] += 1
        known[PROTOCOL] = {"config": name}
    try:
        yield
    finally:
        with _counting:
            _users[name] -= 1
            if not _users[name]:
                del _users[name]
                if known.get(PROTOCOL) == {"config": name}:
                    del known[PROTOCOL]
                if PROTOCOL in fsspec.registry:  # somebody opened something
                    fsspec.filesystem(PROTOCOL, config=name).close()


def is_ring(url: str) -> bool:
    """Whether it leads to the chunk store."""
    return url.startswith(f"{PROTOCOL}://")


def options_of_output(url: str) -> dict[str, int]:
    """For whoever writes a job's output: one replica will do while no other server lives.

    It could be made again. So a job ends though one of two workers is dead; the store makes the
    second replica when it can.
    """
    return {"least_replicas": 1} if is_ring(url) else {}


def bytes_read_of(url: str) -> dict[str, int]:
    """Of a file system that tells: bytes that this process has read "local" and "remote"."""
    if not is_ring(url):
        return {}
    found: dict[str, int] = fsspec.filesystem(PROTOCOL).read_bytes_from()
    return found
