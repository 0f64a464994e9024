"""The direct sum through shared memory in every order of events: one outcome, no wrong number."""

from __future__ import annotations

import pytest
from ddp_direct_kit import ERROR, SUM, Exploration


@pytest.mark.parametrize(
    ("size", "windows", "exchange"),
    [(2, 3, False), (2, 4, True), (3, 2, False), pytest.param(4, 1, False, marks=pytest.mark.slow)],
)
def test_nobody_reads_what_is_not_there_and_all_have_the_sum(size, windows, exchange):
    found = Exploration(size, windows, exchange=exchange).run()
    assert found.ends == {SUM}
    assert found.states > 100


@pytest.mark.parametrize(
    ("size", "windows", "exchange", "deaths"),
    [
        (2, 2, False, 1),
        (2, 3, True, 1),
        (3, 1, False, 1),
        (3, 1, False, 2),
        pytest.param(3, 2, False, 2, marks=pytest.mark.slow),
        pytest.param(4, 1, False, 1, marks=pytest.mark.slow),
    ],
)
def test_whoever_dies_wherever_all_survivors_have_the_sum_or_all_an_error(
    size, windows, exchange, deaths
):
    found = Exploration(size, windows, exchange=exchange, deaths=deaths).run()
    assert found.ends == {SUM, ERROR}, "both must have been seen, or this tested nothing"


def test_patience_that_ends_leaves_nobody_with_another_outcome():
    found = Exploration(3, deaths=1, impatient=True).run()
    assert found.ends == {SUM, ERROR}


def test_who_is_only_said_to_be_dead_may_go_on_and_nobody_is_left_with_another_outcome():
    found = Exploration(3, suspicions=1).run()
    assert found.ends == {SUM, ERROR}
