"""Direct sums through memory in every order of events: one outcome, no wrong number."""

from __future__ import annotations

import pytest
from ddp_direct_kit import ERROR, SUM, Exploration

from ddp.direct import Way

SHARDS, EXCHANGE, REACH = Way.SHARDS, Way.EXCHANGE, Way.REACH


@pytest.mark.parametrize(
    ("size", "windows", "ways"),
    [
        (2, 3, [SHARDS]),
        (2, 4, [EXCHANGE]),
        (2, 1, [REACH, REACH]),
        (3, 2, [SHARDS]),
        (3, 1, [REACH]),
        pytest.param(3, 1, [REACH, REACH], marks=pytest.mark.slow),
        pytest.param(3, 1, [SHARDS, SHARDS], marks=pytest.mark.slow),
        pytest.param(4, 1, [SHARDS], marks=pytest.mark.slow),
        pytest.param(4, 1, [REACH], marks=pytest.mark.slow),
    ],
)
def test_nobody_reads_what_is_not_there_and_all_have_the_sum(size, windows, ways):
    found = Exploration(size, windows, ways=ways).run()
    assert found.ends == {SUM}
    assert found.states > 100


@pytest.mark.parametrize("windows", [1, 2])
@pytest.mark.parametrize("before", list(Way))
@pytest.mark.parametrize("way", list(Way))
def test_one_call_after_the_other_may_go_another_way(way, before, windows):
    found = Exploration(2, windows, ways=[SHARDS, before, way, way]).run()
    assert found.ends == {SUM}


@pytest.mark.parametrize(
    ("size", "windows", "ways", "deaths"),
    [
        (2, 2, [SHARDS], 1),
        (2, 1, [SHARDS, SHARDS], 1),
        (2, 3, [EXCHANGE], 1),
        (2, 1, [EXCHANGE, EXCHANGE], 1),
        (2, 1, [REACH, REACH], 1),
        (3, 1, [SHARDS], 1),
        (3, 1, [SHARDS], 2),
        (3, 1, [REACH], 1),
        pytest.param(3, 1, [REACH], 2, marks=pytest.mark.slow),
        pytest.param(3, 2, [SHARDS], 2, marks=pytest.mark.slow),
        pytest.param(3, 1, [SHARDS, SHARDS], 1, marks=pytest.mark.slow),
        pytest.param(4, 1, [SHARDS], 1, marks=pytest.mark.slow),
        pytest.param(4, 1, [REACH], 1, marks=pytest.mark.slow),
    ],
)
def test_whoever_dies_wherever_all_survivors_have_the_sum_or_all_an_error(
    size, windows, ways, deaths
):
    found = Exploration(size, windows, ways=ways, deaths=deaths).run()
    assert found.ends == {SUM, ERROR}, "both must have been seen, or this tested nothing"


@pytest.mark.parametrize("way", [SHARDS, REACH])
def test_patience_that_ends_leaves_nobody_with_another_outcome(way):
    found = Exploration(3, ways=[way], deaths=1, impatient=True).run()
    assert found.ends == {SUM, ERROR}


@pytest.mark.parametrize("way", [SHARDS, REACH])
def test_who_is_only_said_to_be_dead_may_go_on_and_nobody_is_left_with_another_outcome(way):
    found = Exploration(3, ways=[way], suspicions=1).run()
    assert found.ends == {SUM, ERROR}
