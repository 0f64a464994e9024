"""How much of a log stays behind a snapshot: so many entries, and so many bytes, at the most."""

from __future__ import annotations

import pytest

from raftd.log import COMMAND, Entry, RaftLog


@pytest.fixture
def log():
    """Entries 11 to 20, of ten bytes each, behind a snapshot at 10."""
    made = RaftLog()
    made.append([Entry(i, 1, COMMAND, b"x" * 10) for i in range(1, 21)])
    made.compact(10, 1)
    return made


@pytest.mark.parametrize(
    ("index", "count", "nbytes", "begin"),
    [
        (20, 100, 1000, 10),
        (20, 3, 1000, 17),
        (20, 100, 50, 15),
        (20, 100, 49, 16),
        (20, 3, 0, 20),
        (18, 2, 1000, 16),
        (18, 100, 20, 16),
        (10, 5, 1000, 10),
    ],
)
def test_the_shorter_of_the_two_counts(log, index, count, nbytes, begin):
    assert log.back_from(index, count, nbytes) == begin
