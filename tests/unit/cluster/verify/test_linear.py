"""Linearizability: named histories, and agreement with a judge that tries every order."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verify_kit import drawn, in_order, is_right, op, respects_time

from cluster.verify.history import INFO, OK
from cluster.verify.linear import INVALID, UNSURE, VALID, judge, judge_all, parts
from cluster.verify.models import MODELS

REGISTER = MODELS["register"]


def verdict(history, model=REGISTER):
    return judge(None, history, model, lambda: False).verdict


RIGHT = {
    "nothing": "",
    "a read of what nobody wrote yet": "[read -]",
    "one after the other": "[write 1] [read 1] [write 2] [read 2]",
    "a read beside a write may see either": """
[write 1]  [write 2      ]
            [read 1]
               [read 2]
""",
    "two reads beside a write see it come": """
[write 1]  [write 2                    ]
             [read 1]   [read 2]
""",
    "what touches in time is beside each other": """
[write 1]
        [read -]
""",
    "a write of which nobody knows was done, much later": """
[write 1~
           [read -]      [read 1]
""",
    "or never": """
[write 1~
           [read -]      [read -]
""",
    "an unknown write that is kept for later": """
[write 5]  [write 1 ]
           [cas 5 1    ]
           [write 5~
                         [read 1]   [read 5]
""",
    "of two unknown ways to 5 the one that will not do later": """
[write 0]  [write 5~
             [cas 0 5~
                       [read 5]   [write 7]   [read 5]
""",
    "a chain of unknown writes": """
[cas - 1~
[cas 1 2~
[cas 2 3~
             [read -]   [read 3]
""",
}

WRONG = {
    "a read of what nobody wrote": "[read 1]",
    "a stale read": "[write 1] [write 2] [read 1]",
    "a read that sees a write come and go": """
[write 1]  [write 2                        ]
             [read 2]   [read 1]
""",
    "an unknown write that came and went": """
[write 1~
           [read 1]   [read -]
""",
    "a lost update": """
[write 0] [cas 0 1]
           [cas 0 2]
                         [read 1]
""",
    "a refusal without reason": "[write 1] [cas 1 2 no]",
    "an unknown write before it was asked for": """
                 [write 1~
      [read 1]
""",
}


@pytest.mark.parametrize("name", RIGHT)
def test_right(name):
    history = drawn(RIGHT[name])
    assert verdict(history) == VALID
    assert in_order(history, REGISTER)


@pytest.mark.parametrize("name", WRONG)
def test_wrong(name):
    history = drawn(WRONG[name])
    assert verdict(history) == INVALID
    assert not in_order(history, REGISTER)


# -- against the judge that tries every order


@st.composite
def histories(draw, calls, outcomes):
    """Up to six operations of three processes, whatever they answer."""
    found, now = [], [0, 0, 0]
    for index in range(draw(st.integers(0, 6))):
        process = draw(st.integers(0, 2))
        f, value, result = draw(calls)
        called = now[process] + draw(st.integers(1, 3))
        returned = called + draw(st.integers(0, 6))
        outcome = draw(outcomes)
        now[process] = math.inf if outcome == INFO else returned
        if now[process] == math.inf:
            now[process] = 1000 + index  # a new process takes its place
        found.append(op(index, process, f, value, result, called, returned, outcome=outcome))
    return found


VALUES = st.integers(0, 2)
REGISTER_CALLS = st.one_of(
    st.tuples(st.just("read"), st.none(), st.one_of(st.none(), VALUES)),
    st.tuples(st.just("write"), VALUES, st.none()),
    st.tuples(st.just("cas"), st.tuples(VALUES, VALUES), st.booleans()),
)
QUEUE_CALLS = st.one_of(
    st.tuples(st.just("enqueue"), VALUES, st.none()),
    st.tuples(st.just("dequeue"), st.none(), st.one_of(st.none(), VALUES)),
)
SET_CALLS = st.one_of(
    st.tuples(st.sampled_from(("add", "remove")), VALUES, st.none()),
    st.tuples(st.just("read"), st.none(), st.lists(VALUES, unique=True).map(tuple)),
)
LOCK_CALLS = st.one_of(
    st.tuples(st.just("acquire"), st.none(), st.one_of(st.none(), st.integers(1, 3))),
    st.tuples(st.just("release"), st.integers(1, 3), st.booleans()),
)
REVISIONS = st.integers(1, 4)
KV_CALLS = st.one_of(
    st.tuples(st.just("put"), VALUES, REVISIONS),
    st.tuples(
        st.just("get"), st.none(), st.one_of(st.none(), st.tuples(VALUES, REVISIONS, REVISIONS))
    ),
    st.tuples(st.just("delete"), st.none(), st.tuples(st.booleans(), REVISIONS)),
    st.tuples(
        st.just("cas"),
        st.tuples(st.one_of(st.none(), VALUES), VALUES),
        st.tuples(st.booleans(), REVISIONS),
    ),
)
CALLS = {
    "register": REGISTER_CALLS,
    "queue": QUEUE_CALLS,
    "set": SET_CALLS,
    "lock": LOCK_CALLS,
    "kv": KV_CALLS,
}


@pytest.mark.parametrize("known", [3, 0.7], ids=["mostly known", "mostly unknown"])
@pytest.mark.parametrize("name", CALLS)
def test_it_agrees_with_the_judge_that_tries_every_order(name, known):
    model = MODELS[name]
    outcomes = st.sampled_from([OK] * int(10 * known) + [INFO] * 10)

    @settings(max_examples=400)
    @given(histories(CALLS[name], outcomes))
    def agree(history):
        judged = [o for part in parts(history, model).values() for o in part]
        found = judge(None, judged, model, lambda: False)
        assert (found.verdict == VALID) == in_order(judged, model)
        # The order that it shows is one, as far as it goes.
        assert respects_time(found.order)
        assert is_right(found.order, model)
        known = [o for o in judged if o.outcome != INFO]
        if found.verdict == VALID:
            assert {o.index for o in known} <= {o.index for o in found.order}
        else:
            assert found.stuck

    agree()


# -- what really happened is right, and what did not is found


def happened(seed, count, clients, keys, unknown=0.0):
    """A history of a right register: each operation has its moment between call and answer."""
    rng = random.Random(seed)
    free_at, moments = [rng.random() for _ in range(clients)], []
    for index in range(count):
        client = min(range(clients), key=lambda c: free_at[c])
        called = free_at[client]
        moment = called + rng.random()
        returned = moment + rng.random()
        free_at[client] = returned + rng.random() / 10
        moments.append((moment, index, client, called, returned))
    state, found = {}, []
    for _, index, client, called, returned in sorted(moments):
        key, f = rng.randrange(keys), rng.choice(("read", "write", "cas"))
        value, result = None, state.get(key)
        if f == "write":
            value, result = rng.randrange(5), None
            state[key] = value
        elif f == "cas":
            value = (rng.randrange(5), rng.randrange(5))
            result = state.get(key) == value[0]
            if result:
                state[key] = value[1]
        outcome = INFO if rng.random() < unknown else OK
        name = (client, index) if outcome == INFO else client
        found.append(op(index, name, f, value, result, called, returned, key=key, outcome=outcome))
    return found


@pytest.mark.parametrize("unknown", [0.0, 0.02])
@pytest.mark.parametrize("seed", range(5))
def test_what_happened_is_valid(seed, unknown):
    history = happened(seed, 3000, 5, 30, unknown)
    assert {j.verdict for j in judge_all(history, REGISTER)} == {VALID}


@pytest.mark.parametrize("seed", range(5))
def test_one_answer_from_before_is_found_among_thousands(seed):
    history = happened(seed, 3000, 5, 30)
    rng = random.Random(seed)
    reads = [i for i, o in enumerate(history) if o.f == "read" and o.result is not None]
    at = rng.choice(reads)
    lie = history[at]
    history[at] = op(
        lie.index, lie.process, "read", None, 77, lie.called, lie.returned, key=lie.key
    )
    worst = judge_all(history, REGISTER)[0]
    assert (worst.verdict, worst.part) == (INVALID, lie.key)
    assert history[at] in worst.stuck
    assert repr(history[at]) in worst.sentence


def test_a_hundred_thousand_operations_take_a_look_each_or_little_more():
    history = happened(1, 100_000, 10, 1000)
    judged = judge_all(history, REGISTER)
    assert {j.verdict for j in judged} == {VALID}
    assert sum(j.looked_at for j in judged) < 110_000


def test_cores_change_nothing():
    history = happened(3, 2000, 5, 20, 0.02)
    alone, together = (judge_all(history, REGISTER, processes=n) for n in (1, 3))
    assert [(j.part, j.verdict) for j in alone] == [(j.part, j.verdict) for j in together]


def test_time_that_runs_out_is_told_as_such():
    # Twelve writes at once and a read of none of them: each order has to be tried.
    history = [op(i, i, "write", i, None, 0, 100) for i in range(12)]
    history += [op(12 + i, 20 + i, "cas", (i, 50 + i), True, 0, 100) for i in range(12)]
    history.append(op(99, 99, "read", None, -1, 50, 100))
    looks = iter([False, False, True])
    assert judge(None, history, REGISTER, lambda: next(looks)).verdict == UNSURE


def test_many_unknown_writes_cost_little():
    """Without preferring few of them, each would double the search: 2 ** 60."""
    history = [op(i, 100 + i, "write", i, None, i / 100, 0, outcome=INFO) for i in range(60)]
    history += [op(100 + i, 0, "read", None, i, 10 + 2 * i, 11 + 2 * i) for i in range(60)]
    found = judge(None, history, REGISTER, lambda: False)
    assert found.verdict == VALID
    assert found.looked_at < 1000
    history[-1] = op(159, 0, "read", None, 5, 200, 201)
    assert verdict(history) == INVALID
