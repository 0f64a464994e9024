"""The lecture's examples, word for word; their language: theatre_kit.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from theatre_kit import played

FOLDER = Path(__file__).parent / "transcripts"
ALL = sorted(FOLDER.glob("*.txt"))


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_the_cores_keep_to_their_part(path):
    assert played(path.read_text()) == path.read_text()


def test_there_are_transcripts():
    assert [path.stem for path in ALL] == ["join", "k90", "lecture"]


def test_a_core_that_says_something_else_is_noticed():
    text = (FOLDER / "k90.txt").read_text()
    assert text.count("K90 is N113's") == 2
    assert played(text.replace("K90 is N113's", "K90 is N120's")) == text
