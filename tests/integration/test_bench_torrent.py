"""`ring bench torrent`: all kinds deliver the content, and the bars can be missed."""

from __future__ import annotations

import importlib.util

import pytest

from cluster.bench import torrent
from cluster.bench.torrent import Run, _content, _rows, swarm

KINDS = [
    "ours tcp",
    "ours netstack",
    pytest.param(
        "libtorrent tcp",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("libtorrent") is None,
            reason="libtorrent is not installed: pip install 'ringleader[torrent]'",
        ),
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_delivers_the_content(tmp_path, kind):
    run = swarm(kind, tmp_path, _content(tmp_path, 8 << 20), 2)
    assert run.seconds > 0
    assert run.cpu_s > 0


def test_rows_hold_ours_against_theirs():
    runs = {
        "ours tcp": [Run(2.0, 4.0)],
        "ours netstack": [Run(4.0, 8.0)],
        "libtorrent tcp": [Run(1.0, 4.0)],
        "libtorrent utp": [Run(8.0, 9.0)],
    }
    rows = _rows(1, runs, peers=True)
    found = {(row.peer, row.unit): (row.ratio, row.holds) for row in rows}
    assert found["libtorrent tcp", "MB/s"] == (0.5, False)
    assert found["libtorrent tcp", "CPU s/GB"] == (1.0, None)
    assert found["libtorrent utp", "MB/s"] == (2.0, True)


def test_a_peer_that_is_missing_is_a_row_that_says_so():
    runs = {"ours tcp": [Run(2.0, 4.0)], "ours netstack": [Run(4.0, 8.0)]}
    notes = {row.note for row in _rows(4, runs, peers=True)}
    assert notes == {"libtorrent is not installed"}
    assert {row.peer for row in _rows(4, runs, peers=False)} == {"-"}
    assert torrent.BARS["ours tcp", "libtorrent tcp"] == 0.6
