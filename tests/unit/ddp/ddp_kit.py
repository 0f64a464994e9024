"""What the tests of groups share."""

from __future__ import annotations

import threading


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
