"""Histories from elsewhere whose verdicts are known: the checker must say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cluster.verify.history import operations
from cluster.verify.verdict import judge_history

VECTORS = Path(__file__).parents[3] / "vectors" / "jepsen-etcd-histories.txt"
EVENT = re.compile(r"(\d+)(\?r|\?w\d|\?c\d,\d|![\d-]?|x|~)")
ASKS = {"r": "read", "w": "write", "c": "cas"}


def recorded() -> list[tuple[str, str, list[str]]]:
    """(name, verdict, events) of each history in the file."""
    found = []
    for part in VECTORS.read_text().split("history ")[1:]:
        head, _, body = part.partition("\n")
        name, verdict = head.split()
        found.append((name, verdict, body.split()))
    return found


def as_history(words):
    """Its operations, with one second from each event to the next."""
    under_way, events = {}, []
    for time, word in enumerate(words):
        process, what = EVENT.fullmatch(word).groups()
        if what[0] == "?":
            numbers = [int(number) for number in re.findall(r"\d", what)]
            f = ASKS[what[1]]
            value = {"read": None, "write": numbers[0] if numbers else None, "cas": numbers}[f]
            under_way[process] = f
            event = {"type": "invoke", "f": f, "value": value}
        else:
            f = under_way.pop(process)
            kind = {"!": "ok", "x": "fail", "~": "info"}[what[0]]
            answer = None if what[1:] in ("", "-") else int(what[1:])
            event = {"type": kind, "f": f, "value": True if f == "cas" else answer}
        events.append({**event, "process": process, "key": "r", "time": float(time)})
    return operations(events)


@pytest.mark.parametrize(("name", "verdict", "words"), recorded(), ids=lambda x: str(x)[:8])
def test_the_verdict_is_the_known_one(name, verdict, words):
    assert judge_history(as_history(words), "register", limit_s=60).verdict == verdict


def test_one_wrong_answer_in_the_valid_one_is_seen():
    (words,) = [words for _, verdict, words in recorded() if verdict == "valid"]
    words[words.index("0!1")] = "0!2"  # what was there before, and nobody can have put back
    assert judge_history(as_history(words), "register", limit_s=60).verdict == "invalid"
