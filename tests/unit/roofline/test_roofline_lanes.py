"""Lanes under masks: results as if each lane were alone, and slots counted to the last."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddp.roofline.divergence import BALANCED, WARP, Branch, Loop, Work, cases, run

COUNT_DOWN = (Loop(lambda x: x > 0, (Work(3, lambda x: x - 1),)),)
NESTED = (
    Work(2, lambda x: x + 1),
    Branch(
        lambda x: x > 0,
        (Branch(lambda x: x > 5, (Work(7, lambda x: x * 2),), (Work(5, lambda x: x - 9),)),),
        (Work(4, lambda x: -x),),
    ),
    *COUNT_DOWN,
)


def alone(program, x):
    """One lane, in plain Python: the value, and the instructions that it executed."""
    executed = 0
    for part in program:
        if isinstance(part, Work):
            executed += part.instructions
            x = part.function(x)
        elif isinstance(part, Branch):
            executed += 1
            taken = part.then if part.condition(x) else part.otherwise
            x, more = alone(taken, x)
            executed += more
        else:
            executed += 1
            while part.condition(x):
                x, more = alone(part.body, x)
                executed += more + 1
    return x, executed


lanes = st.lists(st.integers(-9, 9), min_size=1, max_size=70)


@given(lanes, st.sampled_from([BALANCED, COUNT_DOWN, NESTED]), st.booleans(), st.integers(1, 40))
@settings(max_examples=150, deadline=None)
def test_masks_change_no_result_and_useful_slots_are_what_lanes_execute(
    values, program, simt, warp
):
    found, slots = run(program, np.array(values), warp=warp, simt=simt)
    expected = [alone(program, value) for value in values]
    assert [*found] == [value for value, _ in expected]
    assert slots.useful == sum(executed for _, executed in expected)
    assert slots.issued % warp == 0
    assert slots.issued >= slots.useful


@given(lanes, st.sampled_from([BALANCED, COUNT_DOWN, NESTED]))
@settings(max_examples=60, deadline=None)
def test_simt_never_issues_more_than_masks_do(values, program):
    by_mask, simt = (run(program, np.array(values), simt=s)[1].issued for s in (False, True))
    assert simt <= by_mask


def test_a_warp_of_one_lane_wastes_nothing():
    assert run(NESTED, np.arange(-9, 9), warp=1)[1].waste == 0


def test_the_lectures_half_is_wasted():
    """Two sides of fifty instructions, half of the lanes each: 1 + 50 of 1 + 100 are useful."""
    x = np.tile([1, -1], WARP)
    slots = run(BALANCED, x, simt=False)[1]
    assert slots.waste == 1 - 51 / 101
    assert run(BALANCED, np.sort(x), simt=True)[1].waste == 0
    assert run(BALANCED, np.sort(x), simt=False)[1].waste == 1 - 51 / 101


def test_a_loop_lasts_for_the_last_lane():
    x = np.zeros(WARP, int)
    x[0] = 10
    slots = run(COUNT_DOWN, x)[1]
    assert slots.issued == WARP * (11 + 10 * 3)
    assert slots.useful == WARP + 10 + 10 * 3


def test_a_loop_without_end_is_an_error():
    with pytest.raises(ValueError, match="still in its loop"):
        run((Loop(lambda x: x > 0, (Work(1, lambda x: x),)),), np.ones(1))


def test_what_is_shown():
    waste = {name: slots.waste for name, slots in cases()}
    assert waste["two sides, SIMT, warps agree"] == 0
    assert waste["two sides, SIMT, sorted"] < 0.02 < 0.49 < waste["two sides, by mask, sorted"]
