"""The timeline of all ranks, and what `auto` says of itself."""

from __future__ import annotations

from ddp_kit import SharedRanks, results

from ddp.local import make_local
from ddp.recorder import Record, Recorder, chrome_trace


def dump(rank, clock, began, now, size=2):
    """Of a rank that made one call, a second long, at `began` by its clock."""
    recorder = Recorder(rank, size, 1)
    recorder.records.append(Record(0, "barrier()", began, ended=began + 1.0, outcome="done"))
    return recorder.dump(now, clock)


def starts(*dumps):
    """By rank, in seconds."""
    events = chrome_trace(dumps)["traceEvents"]
    return [(event["pid"], event["ts"] / 1e6) for event in events if event["ph"] == "X"]


def test_ranks_of_one_host_are_laid_side_by_side_by_their_common_clock():
    found = starts(dump(0, "here", 100.0, 105.0), dump(1, "here", 100.5, 105.2))
    assert found == [(0, 100.0), (1, 100.5)]


def test_the_clock_of_another_host_is_shifted_to_that_of_rank_0():
    found = starts(dump(0, "here", 100.0, 105.0), dump(1, "there", 7000.5, 7005.0))
    assert found == [(0, 100.0), (1, 100.5)]


def test_each_group_has_a_moment_of_its_own():
    first = dump(0, "here", 100.0, 105.0), dump(1, "there", 7000.5, 7005.0)
    second = dump(0, "here", 200.0, 205.0), dump(1, "there", 7101.5, 7106.0)
    assert starts(*first, *second) == [(0, 100.0), (1, 100.5), (0, 200.0), (1, 200.5)]


def test_ranks_of_this_host_say_that_they_have_one_clock():
    def work(group):
        group.barrier()
        return group.fabric.dump()

    with SharedRanks(2) as groups:
        dumps = results(groups, work)
        assert dumps[0]["clock"] == dumps[1]["clock"] != ""
        assert groups[0].explain(4096) == (
            "recursive-doubling: over shared memory there is nothing to choose"
        )


def test_where_there_is_a_choice_all_are_named_with_what_is_expected_of_them():
    said = make_local(4)[0].explain(64)
    assert said.startswith("α 60.0 µs a message")
    assert said.count(" µs") == 1 + 5
