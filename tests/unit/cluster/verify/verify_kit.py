"""Histories in a few words, and the slow and simple judge that the fast one must agree with."""

from __future__ import annotations

import math
from itertools import combinations, permutations

from cluster.verify.history import INFO, OK, UNKNOWN, Operation
from cluster.verify.models import REFUSED, Model

NAMES = {"-": None, "no": False}


def op(index, process, f, value, result, called, returned, *, key=None, outcome=OK):
    """An operation; `outcome` INFO: nobody knows."""
    if outcome == INFO:
        result, returned = UNKNOWN, math.inf
    return Operation(index, process, f, key, value, outcome, result, called, returned)


def drawn(picture: str, key=None) -> list[Operation]:
    """A history from a picture: a row a process, `[` its call, `]` its answer, `~` none ever.

    [write 1   ]
        [read 1]
    """
    found = []
    for process, row in enumerate(picture.strip("\n").splitlines()):
        at = 0
        while "[" in row[at:]:
            begin = row.index("[", at)
            end = min(e for e in (row.find("]", begin), row.find("~", begin)) if e > 0)
            words = row[begin + 1 : end].split()
            unknown = row[end] == "~"
            f, *arguments = words
            numbers = [NAMES[word] if word in NAMES else int(word) for word in arguments]
            value, result = _meant(f, numbers)
            outcome = INFO if unknown else OK
            item = op(0, process, f, value, result, begin, end, key=key, outcome=outcome)
            found.append(item)
            at = end + 1
    return sorted(found, key=lambda item: item.called)


def _meant(f, numbers):
    if f == "read":
        return None, numbers[0] if numbers else None
    if f == "cas":
        old, new, *answer = numbers
        return (old, new), answer != [False]
    return numbers[0], None


def in_order(history: list[Operation], model: Model) -> bool:
    """Whether any of all orders of them, with any of the unknown ones, is right. Slow."""
    known = [o for o in history if o.outcome != INFO]
    unknown = [o for o in history if o.outcome == INFO]
    for count in range(len(unknown) + 1):
        for chosen in combinations(unknown, count):
            for order in permutations([*known, *chosen]):
                if respects_time(order) and is_right(order, model):
                    return True
    return False


def respects_time(order) -> bool:
    """Whether nothing comes after what was called when it had its answer already."""
    latest = -math.inf
    for item in order:
        if item.returned < latest:
            return False
        latest = max(latest, item.called)
    return True


def is_right(order, model) -> bool:
    """Whether a correct system could have answered so, one after the other."""
    state = model.initial
    for item in order:
        state = model.step(state, item)
        if state is REFUSED:
            return False
    return True
