"""Histories of others, read as they were meant; and what is no history, told as such."""

from __future__ import annotations

import pytest

from cluster.verify.foreign import parse_edn, read_history
from cluster.verify.forms import model_of
from cluster.verify.history import FAIL, INFO, OK, UNKNOWN, HistoryError
from cluster.verify.linear import INVALID, VALID, judge_all
from cluster.verify.models import MODELS
from cluster.verify.verdict import judge_history


@pytest.fixture
def given(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


OURS = """
{"type": "invoke", "process": 1, "f": "write", "key": "x", "value": 5, "time": 0.1}
{"type": "invoke", "process": 2, "f": "read", "key": "x", "value": null, "time": 0.2}
{"type": "ok", "process": 1, "f": "write", "key": "x", "value": null, "time": 0.3}
{"type": "ok", "process": 2, "f": "read", "key": "x", "value": 5, "time": 0.4}
{"type": "invoke", "process": 2, "f": "write", "key": "x", "value": 6, "time": 0.5}
"""


def test_ours(given):
    write, read, open_ = read_history(given("history.jsonl", OURS))
    assert (write.f, write.key, write.value, write.result) == ("write", "x", 5, None)
    assert (read.process, read.result, read.called, read.returned) == (2, 5, 0.2, 0.4)
    assert (open_.outcome, open_.result, open_.returned) == (INFO, UNKNOWN, float("inf"))


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ("x", "line 1: not JSON"),
        ("[]", "line 1: not an event"),
        ('{"type": "invoke", "process": 1, "f": "read"}', "needs type, process, f and time"),
        ('{"type": "go", "process": 1, "f": "read", "time": 1}', "type is one of invoke, ok"),
        ('{"type": "ok", "process": 1, "f": "read", "time": 1}', "which asked nothing"),
        ('{"type": "invoke", "process": 1, "f": "read", "time": "1"}', "a number of seconds"),
        (
            '{"type": "invoke", "process": 1, "f": "read", "time": 2}\n'
            '{"type": "invoke", "process": 1, "f": "read", "time": 3}',
            "event 2: process 1 asks twice at once",
        ),
        (
            '{"type": "invoke", "process": 1, "f": "read", "time": 2}\n'
            '{"type": "ok", "process": 1, "f": "read", "time": 1}',
            "event 2: time goes back",
        ),
        (
            '{"type": "invoke", "process": 1, "f": "read", "time": 2}\n'
            '{"type": "ok", "process": 1, "f": "write", "time": 3}',
            "event 2: write answers read",
        ),
        (
            '{"type": "invoke", "process": 1, "f": "write", "time": 2}\n'
            '{"type": "info", "process": 1, "f": "write", "time": 3}\n'
            '{"type": "invoke", "process": 1, "f": "write", "time": 4}',
            "event 3: process 1 asks after an info",
        ),
    ],
)
def test_what_is_no_history_is_told_with_its_place(given, lines, why):
    with pytest.raises(HistoryError, match=why):
        read_history(given("history.jsonl", lines))


EDN = """
; a comment
{:type :invoke, :process 0, :f :write, :value 3, :time 1000000, :index 0}
{:type :info, :process :nemesis, :f :start, :value "cut off {:n1 #{:n2}}", :time 1500000}
{:type :invoke, :process 1, :f :cas, :value [3 4], :time 2000000}
{:type :ok, :process 0, :f :write, :value 3, :time 3000000}
{:type :ok, :process 1, :f :cas, :value [3 4], :time 4000000}
{:type :invoke, :process 0, :f :cas, :value [3 5], :time 5000000}
{:type :fail, :process 0, :f :cas, :value [3 5], :time 6000000}
{:type :invoke, :process 0, :f :read, :value nil, :time 7000000}
{:type :ok, :process 0, :f :read, :value 4, :time 8000000}
"""


