"""By what a history is judged: by its words and its answers, and never by what it is not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.verify.forms import FORMS, NoModel, model_of
from cluster.verify.history import HistoryError, operations
from cluster.verify.verdict import KNOWN, judge_history


def history(*rows):
    """(f, value, answer), one after the other; "fail" and "info" are what they are."""
    events = []
    for at, (f, value, answer) in enumerate(rows):
        event = {"process": at, "f": f, "key": "k"}
        end = {"type": answer} if answer in ("fail", "info") else {"type": "ok", "value": answer}
        events.append(event | {"type": "invoke", "value": value, "time": float(at)})
        events.append(event | {"value": value} | end | {"time": at + 0.5})
    return operations(events)


RECORDED = {
    "register": [("write", 1, None), ("cas", [1, 2], True), ("read", None, [1, 2])],
    "kv": [("put", "a", 7), ("cas", ["a", "b"], [True, 8]), ("get", None, ["b", 8, 2])],
    "strings": [("append", "a", None), ("put", "b", None), ("get", None, "b")],
    "set-full": [("add", 1, None), ("read", None, [1])],
    "set": [("add", 1, None), ("remove", 1, None), ("read", None, [])],
    "counter": [("add", 3, None), ("read", None, 3)],
    "lock": [("acquire", None, 3), ("release", 3, True)],
    "leases": [("acquire", None, {"token": 3, "until": 1.5}), ("release", 3, True)],
    "total-queue": [("enqueue", 1, None), ("dequeue", None, None), ("drain", None, [1])],
    "appends": [("txn", [["append", "x", 1]], [["append", "x", 1]])],
    "bank": [
        ("transfer", {"from": "a", "to": "b", "amount": 1}, None),
        ("read", None, {"a": 1, "b": 2}),
    ],
    "watches": [("put", "a", 3), ("watch", 1, [[3, "k", "a"]])],
    "at-most-once": [("request", "1", None), ("executed", "1", None)],
    "ids": [("generate", None, "n2-17")],
}


@pytest.mark.parametrize("model", RECORDED)
def test_it_is_known_by_its_words_and_answers(model):
    assert model_of(history(*RECORDED[model])) == model


def test_every_model_has_its_forms():
    assert set(FORMS) == set(KNOWN)
    assert set(RECORDED) == set(KNOWN) - {"queue"}  # of which nothing but words could tell


@pytest.mark.parametrize("model", KNOWN)
@pytest.mark.parametrize("recorded", RECORDED)
def test_it_is_judged_by_what_it_fits_or_refused_with_what_does_not(model, recorded):
    """Each by each: never a traceback, and no verdict on what the model does not know."""
    rows = RECORDED[recorded]
    told = verdict_or_sentence(rows, model)
    if {f for f, _, _ in rows} <= set(FORMS[model]) and recorded == model:
        assert told in ("valid", "invalid", "unknown")
    if not {f for f, _, _ in rows} <= set(FORMS[model]):
        assert f": {model} knows " in told


def verdict_or_sentence(rows, model) -> str:
    try:
        return judge_history(history(*rows), model, limit_s=5).verdict
    except HistoryError as error:
        return str(error)


def test_a_counter_that_is_judged_as_a_set_is_refused_with_its_answer():
    with pytest.raises(HistoryError, match=r"read k -> 3>: read of set is answered with a list"):
        judge_history(history(*RECORDED["counter"]), "set", limit_s=10)


@pytest.mark.parametrize(
    ("rows", "which"),
    [
        ([("enqueue", 1, None), ("dequeue", None, 1)], "--model queue or --model total-queue"),
        ([("acquire", None, None), ("release", 3, False)], "--model lock or --model leases"),
    ],
)
def test_where_nobody_can_tell_it_has_to_be_said(rows, which):
    with pytest.raises(NoModel, match=which):
        model_of(history(*rows))


def test_answers_of_nobodys_form_are_told():
    with pytest.raises(HistoryError, match="read of set-full is answered"):
        model_of(history(("add", 1, None), ("read", None, "many")))


def test_what_was_not_answered_tells_nothing():
    assert model_of(history(("add", 3, "info"), ("read", None, "fail"), ("read", None, 3))) == (
        "counter"
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats(0, 9) | st.sampled_from("abk"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=6,
)
SHAPED = st.sampled_from([value for rows in RECORDED.values() for _, value, _ in rows])
ANSWERED = st.sampled_from([answer for rows in RECORDED.values() for _, _, answer in rows])


@pytest.mark.parametrize("model", KNOWN)
def test_whatever_is_recorded_gets_a_verdict_or_a_sentence(model):
    rows = st.lists(
        st.tuples(
            st.sampled_from(sorted(FORMS[model])),
            SHAPED | JSON,
            ANSWERED | JSON | st.sampled_from(["fail", "info"]),
        ),
        max_size=5,
    )

    @settings(max_examples=150, deadline=None)
    @given(rows)
    def judged(drawn):
        assert verdict_or_sentence(drawn, model)

    judged()
