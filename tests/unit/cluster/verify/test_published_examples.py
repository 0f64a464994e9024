"""Small histories whose verdicts are published, in the forms in which others record them.

Herlihy and Wing 1990, figure 1 (queues), and the examples with which Porcupine's and Elle's own
pages begin, retold; Berenson et al. 1995 (anomalies P0, P4, A5A and A5B, as appends to lists); a
lost update of TiDB's (Kingsbury and Alvaro 2020, §7.1).
"""

from __future__ import annotations

import json

import pytest

from cluster.verify.foreign import read_history
from cluster.verify.forms import model_of
from cluster.verify.verdict import judge_history

# -- one object: operations as Porcupine's, (client, call, return, operation, value)

REGISTERS = {
    "a read while it is written may see either": (
        "valid",
        [(0, 0, 100, "put", "100"), (1, 25, 75, "get", "100"), (2, 30, 60, "get", "0")],
    ),
    "but what one has seen, no later one misses": (
        "invalid",
        [(0, 0, 100, "put", "200"), (1, 10, 30, "get", "200"), (2, 40, 90, "get", "0")],
    ),
}


@pytest.mark.parametrize("name", REGISTERS)
def test_registers(name, tmp_path):
    verdict, rows = REGISTERS[name]
    # Porcupine's register begins with 0, ours with nothing; and ten more, for it to mean anything.
    first = [(9, -10 - i, -9.5 - i, "put", "0") for i in range(10)]
    path = tmp_path / "operations.jsonl"
    path.write_text(
        "".join(
            json.dumps(
                {
                    "ClientId": client,
                    "Input": {"Op": op, "Key": "x", "Value": value if op == "put" else ""},
                    "Call": called,
                    "Output": {"Value": value if op == "get" else ""},
                    "Return": returned,
                }
            )
            + "\n"
            for client, called, returned, op, value in [*first, *rows]
        )
    )
    assert judge_history(read_history(path), "register", limit_s=10).verdict == verdict


# -- a queue: Jepsen's edn, (process, call, return, operation, value)

QUEUES = {
    "H1": (
        "valid",  # x and y go in at once, so either may be first
        [
            (0, 1, 4, "enqueue", "x"),
            (1, 2, 3, "enqueue", "y"),
            (1, 5, 6, "dequeue", "x"),
            (2, 7, 8, "dequeue", "y"),
            (0, 9, 10, "enqueue", "z"),
        ],
    ),
    "H2": (
        "invalid",  # x went in first
        [(0, 1, 2, "enqueue", "x"), (1, 3, 4, "enqueue", "y"), (0, 5, 6, "dequeue", "y")],
    ),
    "H3": (
        "valid",  # taken before whoever put it there knows
        [(0, 1, 4, "enqueue", "x"), (1, 2, 3, "dequeue", "x")],
    ),
    "H4": (
        "invalid",  # y is taken twice
        [
            (0, 1, 4, "enqueue", "x"),
            (1, 2, 3, "enqueue", "y"),
            (0, 5, 6, "dequeue", "y"),
            (2, 7, 8, "dequeue", "y"),
        ],
    ),
}


def edn(rows) -> str:
    """Rows of (process, call, return, f, value asked, value answered), as Jepsen writes them."""
    events = []
    for process, called, returned, f, asked, answered in rows:
        for time, kind, value in ((called, "invoke", asked), (returned, "ok", answered)):
            event = f"{{:type :{kind}, :process {process}, :f :{f}, :value {value}"
            events.append((time, f"{event}, :time {int(time * 1e9)}}}"))
    return "\n".join(event for _, event in sorted(events))


@pytest.mark.parametrize("name", QUEUES)
def test_queues(name, tmp_path):
    verdict, rows = QUEUES[name]
    told = []
    for process, called, returned, f, value in rows:
        asked, answered = (f":{value}", "nil") if f == "enqueue" else ("nil", f":{value}")
        told.append((process, called, returned, f, asked, answered))
    # And ten that say nothing, for the rest to mean anything.
    told += [(9, 20 + i, 20.5 + i, "enqueue", f":later{i}", "nil") for i in range(10)]
    path = tmp_path / "history.edn"
    path.write_text(edn(told))
    assert judge_history(read_history(path), "queue", limit_s=10).verdict == verdict


# -- transactions: Elle's edn; all are under way at the same time, but for a last one that reads

TRANSACTIONS = {
    "Elle's first page": (
        "G1c",
        ["[[:append :x 1] [:r :y [1]]]", "[[:append :x 2] [:append :y 1]]", "[[:r :x [1 2]]]"],
        # One saw the other's y, and the other's x came behind its own.
        "T0 observed T1's append of 1 to 'y'",
    ),
    "P0, a dirty write": (
        "G0",
        ["[[:append :x 1] [:append :y 1]]", "[[:append :x 2] [:append :y 2]]"],
        "appended",
    ),
    "P4, a lost update: TiDB 2.1.7": (
        "G-single",
        ["[[:r :k [2 1]] [:append :l 5] [:append :k 4]]", "[[:append :k 5]]"],
        "did not observe",
    ),
    "A5A, a read askew": (
        "G-single",
        ["[[:append :x 1] [:append :y 1]]", "[[:r :x []] [:r :y [1]]]"],
        "did not observe T0's append of 1 to 'x'",
    ),
    "A5B, a write askew": (
        "G2",
        ["[[:r :x []] [:append :y 1]]", "[[:r :y []] [:append :x 1]]"],
        "did not observe",
    ),
    "and the same without a fault": (
        "",
        ["[[:r :x []] [:append :y 1]]", "[[:r :y [1]] [:append :x 1]]"],
        "",
    ),
}
LAST = {
    "P0, a dirty write": ["[[:r :x [1 2]] [:r :y [2 1]]]"],
    "P4, a lost update: TiDB 2.1.7": ["[[:r :k [2 1 5 4]]]"],
    "A5A, a read askew": ["[[:r :x [1]]]"],
    "A5B, a write askew": ["[[:r :x [1]] [:r :y [1]]]"],
    "and the same without a fault": ["[[:r :x [1]] [:r :y [1]]]"],
}
EARLIER = {"P4, a lost update: TiDB 2.1.7": ["[[:append :k 2] [:append :k 1]]"]}


@pytest.mark.parametrize("name", TRANSACTIONS)
def test_transactions(name, tmp_path):
    kind, rows, words = TRANSACTIONS[name]
    events = [(i, -2, -1, "txn", t, t) for i, t in enumerate(EARLIER.get(name, []))]
    events += [(i, 0, 10, "txn", t, t) for i, t in enumerate(rows)]
    events += [(7, 11, 12, "txn", t, t) for t in LAST.get(name, [])]
    path = tmp_path / "history.edn"
    path.write_text(edn(events))
    history = read_history(path)
    assert model_of(history) == "appends"
    wrong = [f for f in judge_history(history, "appends", limit_s=10).findings if f.where]
    assert [f.check.split(",")[0] for f in wrong] == ([kind] if kind else [])
    assert all(words in finding.sentence for finding in wrong)
