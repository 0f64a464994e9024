"""What the progress bars of `ring torrent get` and `ring mr run` say beside the bar."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from cluster.cli import mr, torrent

SAYS = {
    "name": "album",
    "info_hash": "0123456789abcdef",
    "pieces": 128,
    "have": 37,
    "down_rate": 1_234_567,
    "up_rate": 0,
    "peers": 4,
    "seeds": 1,
    "trouble": "",
}
STATE = {
    "id": "j3",
    "name": "count",
    "state": "running",
    "maps": {"done": 7, "all": 12, "share": 0.6},
    "reduces": {"done": 1, "all": 4, "share": 0.3},
    "shuffling": 2,
    "mb_s": 12.34,
    "backups": 1,
    "failures": 3,
    "lost": 0,
}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Call it, and standard error is a terminal of 160 columns."""

    def begin():  # in the test itself: between set-up and test pytest puts its own back
        found = Terminal()
        monkeypatch.setattr(sys, "stderr", found)
        monkeypatch.setenv("COLUMNS", "160")
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("NO_COLOR", "1")
        return found

    return begin


def test_a_peer_says_pieces_rates_and_peers():
    assert torrent.about(SAYS) == "37/128 pieces  ↓ 1.2 MB/s  ↑ 0 B/s  4 peers, 1 seed"


def test_and_its_trouble():
    line = torrent.about({**SAYS, "trouble": "the tracker does not answer"})
    assert line.endswith("4 peers, 1 seed  the tracker does not answer")


def test_a_job_says_maps_shuffle_reduces_rate_and_what_went_wrong():
    assert mr._line(STATE) == (
        "j3 count running  maps 7/12  shuffling 2  reduces 1/4  12.3 MB/s"
        "  copies of late tasks 1  failures 3  lost 0"
    )


def test_the_bar_of_a_download_is_drawn_with_its_line(terminal):
    screen = terminal()
    with torrent._bar(False) as show:
        show(SAYS)
    drawn = screen.getvalue()
    assert "album" in drawn
    assert " 29%" in drawn  # 37 of 128
    assert torrent.about(SAYS) in drawn


def test_a_magnet_link_has_no_name_yet(terminal):
    screen = terminal()
    with torrent._bar(False) as show:
        show({**SAYS, "name": "", "pieces": 0, "have": 0})
    assert "01234567" in screen.getvalue()
    assert "  0%" in screen.getvalue()


def test_the_bar_of_a_job_is_drawn_with_its_line_and_half_of_each_phase(terminal):
    screen = terminal()
    with mr._bar() as watch:
        watch(STATE)
    assert mr._line(STATE) in screen.getvalue()
    assert " 45%" in screen.getvalue()  # the mean of 60 and 30


def test_a_job_without_reduces_is_as_far_as_its_maps(terminal):
    screen = terminal()
    with mr._bar() as watch:
        watch({**STATE, "reduces": {"done": 0, "all": 0, "share": 0.0}})
    assert " 60%" in screen.getvalue()


@pytest.mark.parametrize("json", [False, True])
def test_a_pipe_gets_no_bar(monkeypatch, json):
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    with torrent._bar(json) as show:
        show(SAYS)
    with mr._bar() as watch:
        assert watch is None
    assert pipe.getvalue() == ""
    assert not Console(file=pipe).is_terminal
