"""Dialogues with a few cores, to be read beside the paper; their language: transcript_kit.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from transcript_kit import Theatre, blocks

FOLDER = Path(__file__).parent / "transcripts"
ALL = sorted(FOLDER.glob("*.txt"))


def played(text: str) -> str:
    """The same dialogue with the answers that the core gives."""
    theatre = Theatre()
    lines: list[str] = []
    for prose, command in blocks(text):
        lines += prose
        if command:
            lines += [f"> {command}", *theatre.play(command), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def judge(path: Path) -> None:
    text = path.read_text()
    assert played(text) == text


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_the_core_keeps_to_its_part(path, request):
    if request.config.getoption("rewrite_transcripts", default=False):
        path.write_text(played(path.read_text()))
    judge(path)


def test_there_are_dialogues():
    assert len(ALL) >= 8


def test_a_core_that_says_something_else_is_noticed():
    text = (FOLDER / "election.txt").read_text()
    assert "granted" in text
    assert played(text.replace("granted", "refused")) == text


def test_a_command_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match="no such command: dance"):
        played("> dance n1\n")
