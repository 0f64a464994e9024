"""The event log: valid lines in a fixed form, in batches, and what kill -9 leaves of it."""

from __future__ import annotations

import contextlib
import json
import re
import resource

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runtime_kit import EPOCH, Hands, Later

from netstack.runtime.events import FLUSH_S, WAITING_MAX, EventLog, read_events
from netstack.runtime.runtime import RealRuntime

HEAD = ["v", "seq", "wall", "mono", "node", "kind"]


class Log:
    """A log on a clock moved by hand, into a list, with its flushes to be made by hand too."""

    def __init__(self) -> None:
        self.hands = Hands()
        self.later = Later()
        self.batches: list[str] = []
        self.events = EventLog("n1", self.hands.clock, self, self.later)
        self.refuses = False

    def write(self, text: str) -> None:
        if self.refuses:
            raise OSError("no room")
        self.batches.append(text)

    @property
    def lines(self) -> list[dict]:
        return [json.loads(line) for line in "".join(self.batches).splitlines()]

    def sequence(self) -> list[int]:
        return [line["seq"] for line in self.lines]


@pytest.fixture
def log():
    return Log()


def no_constants(name):
    raise ValueError(f"{name} is not JSON")


class TestALine:
    def test_is_as_it_is_shown(self, log):
        log.hands.true = 12.3456789
        log.events.emit("raft.role", "votes 2/3", role="leader", term=4)
        log.events.flush()
        assert log.batches == [
            '{"v":1,"seq":0,"wall":1800000012.345679,"mono":12.345679,"node":"n1",'
            '"kind":"raft.role","role":"leader","term":4,"cause":"votes 2/3"}\n'
        ]

    def test_begins_with_the_same_fields_and_has_the_cause_last(self, log):
        log.events.emit("a.b")
        log.events.emit("a.c", x=1)
        log.events.emit("a.d", cause="why", y=2, b=1)
        log.events.flush()
        fields = [list(line) for line in log.lines]
        assert fields == [HEAD, [*HEAD, "x"], [*HEAD, "y", "b", "cause"]]

    def test_shows_the_nodes_own_clock(self, log):
        log.hands.clock.set_rate(2.0)
        log.hands.clock.offset_s = 60.0
        log.hands.true = 5.0
        log.events.emit("a.b")
        log.events.flush()
        assert log.lines[0]["mono"] == 10.0
        assert log.lines[0]["wall"] == EPOCH + 65.0

    @settings(deadline=None, database=None, max_examples=100)
    @given(
        st.dictionaries(
            st.from_regex(r"[a-z_]{1,8}", fullmatch=True).filter(
                lambda name: name not in (*HEAD, "cause", "kind")
            ),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.text(max_size=10),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(st.text(max_size=5), inner, max_size=3)
                ),
                max_leaves=6,
            ),
            max_size=4,
        )
    )
    def test_is_one_line_of_json_whatever_the_values(self, fields):
        log = Log()
        log.events.emit("a.b", **fields)
        log.events.flush()
        (text,) = log.batches
        assert text.count("\n") == 1
        assert text.isascii()
        line = json.loads(text, parse_constant=no_constants)
        assert {name: line[name] for name in fields} == fields

    def test_shows_what_json_has_no_word_for_as_text(self, log):
        log.events.emit("a.b", key=b"\x00k", error=OSError(5, "no disk"))
        log.events.flush()
        assert log.lines[0]["key"] == r"b'\x00k'"
        assert log.lines[0]["error"] == "[Errno 5] no disk"

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_is_json_even_with_a_number_that_is_none(self, log, value):
        log.events.emit("a.b", rate=value)
        log.events.flush()
        json.loads(log.batches[0], parse_constant=no_constants)

    def test_keeps_its_head_whatever_the_fields_are_called(self, log):
        log.events.emit("a.b", node="n2", seq=17)
        log.events.flush()
        assert (log.lines[0]["node"], log.lines[0]["seq"]) == ("n1", 0)


class TestABatch:
    def test_is_written_once_a_while_however_many_lines_there_are(self, log):
        for number in range(100):
            log.events.emit("a.b", number=number)
        assert log.batches == []
        assert log.later.delays == [FLUSH_S]
        log.later.run()
        assert len(log.batches) == 1
        assert [line["number"] for line in log.lines] == list(range(100))

    def test_is_followed_by_another(self, log):
        log.events.emit("a.b")
        log.later.run()
        assert log.later.delays == []
        log.events.emit("a.c")
        assert log.later.delays == [FLUSH_S]
        log.later.run()
        assert log.sequence() == [0, 1]
        assert len(log.batches) == 2

    def test_that_is_empty_is_not_written(self, log):
        log.events.flush()
        log.events.emit("a.b")
        log.events.flush()
        log.later.run()
        assert len(log.batches) == 1

    def test_is_counted_without_gaps(self, log):
        for _ in range(5):
            log.events.emit("a.b")
            log.later.run()
            log.events.emit("a.c")
        log.events.flush()
        assert log.sequence() == list(range(10))
        assert repr(log.events) == "<EventLog n1 seq=10>"


