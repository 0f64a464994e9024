"""Which strategy breaks under which fault, and that the others hold."""

from __future__ import annotations

import functools

import pytest

from netstack.delivery.fresh_port import FreshPort
from netstack.delivery.trials import matrix
from netstack.delivery.trials.matrix import EXPECTED, FAULTS, ROWS, word
from netstack.delivery.trials.timeline import Alarm, Timeline

cell = functools.cache(matrix.cell)
CELLS = [(row, fault) for row in ROWS for fault in FAULTS]
FAULT = {fault.name: fault for fault in FAULTS}
ROW = {row.name: row for row in ROWS}
KILLS = [fault for fault in FAULTS if fault.kills]


@pytest.mark.parametrize(("row", "fault"), CELLS, ids=lambda part: part.name)
def test_it_breaks_where_it_should_and_holds_where_it_should(row, fault):
    expected = EXPECTED[row.name][FAULTS.index(fault)]
    for seed in (1, 2):
        tally = cell(row, fault, seed)
        assert word(tally) == expected, f"cell({row.name!r}, {fault.name!r}, {seed}): {tally}"
        assert tally.untold == 0, "told that it was executed, and it was not"
        assert tally.once + tally.lost + tally.twice == fault.requests
        assert tally.answered + tally.unsure == fault.requests


def test_every_strategy_that_forgets_breaks_past_its_horizon():
    column = [names[list(FAULT).index("past the horizon")] for names in EXPECTED.values()]
    assert all(name in ("twice", "both") for name in column)


@pytest.mark.parametrize("fault", KILLS[1:], ids=lambda fault: fault.name)
def test_no_cure_lets_anything_be_executed_twice(fault):
    for row in ROWS:
        if not (row.strategy == "idempotence" and fault.name == "kill, durable table"):
            assert cell(row, fault, 1).twice == 0


def test_double_executions_are_money_and_none_is_none():
    for row, fault in CELLS:
        tally = cell(row, fault, 1)
        assert (tally.money > 0) == (tally.twice > 0), (row.name, fault.name, tally)


def test_repeats_in_a_row_leave_a_register_as_it_is_and_late_ones_do_not():
    idempotence = ROW["idempotence"]
    assert cell(idempotence, FAULT["duplicate"], 1).twice > 0
    assert cell(idempotence, FAULT["duplicate"], 1).undone == 0
    assert cell(idempotence, FAULT["past the horizon"], 1).undone > 0


def test_only_the_nonce_table_tells_its_clients_though_replies_are_lost():
    unsure = {row.name: cell(row, FAULT["loss"], 1).unsure for row in ROWS}
    assert unsure["nonce table"] == unsure["idempotence"] == 0
    assert min(unsure[name] for name in ("monotone, 1 at a time", "fresh port")) > 10


def test_memory_is_what_the_strategy_says_and_not_more():
    most = {row.name: max(cell(row, fault, 1).memory_max for fault in FAULTS) for row in ROWS}
    assert most["idempotence"] == 0
    assert most["monotone, 1 at a time"] == most["monotone, 4 at a time"] == 1
    # A horizon of 1.3 s of some 40 requests a second; and the ports there are.
    assert 20 < most["nonce table"] < 80
    assert 20 < most["fresh port"] <= matrix.PORTS_MAX


def test_ports_that_do_not_rest_are_met_again_much_sooner():
    """The lecture's fourth way without its tombstone: a detour within the terms is enough."""

    class Restless(matrix.Row):
        def make(self, terms):
            return FreshPort(terms.horizon_s, rest_s=0.0, ports_max=8)

    row = Restless("fresh port, no rest", "fresh-port", 4)
    late = matrix.Fault(
        "late", matrix.replace(matrix.LINK, reorder=0.1, reorder_s=matrix.TERMS.rtt_s * 3)
    )
    assert cell(row, late, 1).twice > 0
    assert cell(ROW["fresh port"], late, 1).twice == 0


def test_a_seed_is_one_history():
    row, fault = ROW["nonce table"], FAULT["past the horizon"]
    one, again, other = (matrix.cell(row, fault, seed) for seed in (5, 5, 6))
    assert one == again != other


def test_the_table_has_a_line_a_strategy_and_a_column_a_fault():
    lines = matrix.table({(r.name, f.name): cell(r, f, 1) for r, f in CELLS}).splitlines()
    assert len(lines) == 1 + len(ROWS)
    assert lines[1].split()[:4] == ["nonce", "table", "400/0/0", "400/0/0"]


class TestTimeline:
    def test_things_happen_in_their_order(self):
        timeline, seen = Timeline(), []
        for when, name in ((2.0, "c"), (1.0, "a"), (1.0, "b"), (9.0, "d")):
            timeline.at(when, lambda name=name: seen.append((timeline.now, name)))
        timeline.run(5.0)
        assert seen == [(1.0, "a"), (1.0, "b"), (2.0, "c")]
        assert timeline.now == 5.0

    def test_what_is_past_is_done_now(self):
        timeline, seen = Timeline(), []
        timeline.at(3.0, lambda: timeline.at(1.0, lambda: seen.append(timeline.now)))
        timeline.run()
        assert seen == [3.0]

    def test_an_alarm_rings_for_the_last_deadline_only(self):
        timeline, rung = Timeline(), []
        alarm = Alarm(timeline, lambda: rung.append(timeline.now))
        for deadline in (1.0, 3.0, None, 2.0, 4.0):
            alarm.set(deadline)
        timeline.run()
        assert rung == [4.0]