def test_edn_of_jepsen(given):
    history = read_history(given("history.edn", EDN))
    assert [(o.f, o.value, o.result) for o in history] == [
        ("write", 3, None),
        ("cas", (3, 4), True),
        ("cas", (3, 5), False),
        ("read", None, 4),
    ]
    assert (history[0].called, history[0].returned) == (0.001, 0.003)
    assert judge_all(history, MODELS["register"])[0].verdict == VALID


def test_edn_of_a_vector_with_tags_and_keys_of_jepsen_independent(given):
    text = """[#jepsen.history.Op{:type :invoke, :process 0, :f :write, :value [7 3], :time 1}
               #jepsen.history.Op{:type :ok, :process 0, :f :write, :value [7 3], :time 2}
               #jepsen.history.Op{:type :invoke, :process 0, :f :read, :value [7 nil], :time 3}
               #jepsen.history.Op{:type :ok, :process 0, :f :read, :value [7 9], :time 4}]"""
    write, read = read_history(given("history.edn", text))
    assert (write.key, write.value, read.key, read.result) == (7, 3, 7, 9)
    assert judge_all([write, read], MODELS["register"])[0].verdict == INVALID


SET = """
{:type :invoke, :process 0, :f :add, :value 1, :time 1}
{:type :ok, :process 0, :f :add, :value 1, :time 2}
{:type :invoke, :process 0, :f :add, :value 2, :time 3}
{:type :ok, :process 0, :f :add, :value 2, :time 4}
{:type :invoke, :process 0, :f :read, :value nil, :time 5}
{:type :ok, :process 0, :f :read, :value CONTENT, :time 6}
"""


@pytest.mark.parametrize("content", ["#{1 2}", "[1 2]", "(1 2)"])
def test_a_set_of_two_elements_is_no_key_and_value(given, content):
    """Whoever asks for a key says so: the read of one is asked with [key nil]."""
    history = read_history(given("history.edn", SET.replace("CONTENT", content)))
    assert (history[-1].key, history[-1].result) == (None, (1, 2))
    assert model_of(history) == "set-full"
    assert judge_history(history, "set-full", limit_s=10).findings[-1].verdict == VALID


def test_a_set_that_is_read_under_a_key_is_not_split_either(given):
    text = """{:type :invoke, :process 0, :f :read, :value [7 nil], :time 3}
              {:type :ok, :process 0, :f :read, :value [7 #{1 2}], :time 4}"""
    (read,) = read_history(given("history.edn", text))
    assert (read.key, read.result) == (7, (1, 2))


SWAPS = """
{:type :invoke, :process 0, :f :write, :value 3, :time 1}
{:type :ok, :process 0, :f :write, :value 3, :time 2}
{:type :invoke, :process 1, :f :cas, :value [3 4], :time 3}
{:type :fail, :process 1, :f :cas, :value [3 4], :time 4ERROR}
{:type :invoke, :process 0, :f :read, :value nil, :time 5}
{:type :ok, :process 0, :f :read, :value 3, :time 6}
"""


@pytest.mark.parametrize(
    ("error", "outcome", "result", "verdict"),
    [
        ("", OK, False, INVALID),  # 3 was there, so it had to hold
        (", :error :connection-refused", FAIL, UNKNOWN, VALID),
        (', :error [:not-leader "n2"]', FAIL, UNKNOWN, VALID),
    ],
)
def test_a_swap_that_was_never_made_was_compared_with_nothing(
    given, error, outcome, result, verdict
):
    history = read_history(given("history.edn", SWAPS.replace("ERROR", error)))
    assert (history[1].outcome, history[1].result) == (outcome, result)
    assert judge_all(history, MODELS["register"])[0].verdict == verdict


