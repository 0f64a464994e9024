"""Histories that no wrong system could have failed: nobody looked, or there was nothing to see."""

from __future__ import annotations

import pytest

from cluster.verify.history import operations
from cluster.verify.verdict import judge_history


def judged(model, *calls, times=1):
    """The verdict on calls (f, key, value, answer), one after the other, all answered."""
    events = []
    for i, (f, key, value, answer) in enumerate(calls * times):
        event = {"process": 0, "f": f, "key": key}
        events.append(event | {"type": "invoke", "value": value, "time": float(i)})
        events.append(event | {"type": "ok", "value": answer, "time": i + 0.5})
    return judge_history(operations(iter(events)), model, limit_s=10).verdict


def numbered(count, f, key=None, answer=None):
    return [(f, key, i, answer) for i in range(count)]


NOBODY = [
    ("register", numbered(50, "write", "x")),
    ("register", [("read", "x", None, None)] * 50),
    ("register", [*numbered(50, "write", "x"), *[("read", "y", None, None)] * 9]),
    ("register", [*[("read", "x", None, None)] * 9, *numbered(50, "write", "x")]),
    ("register", [("cas", "x", (1, 2), False)] * 20),
    ("kv", [("put", "x", i, i + 1) for i in range(50)]),
    ("kv", [("get", "x", None, None)] * 50),
    ("set", numbered(50, "add")),
    ("set", [("read", None, None, ())] * 50),
    ("queue", numbered(50, "enqueue")),
    ("queue", [("dequeue", None, None, None)] * 50),
    ("lock", [("release", "x", 7, False)] * 20),
    ("appends", [("txn", None, (("append", "x", i),), (("append", "x", i),)) for i in range(50)]),
    ("appends", [("txn", None, (("r", "x", None),), (("r", "x", None),))] * 50),
    (
        "appends",
        [
            ("txn", None, steps, steps)
            for i in range(20)
            for steps in [(("append", i, 1), ("r", i, (1,)))]
        ],
    ),
    ("counter", [("read", None, None, 0)] * 20),
    ("counter", numbered(20, "add")),
    ("counter", [*[("add", None, 0, None)] * 10, *[("read", None, None, 0)] * 10]),
    ("counter", [*[("read", None, None, 0)] * 10, *[("add", None, 1, None)] * 10]),
    ("bank", [("read", None, None, {"a": 5, "b": 5})] * 20),
    (
        "bank",
        [
            *[("read", None, None, {"a": 5, "b": 5})] * 20,
            *[("transfer", None, {"from": "a", "to": "a", "amount": 5}, None)] * 9,
            *[("transfer", None, {"from": "a", "to": "b", "amount": 0}, None)] * 9,
        ],
    ),
    ("leases", [("acquire", "job", None, None)] * 20),
    (
        "leases",
        [("acquire", "job", None, {"token": 1, "until": 9.0}), *[("work", "job", 1, True)] * 9],
    ),
    ("watches", [("put", f"w/{i}", "1", i + 1) for i in range(20)]),
    ("set-full", numbered(20, "add")),
    ("strings", [("append", "x", "a", None)] * 20),
    ("strings", [("get", "x", None, "")] * 20),
    ("total-queue", numbered(20, "enqueue")),
]


@pytest.mark.parametrize(
    ("model", "calls"), NOBODY, ids=lambda value: value if type(value) is str else ""
)
def test_where_nothing_could_be_wrong_nobody_knows(model, calls):
    assert judged(model, *calls) == "unknown"


SOMEBODY = [
    ("register", [*numbered(10, "write", "x"), ("read", "x", None, 9)]),
    ("register", [*numbered(10, "write", "x"), ("cas", "x", (9, 7), True)]),
    ("register", [*numbered(10, "write", "x"), ("cas", "x", (8, 7), False)]),
    ("kv", [*[("put", "x", i, i + 1) for i in range(9)], ("get", "x", None, (8, 9, 9))]),
    ("strings", [*[("append", "x", "a", None)] * 9, ("get", "x", None, 9 * "a")]),
    ("set", [*numbered(10, "add"), ("read", None, None, tuple(range(10)))]),
    ("queue", [*numbered(10, "enqueue"), ("dequeue", None, None, 0)]),
    (
        "lock",
        [
            (f, "x", v, r)
            for i in range(1, 6)
            for f, v, r in [("acquire", None, i), ("release", i, True)]
        ],
    ),
    (
        "appends",
        [
            *[("txn", None, (("append", "x", i),), (("append", "x", i),)) for i in range(10)],
            ("txn", None, (("r", "x", None),), (("r", "x", tuple(range(10))),)),
        ],
    ),
    ("counter", [*[("add", None, 2, None)] * 9, ("read", None, None, 18)]),
    (
        "bank",
        [
            *[("read", None, None, {"a": 5, "b": 5})] * 9,
            ("transfer", None, {"from": "a", "to": "b", "amount": 1}, None),
            ("read", None, None, {"a": 4, "b": 6}),
        ],
    ),
    (
        "leases",
        [
            ("acquire", "job", None, {"token": 1, "until": 3.0}),
            *[("work", "job", 1, True)] * 9,
            ("acquire", "job", None, {"token": 2, "until": 30.0}),
        ],
    ),
]


@pytest.mark.parametrize(
    ("model", "calls"), SOMEBODY, ids=lambda value: value if type(value) is str else ""
)
def test_where_something_could_it_is_valid(model, calls):
    assert judged(model, *calls) == "valid"
