"""Planted bugs of the presets and the tunnel, and the test that catches each.

A judge is a test that passes elsewhere; here it must fail.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from pathlib import Path

import presets_bugs as bugs
import pytest
from evidence import caught

TESTS = Path(__file__).resolve().parents[1]
for folder in ("unit/presets", "simulation", "integration"):
    sys.path.insert(0, str(TESTS / folder))
jitter = importlib.import_module("test_jitter")
rtp = importlib.import_module("test_rtp")
presets = importlib.import_module("test_presets_sim")
tunnels = importlib.import_module("test_tunnel")
formula, buffer, estimate = jitter.TestFormula(), jitter.TestBuffer(), jitter.TestEstimate()
numbers = rtp.TestUnwrapped()
datagrams, streams, media = presets.TestDatagrams(), presets.TestByteStream(), presets.TestMedia()


SIZE, BUFFER, ESTIMATE = (
    f"test_jitter.{name}" for name in ("segments_needed", "JitterBuffer", "JitterEstimate")
)
NUMBERS = "test_rtp.Unwrapped"
DATAGRAMS, STREAMS = "presets_kit.DatagramSocket", "presets_kit.StreamSocket"
STREAM = "netstack.presets.bytestream.ByteStream"
ENDS = "netstack.presets.datagrams.Connections"

ZOO = [
    (
        bugs.rounds_down,
        SIZE,
        formula.test_is_enough_and_one_less_is_not_for_all_small_paths,
        "assert buffer.concealed == 0, (delays, headway)",
    ),
    (
        bugs.divides_by_the_mean_delay,
        SIZE,
        formula.test_is_enough_and_one_less_is_not_for_all_small_paths,
        "assert buffer.concealed == 0, (delays, headway)",
    ),
    (
        bugs.takes_one_more_to_be_safe,
        SIZE,
        formula.test_is_enough_and_one_less_is_not_for_all_small_paths,
        "assert buffer.late == 1, (spread, headway)",
    ),
    (
        bugs.BeginsWithTheLastOfTheFirst,
        BUFFER,
        formula.test_is_enough_and_one_less_is_not_for_all_small_paths,
        "assert buffer.concealed == 0, (delays, headway)",
    ),
    (
        bugs.PlaysFromTheFirstToArrive,
        BUFFER,
        buffer.test_begins_with_what_was_overtaken_if_its_time_is_to_come,
        'assert buffer.play(120) == [Slot(6, 110, b"g"), Slot(7, 120, b"h")]',
    ),
    (
        bugs.PlaysWhatIsLate,
        BUFFER,
        buffer.test_drops_what_is_late_and_counts_it_once,
        "assert buffer.play(20) == [Slot(2, 20, None)]",
    ),
    (
        bugs.WaitsForWhatIsMissing,
        BUFFER,
        buffer.test_falls_silent_at_the_end_of_a_stream,
        "assert len(slots) == 1 + STALL_SLOTS",
    ),
    (
        bugs.TakesCopiesForLate,
        BUFFER,
        buffer.test_plays_a_segment_once_however_many_copies_come,
        "assert (buffer.played, buffer.unwanted, buffer.late) == (1, 3, 0)",
    ),
    (
        bugs.KeepsWhateverComes,
        BUFFER,
        buffer.test_holds_no_more_than_its_bound_whatever_is_sent,
        "assert len(buffer) == AHEAD_MAX + 1",
    ),
    (
        bugs.DoesNotSmooth,
        ESTIMATE,
        estimate.test_is_moved_by_a_sixteenth_of_what_differs,
        "assert estimate.jitter == 160 // 16",
    ),
    (
        bugs.DoesNotWrap,
        NUMBERS,
        numbers.test_goes_on_where_the_counter_begins_again,
        "assert seen == [65_534, 65_535, 65_536, 65_537]",
    ),
    (
        bugs.DoesNotWrap,
        "netstack.presets.media.Unwrapped",
        media.test_is_played_in_step_across_the_wrap_of_sequence_and_timestamp,
        'assert [slot.payload for slot in slots] == [b"%d" % i for i in',
    ),
    (
        bugs.TakesLateForTheNextRound,
        NUMBERS,
        numbers.test_knows_what_comes_late_from_before_the_wrap,
        "assert [numbers.extend(n) for n in (65_535, 1, 0, 65_534)] == [ 65_535,",
    ),
    (
        bugs.KnowsOneRoundOnly,
        NUMBERS,
        numbers.test_goes_on_round_after_round,
        "assert [numbers.extend(n % 65_536) for n in sent] == list(sent)",
    ),
    (
        bugs.HasCongestionControl,
        DATAGRAMS,
        datagrams.test_have_no_congestion_control_that_delays_them,
        "assert max(delays) <= DELAY_S + 0.1 + 1e-6",
    ),
    (
        bugs.SendsToBeSure,
        DATAGRAMS,
        datagrams.test_arrive_once_on_a_link_that_doubles,
        'assert [data for data, _ in server._received] == [b"%d" % i for i in',
    ),
    (
        bugs.JoinsMessages,
        DATAGRAMS,
        datagrams.test_keep_their_boundaries,
        "TimeoutError: assert [(await server.receive())[0] for _ in messages] == messages",
    ),
    (
        bugs.KeepsAllThatNobodyReads,
        DATAGRAMS,
        datagrams.test_that_nobody_reads_are_dropped_beyond_a_bound,
        "assert len(server._received) == RECEIVED_MAX",
    ),
    (
        bugs.TalksToAnybody,
        ENDS,
        datagrams.test_of_a_stranger_are_not_taken,
        "assert not server._received",
    ),
    (
        bugs.ClosesForHalfClosing,
        STREAM,
        streams.test_half_closed_one_way_carries_on_the_other,
        'TimeoutError: assert await read_all(here) == b"a long answer"',
    ),
    (
        bugs.EndsWhenTheOtherDoes,
        STREAM,
        streams.test_half_closed_one_way_carries_on_the_other,
        "StreamReset: await there.write(part)",
    ),
    (
        bugs.ResetsLikeAnEnd,
        STREAM,
        streams.test_reset_breaks_both_directions_at_the_other_end_with_its_code,
        "with pytest.raises(StreamReset) as caught:",
    ),
    (
        bugs.SwallowsWhatComesAfterClose,
        STREAM,
        streams.test_closed_answers_what_still_comes_by_a_reset,
        "with pytest.raises(StreamReset) as caught:",
    ),
    (
        bugs.RemembersAll,
        STREAM,
        streams.test_closed_at_both_ends_leaves_nothing_behind,
        "assert not streams",
    ),
    (
        bugs.ForgetsItsConnection,
        STREAM,
        streams.test_breaks_when_the_other_end_was_killed_and_a_new_one_can_be_had,
        "assert [error.code for error in told] == [LOST]",
    ),
    (
        bugs.AcceptsWithoutEnd,
        STREAMS,
        streams.test_is_refused_beyond_the_backlog,
        "assert sum(task.done() for task in tries) == 3 # refused; two wait to",
    ),
]

ENTRY, EXIT = "netstack.tunnel.entry.Relay", "netstack.tunnel.exit.Relay"
ends, pressure = tunnels.TestEnds(), tunnels.TestPressure()

TUNNELS = [
    (
        bugs.RelayThatClosesForHalfClosing,
        ENTRY,
        ends.test_a_half_closed_connection_carries_on_the_other_way,
        'assert await ask(tunnel, b"question") == b"late answer"',
    ),
    (
        bugs.RelayThatEndsForAReset,
        ENTRY,
        ends.test_a_reset_is_carried_to_the_target,
        'assert await asyncio.wait_for(seen, PATIENCE_S) == "a reset"',
    ),
    (
        bugs.RelayThatTakesAllItGets,
        EXIT,
        pressure.test_a_target_that_does_not_read_stops_the_writer,
        "assert STREAM_WINDOW < sent < held + 24_000_000",
    ),
    (
        bugs.RelayThatDoesNotLook,
        ENTRY,
        pressure.test_a_target_that_does_not_read_stops_the_writer,
        "await until(lambda: not tunnel.exit._tasks",
    ),
]


def _id(value: object) -> str:
    return "" if isinstance(value, str) else getattr(value, "__name__", "").strip("<>")


@pytest.mark.parametrize(("bug", "where", "judge", "by"), ZOO, ids=_id)
def test_the_bug_is_caught(bug, where, judge, by, monkeypatch):
    with monkeypatch.context() as planted:
        planted.setattr(where, bug)
        with caught(by):
            judge()


@pytest.mark.parametrize(("bug", "where", "judge", "by"), TUNNELS, ids=_id)
def test_the_bug_of_a_tunnel_is_caught(bug, where, judge, by, tmp_path, monkeypatch):
    with monkeypatch.context() as planted:
        planted.setattr(where, bug)
        for module in ("test_tunnel", "tunnel_kit"):
            planted.setattr(f"{module}.PATIENCE_S", 2)  # it is in vain
        with caught(by):
            judge(asyncio.run, tmp_path, planted)