def test_a_swap_that_was_never_made_in_what_jepsen_prints(given):
    log = LOG.replace("\t:fail\t:cas\t[2 4]", "\t:fail\t:cas\t[2 4]\t:connection-refused")
    history = read_history(given("etcd.log", log))
    assert (history[-1].f, history[-1].outcome) == ("cas", FAIL)
    assert judge_all(history, MODELS["register"])[0].verdict == VALID


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{:process 0}", "needs type, process, f and time"),
        ("{:type :invoke, :process 0, :f :read, :time :now}", "a number of nanoseconds"),
        ("{[1] 2}", "key of a map"),
        ("{:type :invoke, :process 0, :f [1], :time 1}", "f is a word"),
    ],
)
def test_events_of_edn_that_are_none_are_told(given, text, why):
    with pytest.raises(HistoryError, match=why):
        read_history(given("history.edn", text))


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("nil", None),
        (":timed-out", "timed-out"),
        ("-3", -3),
        ("2.5", 2.5),
        ('"a \\"b\\" ]"', 'a "b" ]'),
        ("[1 (2 3) {:a #{1}}]", [1, [2, 3], {"a": [1]}]),
    ],
)
def test_forms_of_edn(text, form):
    assert parse_edn(text) == form


@pytest.mark.parametrize("text", ["[1", "1 2", "]", "{:a}", ""])
def test_what_is_no_edn_is_refused(text):
    with pytest.raises(HistoryError):
        parse_edn(text)


LOG = """INFO  jepsen.util - 0\t:invoke\t:write\t2
INFO  jepsen.util - 1\t:invoke\t:read\tnil
INFO  jepsen.util - :nemesis\t:info\t:start\tnil
INFO  jepsen.util - 1\t:ok\t:read\t2
INFO  jepsen.util - 0\t:info\t:write\t:timed-out
INFO  jepsen.util - 1\t:invoke\t:cas\t[2 4]
INFO  jepsen.util - 1\t:fail\t:cas\t[2 4]
"""


def test_what_jepsen_prints(given):
    history = read_history(given("etcd.log", LOG))
    assert [(o.f, o.outcome, o.result) for o in history] == [
        ("write", INFO, UNKNOWN),
        ("read", OK, 2),
        ("cas", OK, False),
    ]
    # The comparison with 2 failed, and nobody wrote anything else.
    assert judge_all(history, MODELS["register"])[0].verdict == INVALID


PORCUPINE = """
{"ClientId":0,"Input":{"Op":"put","Key":"x","Value":"1"},"Call":0,"Output":{},"Return":100}
{"ClientId":1,"Input":{"Op":"get","Key":"x"},"Call":25,"Output":{"Value":"1"},"Return":75}
{"ClientId":2,"Input":{"Op":"put","Key":"x","Value":"2"},"Call":30}
{"ClientId":1,"Input":{"Op":"get","Key":"x"},"Call":110,"Output":{"Value":"2"},"Return":120}
"""


@pytest.mark.parametrize("one", ['"1"', "1"])
def test_operations_as_porcupines(given, one):
    history = read_history(given("operations.jsonl", PORCUPINE.replace('"1"', one)))
    assert [(o.process, o.f, o.outcome) for o in history] == [
        (0, "write", OK),
        (1, "read", OK),
        (2, "write", INFO),
        (1, "read", OK),
    ]
    assert judge_all(history, MODELS["register"])[0].verdict == VALID


def test_a_register_that_was_not_written_to_answers_with_an_empty_string_too(given):
    lines = PORCUPINE.strip().splitlines()
    unset = (
        lines[1].replace(":1,", ":7,", 1).replace('"x"', '"y"').replace('"Value":"1"', '"Value":""')
    )
    history = read_history(given("operations.jsonl", "\n".join([*lines, unset])))
    assert model_of(history) == "strings"
    assert {judged.verdict for judged in judge_all(history, MODELS["strings"])} == {VALID}


