"""Pipeline schedules: proofs, figures, and stages that sleep."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddp.training.errors import InvalidSchedule
from ddp.training.schedule import BACKWARD, FORWARD, Action, check, gpipe, one_f_one_b, timeline

SIZES = [(p, m) for p in range(1, 9) for m in (1, 2, 3, 5, 8, 16)]


@pytest.mark.parametrize(("stages", "micros"), SIZES)
@pytest.mark.parametrize("make", [gpipe, one_f_one_b])
def test_both_schedules_hold_their_rules(make, stages, micros):
    bounds = {
        gpipe: [micros] * stages,
        one_f_one_b: [min(stages - i, micros) for i in range(stages)],
    }
    found = check(make(stages, micros), micros, bounds[make])
    assert found.held == bounds[make]


@given(st.integers(1, 8), st.integers(1, 16), st.floats(0.1, 9), st.floats(0.1, 9), st.booleans())
@settings(max_examples=100, deadline=None)
def test_the_bubble_is_p_minus_one_over_m(stages, micros, forward, backward, flush):
    schedule = (gpipe if flush else one_f_one_b)(stages, micros)
    cost = {FORWARD: forward, BACKWARD: backward}
    laid_out = timeline(schedule, lambda stage, action: cost[action.kind])
    assert laid_out.bubble == pytest.approx((stages - 1) / micros)
    assert laid_out.total == pytest.approx((micros + stages - 1) * (forward + backward))


def test_a_picture_of_each():
    assert check(gpipe(3, 3), 3).draw(1.0) == [
        "012····abc",
        "·012··abc·",
        "··012abc··",
    ]
    assert check(one_f_one_b(3, 3), 3).draw(1.0) == [
        "012··a·b·c",
        "·01·a2b·c·",
        "··0a1b2c··",
    ]


F = [Action(FORWARD, i) for i in range(3)]
B = [Action(BACKWARD, i) for i in range(3)]
BROKEN = {
    "stage 1 never does B2": [F + B, F + B[:2]],
    "stage 0 does F1 2 times": [[*F, F[1], *B], F + B],
    "stage 0 does F3 of 3 micro-batches": [[*F, Action(FORWARD, 3), *B], F + B],
    "stage 1 takes F in another order than it comes": [F + B, [F[1], F[0], F[2], *B]],
    "stage 1 takes B in another order than it comes": [F + B, [*F, *B[::-1]]],
    "deadlock: stage 0 waits to do B0; stage 1 waits to do F1": [
        [F[0], B[0], F[1], B[1], F[2], B[2]],
        [*F, *B],
    ],
}


@pytest.mark.parametrize("rule", BROKEN)
def test_what_breaks_a_rule_is_told_which(rule):
    with pytest.raises(InvalidSchedule) as error:
        check(BROKEN[rule], 3)
    assert str(error.value) == rule


def test_a_stage_that_holds_too_much():
    with pytest.raises(InvalidSchedule, match="stage 0 holds 8 activations; it may hold 4"):
        check(gpipe(4, 8), 8, [4, 3, 2, 1])


@pytest.mark.slow
def test_sleeping_stages_show_the_bubble():
    """Real time: four stages that take 40 ms a micro-batch each way; within 5 %, the best of five.

    What a busy machine adds makes the bubble longer, never shorter.
    """
    from ddp.training.bubble import measure

    tries = []
    for _ in range(5):
        tries.append(measure("1f1b", stages=4, micros=8, forward_s=0.04, backward_s=0.04))
        if abs(tries[-1].bubble / (3 / 8) - 1) < 0.05:
            break
    assert min(abs(t.bubble / (3 / 8) - 1) for t in tries) < 0.05, tries


def test_a_measurement_is_no_faster_than_the_schedule():
    from ddp.training.bubble import measure

    began = time.monotonic()
    found = measure("gpipe", stages=2, micros=2, forward_s=0.005, backward_s=0.005)
    assert time.monotonic() - began >= found.total_s >= 0.03
    assert found.expected == 0.5
