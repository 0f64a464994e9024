"""What `ring ddp allreduce` measures: each kind of call checked by itself, times as asked."""

from __future__ import annotations

import numpy as np
import pytest

from ddp import perf
from ddp.local import run_local

SIZES = [4 * 30, 4 * 90]


def measured(ranks=3, **options):
    return run_local(ranks, lambda group: perf.measure(group, sizes=SIZES, **options))


def wrong(found):
    return [(row["out_of_place"]["wrong"], row["in_place"]["wrong"]) for row in perf.merge(found)]


@pytest.mark.parametrize(
    "options",
    [
        {"algorithm": "ring"},
        {"dtype": "float16", "op": "mean", "algorithm": "sharded-server"},
        {"dtype": "int64", "op": "min", "aggregate": 4},
        {"dtype": "bfloat16", "unalign": 3},
    ],
)
def test_all_that_is_right_is_found_right(options):
    assert wrong(measured(iterations=2, **options)) == [(0, 0), (0, 0)]


def test_nothing_is_said_of_what_was_not_checked():
    assert wrong(measured(iterations=1, check=False)) == [(None, None)] * 2


def planted(monkeypatch, spoilt):
    """Calls of which those with a source, or those without one, are not what they should be."""
    call = perf._call

    def bad(group, results, plan, source=None):
        call(group, results, plan, source)
        if (source is not None) == spoilt:
            results[-1][0] += 1

    monkeypatch.setattr(perf, "_call", bad)


@pytest.mark.parametrize(("out_of_place", "expected"), [(True, (3, 0)), (False, (0, 3))])
def test_an_element_that_is_wrong_is_counted_where_it_is_wrong(monkeypatch, out_of_place, expected):
    planted(monkeypatch, out_of_place)
    found = measured(iterations=1, algorithm="ring", aggregate=2)
    assert wrong(found) == [expected] * 2  # one of each rank


def test_an_out_of_place_call_that_forgets_its_source_is_wrong(monkeypatch):
    call = perf._call
    monkeypatch.setattr(
        perf, "_call", lambda group, results, plan, source=None: call(group, results, plan)
    )
    for out_of_place, in_place in wrong(measured(iterations=1, algorithm="ring")):
        assert out_of_place > 0 == in_place


def test_vectors_begin_where_they_are_asked_to():
    assert perf._vector(8, np.zeros(0, np.float32), 0).ctypes.data % 8 == 0
    assert perf._vector(8, np.zeros(0, np.float32), 1).ctypes.data % 8 == 4


def test_a_table_is_repeated_and_its_rows_are_stamped():
    rows = perf.merge(measured(iterations=1, cycles=3))
    assert [row["size"] for row in rows] == SIZES * 3
    stamps = [row["at"] for row in rows]
    assert stamps == sorted(stamps)


def rank(times):
    """One rank's view of one size, 1000 bytes."""
    kind = {"mean": sum(times) / len(times), "times": times, "wrong": 0}
    row = {"size": 1000, "count": 250, "algorithm": "ring", "at": 0.0}
    row |= {"rounds": 1, "sent": 4, "fan_in": 1, "out_of_place": {**kind}, "in_place": {**kind}}
    return {"rows": [row]}


@pytest.mark.parametrize(
    ("average", "mean_us"), [("rank0", 2.0), ("avg", 4.0), ("min", 2.0), ("max", 6.0)]
)
def test_whose_time_counts(average, mean_us):
    (row,) = perf.merge([rank([1e-6, 3e-6]), rank([5e-6, 7e-6])], average)
    found = row["in_place"]
    assert found["time"] == pytest.approx(mean_us)
    assert found["alg_bw"] == pytest.approx(1000 / (mean_us * 1e-6) / 1e9)
    assert found["bus_bw"] == pytest.approx(found["alg_bw"])  # of two, 2(P-1)/P is 1


def test_the_spread_of_the_calls_is_of_the_slowest_rank():
    (row,) = perf.merge([rank([1e-6, 3e-6]), rank([2e-6, 2e-6])])
    found = row["in_place"]
    assert (found["best"], found["worst"]) == (pytest.approx(2.0), pytest.approx(3.0))
    assert found["cv"] == pytest.approx(100 * 0.5 / 2.0)