STRINGS = """
{"ClientId":0,"Input":{"Op":"get","Key":"x"},"Call":0,"Output":{"Value":""},"Return":1}
{"ClientId":0,"Input":{"Op":"put","Key":"x","Value":"a"},"Call":2,"Output":{},"Return":9}
{"ClientId":1,"Input":{"Op":"append","Key":"x","Value":"b"},"Call":3,"Output":{},"Return":8}
{"ClientId":2,"Input":{"Op":"append","Key":"x","Value":"c"},"Call":4}
{"ClientId":0,"Input":{"Op":"get","Key":"x"},"Call":10,"Output":{"Value":"%s"},"Return":11}
{"ClientId":0,"Input":{"Op":"get","Key":"y"},"Call":12,"Output":{},"Return":13}
"""


@pytest.mark.parametrize(
    ("told", "verdict"),
    [("a", VALID), ("ab", VALID), ("ac", VALID), ("abc", VALID), ("acb", VALID), ("ba", INVALID),
     ("b", INVALID), ("", INVALID), ("abb", INVALID)],
)  # fmt: skip
def test_strings_that_are_appended_to_as_porcupines_own_store(given, told, verdict):
    """What is not there is an empty string, whether that is written out or left away."""
    history = read_history(given("operations.jsonl", STRINGS % told))
    assert model_of(history) == "strings"
    assert max(j.verdict == INVALID for j in judge_all(history, MODELS["strings"])) is (
        verdict == INVALID
    )


KV_TXT = """{:process 4, :type :invoke, :f :append, :key "5", :value "x"}
{:process 1, :type :invoke, :f :get, :key "5", :value nil}
{:process 4, :type :ok, :f :append, :key "5", :value "x"}
{:process 1, :type :ok, :f :get, :key "5", :value "%s"}
"""


@pytest.mark.parametrize(("told", "verdict"), [("x", VALID), ("", VALID), ("y", INVALID)])
@pytest.mark.parametrize("name", ["c01-ok.txt", "history.edn", "history"])
def test_the_files_that_porcupine_itself_is_tried_with(given, name, told, verdict):
    """Maps of edn in a .txt."""
    history = read_history(given(name, KV_TXT % told))
    assert [judgement.verdict for judgement in judge_all(history, MODELS["strings"])] == [verdict]


def test_a_comment_may_end_a_file_of_edn(given):
    assert len(read_history(given("history.edn", EDN + "; the end"))) == 4
    assert parse_edn('["a;b" 1];c') == ["a;b", 1]


@pytest.mark.parametrize("text", [OURS, PORCUPINE, "\n  [" + EDN + "]", EDN])
def test_a_name_that_says_nothing_leaves_it_to_the_first_characters(given, text):
    assert len(read_history(given("history.txt", text))) >= 3


@pytest.mark.parametrize("name", ["none.edn", "none.jsonl", "none.log", "none.txt"])
@pytest.mark.parametrize("text", ["", "\n\n", "; nothing\n"])
def test_where_nothing_was_asked_there_is_no_history(given, name, text):
    if name == "none.jsonl" and ";" in text:
        text = "\n"
    with pytest.raises(HistoryError, match="there is no operation in it"):
        read_history(given(name, text))


def test_what_is_no_text_is_told_as_such(tmp_path):
    path = tmp_path / "history.edn"
    path.write_bytes(b"\x00\xff")
    with pytest.raises(HistoryError, match="is not text"):
        read_history(path)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"ClientId": 0, "Input": {}}', r"line 1: needs ClientId, Input.Op and Call"),
        ('{"ClientId": 0, "Input": {"Op": "get"}, "Call": "1"}', "needs ClientId"),
        ('{"ClientId": 0, "Input": {"Op": "get"}, "Call": 1, "Return": "2"}', "Return is a time"),
        (
            '{"ClientId": 0, "Input": {"Op": "get"}, "Call": 1, "Return": 2, "Output": "x"}',
            "Output a map",
        ),
        ('{"ClientId": [], "Input": {"Op": "get"}, "Call": 1}', "a number or a name"),
    ],
)
def test_operations_without_their_fields_are_refused(given, line, why):
    with pytest.raises(HistoryError, match=why):
        read_history(given("operations.jsonl", line))