class TestASinkThatFails:
    def test_has_the_lines_kept_for_the_next_time(self, log):
        log.events.emit("a.b")
        log.refuses = True
        with pytest.raises(OSError, match="no room"):
            log.events.flush()
        log.refuses = False
        log.events.emit("a.c")
        log.events.flush()
        assert log.sequence() == [0, 1]

    def test_is_tried_again_with_the_next_line(self, log):
        log.events.emit("a.b")
        log.refuses = True
        with pytest.raises(OSError, match="no room"):
            log.later.run()
        log.refuses = False
        log.events.emit("a.c")
        log.later.run()
        assert log.sequence()[-1] == 1

    def test_has_the_oldest_lines_dropped_and_counted(self, log):
        for _ in range(WAITING_MAX + 3):
            log.events.emit("a.b")
        log.events.flush()
        kept = sum(line["kind"] == "a.b" for line in log.lines)
        told = re.search(r"dropped\D+(\d+)", "".join(log.batches))
        assert kept <= WAITING_MAX
        assert told is not None
        assert int(told[1]) == WAITING_MAX + 3 - kept

    def test_has_them_counted_once_in_their_place(self, log, monkeypatch):
        log.events.emit("a.b")
        log.events.flush()
        log.refuses = True
        for _ in range(WAITING_MAX + 3):
            log.events.emit("a.b")
        for _ in range(2):
            with pytest.raises(OSError, match="no room"):
                log.events.flush()
            log.events.emit("a.b")
        log.refuses = False
        log.events.flush()
        log.events.emit("a.c")
        log.events.flush()
        notices = [line for line in log.lines if line["kind"] == "events.dropped"]
        assert [(notice["seq"], notice["lines"]) for notice in notices] == [(5, 5)]
        assert log.sequence() == [0, *range(5, WAITING_MAX + 7)]


class TestASubscriber:
    def test_hears_of_each_event_at_once(self, log):
        heard = []
        log.events.subscribers.append(lambda kind, fields: heard.append((kind, fields)))
        log.events.emit("a.b", "why", x=1)
        log.events.emit("a.c")
        assert heard == [("a.b", {"x": 1}), ("a.c", {})]
        assert log.batches == []

    def test_may_tell_of_something_itself(self, log):
        def answer(kind, _):
            if kind == "a.b":
                log.events.emit("a.c")

        log.events.subscribers.append(answer)
        log.events.emit("a.b")
        log.events.flush()
        assert [(line["seq"], line["kind"]) for line in log.lines] == [(0, "a.b"), (1, "a.c")]


class TestAReader:
    def test_finds_what_was_written(self, tmp_path, log):
        log.events.emit("a.b", x=1)
        log.events.emit("a.c", text="two\nlines")
        log.events.flush()
        (tmp_path / "log").write_text("".join(log.batches))
        assert list(read_events(tmp_path / "log")) == log.lines

    def test_passes_over_a_last_line_that_was_cut_short(self, tmp_path, log):
        log.events.emit("a.b")
        log.events.emit("a.c", text="grün")
        log.events.flush()
        whole = "".join(log.batches).encode()
        first = whole.index(b"\n") + 1
        for length in range(len(whole)):
            (tmp_path / "log").write_bytes(whole[:length])
            kinds = [event["kind"] for event in read_events(tmp_path / "log")]
            assert kinds == ["a.b"] * (length >= first - 1) + ["a.c"] * (length == len(whole) - 1)

    def test_passes_over_what_is_no_event(self, tmp_path):
        (tmp_path / "log").write_bytes(b'\n[1]\n3\n\xff\xfe\n{"kind":"a.b"}\nnonsense\n')
        assert list(read_events(tmp_path / "log")) == [{"kind": "a.b"}]


@contextlib.contextmanager
def files_no_longer_than(count):
    """A disk as good as full: a write beyond so many bytes is cut short, and then fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class TestTheLogOfARealNode:
    async def test_is_there_for_a_reader_as_soon_as_it_is_flushed(self, tmp_path):
        runtime = RealRuntime("n1", tmp_path)
        runtime.events.emit("a.b")
        runtime.events.flush()
        assert [event["kind"] for event in read_events(tmp_path / "events.jsonl")] == ["a.b"]
        runtime.close()

    async def test_has_its_last_lines_when_it_is_closed_and_takes_no_more(self, tmp_path):
        runtime = RealRuntime("n1", tmp_path)
        runtime.events.emit("a.b")
        runtime.close()
        runtime.events.emit("a.late")
        runtime.events.flush()
        assert [event["kind"] for event in read_events(tmp_path / "events.jsonl")] == ["a.b"]

    async def test_has_each_line_once_though_the_disk_was_full_at_first(self, tmp_path):
        runtime = RealRuntime("n1", tmp_path)
        runtime.events.emit("a.b")
        runtime.events.flush()
        runtime.events.emit("a.c")
        room = (tmp_path / "events.jsonl").stat().st_size + 10
        with files_no_longer_than(room), pytest.raises(OSError, match="large"):
            runtime.events.flush()
        runtime.events.emit("a.d")
        runtime.close()
        kinds = [event["kind"] for event in read_events(tmp_path / "events.jsonl")]
        assert kinds == ["a.b", "a.c", "a.d"]

    async def test_may_be_closed_though_the_disk_is_full(self, tmp_path):
        runtime = RealRuntime("n1", tmp_path)
        runtime.events.emit("a.b")
        with files_no_longer_than(10):
            runtime.close()
        assert (tmp_path / "events.jsonl").read_bytes() == b""

    async def test_goes_on_in_the_next_life(self, tmp_path):
        for _ in range(2):
            runtime = RealRuntime("n1", tmp_path)
            runtime.events.emit("node.start")
            runtime.close()
        events = list(read_events(tmp_path / "events.jsonl"))
        assert [(event["seq"], event["kind"]) for event in events] == [(0, "node.start")] * 2

    async def test_begins_the_next_life_on_a_line_of_its_own(self, tmp_path):
        (tmp_path / "events.jsonl").write_text('{"v":1,"seq":0,"kind":"a.b"}\n{"v":1,"se')
        runtime = RealRuntime("n1", tmp_path)
        runtime.events.emit("node.start")
        runtime.close()
        kinds = [event["kind"] for event in read_events(tmp_path / "events.jsonl")]
        assert kinds == ["a.b", "node.start"]
