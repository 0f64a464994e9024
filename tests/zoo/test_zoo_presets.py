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

from netstack.transport.errors import TransportError

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

CAUGHT = (AssertionError, OSError, TransportError, BaseExceptionGroup, pytest.fail.Exception)

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
    ),
    (
        bugs.divides_by_the_mean_delay,
        SIZE,
        formula.test_is_enough_and_one_less_is_not_for_all_small_paths,
    ),
    (
        bugs.takes_one_more_to_be_safe,
        SIZE,
        formula.test_is_enough_and_one_less_is_not_for_all_small_paths,
    ),
    (
        bugs.BeginsWithTheLastOfTheFirst,
        BUFFER,
        formula.test_is_enough_and_one_less_is_not_for_all_small_paths,
    ),
    (
        bugs.PlaysFromTheFirstToArrive,
        BUFFER,
        buffer.test_begins_with_what_was_overtaken_if_its_time_is_to_come,
    ),
    (bugs.PlaysWhatIsLate, BUFFER, buffer.test_drops_what_is_late_and_counts_it_once),
    (bugs.WaitsForWhatIsMissing, BUFFER, buffer.test_falls_silent_at_the_end_of_a_stream),
    (
        bugs.TakesCopiesForLate,
        BUFFER,
        buffer.test_plays_a_segment_once_however_many_copies_come,
    ),
    (
        bugs.KeepsWhateverComes,
        BUFFER,
        buffer.test_holds_no_more_than_its_bound_whatever_is_sent,
    ),
    (
        bugs.DoesNotSmooth,
        ESTIMATE,
        estimate.test_is_moved_by_a_sixteenth_of_what_differs,
    ),
    (bugs.DoesNotWrap, NUMBERS, numbers.test_goes_on_where_the_counter_begins_again),
    (
        bugs.DoesNotWrap,
        "netstack.presets.media.Unwrapped",
        media.test_is_played_in_step_across_the_wrap_of_sequence_and_timestamp,
    ),
    (
        bugs.TakesLateForTheNextRound,
        NUMBERS,
        numbers.test_knows_what_comes_late_from_before_the_wrap,
    ),
    (
        bugs.KnowsOneRoundOnly,
        NUMBERS,
        numbers.test_goes_on_round_after_round,
    ),
    (
        bugs.HasCongestionControl,
        DATAGRAMS,
        datagrams.test_have_no_congestion_control_that_delays_them,
    ),
    (bugs.SendsToBeSure, DATAGRAMS, datagrams.test_arrive_once_on_a_link_that_doubles),
    (bugs.JoinsMessages, DATAGRAMS, datagrams.test_keep_their_boundaries),
    (
        bugs.KeepsAllThatNobodyReads,
        DATAGRAMS,
        datagrams.test_that_nobody_reads_are_dropped_beyond_a_bound,
    ),
    (bugs.TalksToAnybody, ENDS, datagrams.test_of_a_stranger_are_not_taken),
    (
        bugs.ClosesForHalfClosing,
        STREAM,
        streams.test_half_closed_one_way_carries_on_the_other,
    ),
    (
        bugs.EndsWhenTheOtherDoes,
        STREAM,
        streams.test_half_closed_one_way_carries_on_the_other,
    ),
    (
        bugs.ResetsLikeAnEnd,
        STREAM,
        streams.test_reset_breaks_both_directions_at_the_other_end_with_its_code,
    ),
    (
        bugs.SwallowsWhatComesAfterClose,
        STREAM,
        streams.test_closed_answers_what_still_comes_by_a_reset,
    ),
    (bugs.RemembersAll, STREAM, streams.test_closed_at_both_ends_leaves_nothing_behind),
    (
        bugs.ForgetsItsConnection,
        STREAM,
        streams.test_breaks_when_the_other_end_was_killed_and_a_new_one_can_be_had,
    ),
    (bugs.AcceptsWithoutEnd, STREAMS, streams.test_is_refused_beyond_the_backlog),
]

ENTRY, EXIT = "netstack.tunnel.entry.Relay", "netstack.tunnel.exit.Relay"
ends, pressure = tunnels.TestEnds(), tunnels.TestPressure()

TUNNELS = [
    (
        bugs.RelayThatClosesForHalfClosing,
        ENTRY,
        ends.test_a_half_closed_connection_carries_on_the_other_way,
    ),
    (bugs.RelayThatEndsForAReset, ENTRY, ends.test_a_reset_is_carried_to_the_target),
    (
        bugs.RelayThatTakesAllItGets,
        EXIT,
        pressure.test_a_target_that_does_not_read_stops_the_writer,
    ),
    (
        bugs.RelayThatDoesNotLook,
        ENTRY,
        pressure.test_a_target_that_does_not_read_stops_the_writer,
    ),
]


def _id(value: object) -> str:
    return "" if isinstance(value, str) else getattr(value, "__name__", "").strip("<>")


@pytest.mark.parametrize(("bug", "where", "judge"), ZOO, ids=_id)
def test_the_bug_is_caught(bug, where, judge, monkeypatch):
    with monkeypatch.context() as planted:
        planted.setattr(where, bug)
        with pytest.raises(CAUGHT):
            judge()


@pytest.mark.parametrize(("bug", "where", "judge"), TUNNELS, ids=_id)
def test_the_bug_of_a_tunnel_is_caught(bug, where, judge, tmp_path, monkeypatch):
    with monkeypatch.context() as planted:
        planted.setattr(where, bug)
        for module in ("test_tunnel", "tunnel_kit"):
            planted.setattr(f"{module}.PATIENCE_S", 2)  # it is in vain
        with pytest.raises(CAUGHT):
            judge(asyncio.run, tmp_path, planted)
