"""What the tests of groups share."""

from __future__ import annotations

import threading

from ddp.engine import Engine
from ddp.group import Group
from ddp.segment import Segment
from ddp.shared import SharedFabric

WINDOW = 4096  # small, so that a short vector has many windows


class SharedRanks:
    """Groups over shared memory, a thread each; their segments are closed with them."""

    def __init__(self, size, timeout_s=30.0, window=WINDOW):
        self.segments = [Segment.make(size, window) for _ in range(size)]
        where = [segment.where for segment in self.segments]
        self.groups = [
            Group(SharedFabric(Engine(r, size, 1), self.segments[r], where), timeout_s=timeout_s)
            for r in range(size)
        ]

    def __enter__(self):
        return self.groups

    def __exit__(self, *_):
        for group in self.groups:
            group.close()


def together(groups, work):
    """`work(group)` on every rank, each in its thread; results or errors, by rank."""
    found = [None] * len(groups)

    def run(rank):
        try:
            found[rank] = work(groups[rank])
        except Exception as error:
            found[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(len(groups))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a rank hangs"
    return found


def results(groups, work):
    """The same, where nothing may fail."""
    found = together(groups, work)
    for outcome in found:
        if isinstance(outcome, Exception):
            raise outcome
    return found
