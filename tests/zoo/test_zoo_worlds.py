"""Planted bugs of simulated worlds, and what catches each.

A judge is a test of tests/unit/runtime, where it passes; here it must fail.
"""

from __future__ import annotations

import pytest
import runtime_bugs as bugs
from evidence import caught
from runtime_judges import (
    LOOP,
    LOOPS,
    NODE,
    RUN,
    SIMULATED,
    WIRES,
    a_bug,
    after_last_words,
    in_crash,
    in_world,
    life,
    loops,
    network,
    on_radio,
    on_virtual_loop,
    pause,
    plainly,
    simulation,
    the_end,
)

ZOO = [
    (
        bugs.runs_the_dead,
        RUN,
        on_virtual_loop(life.test_that_is_over_does_not_even_clean_up),
        "assert seen == []",
    ),
    (
        bugs.runs_the_dead,
        RUN,
        in_world(simulation.TestACrash().test_ends_all_that_runs),
        "assert seen == [0, 1]",
    ),
    (
        bugs.runs_the_paused,
        RUN,
        in_world(simulation.TestAPause().test_holds_the_node_and_nothing_else),
        "assert (len(paused), len(other)) == (2, 12)",
    ),
    (
        bugs.forgets_what_was_held,
        f"{LOOP}.resume",
        on_radio(network.TestAProcessThatIsPaused().test_finds_in_order_what_came_meanwhile),
        'assert radio.heard["n2"] == [b"0", b"1", b"2", b"3", b"4", b"5"]',
    ),
    (
        bugs.resumes_backwards,
        f"{LOOP}.resume",
        on_virtual_loop(
            pause.test_runs_nothing_until_it_goes_on_and_then_all_in_order, paused=True
        ),
        'assert seen == ["soon", 1.0, 2.0, 3.0]',
    ),
    (
        bugs.resumes_at_the_end,
        f"{LOOP}.resume",
        on_virtual_loop(
            pause.test_runs_what_was_held_before_what_is_due_as_it_goes_on, paused=True
        ),
        'assert seen == ["held", "due"]',
    ),
    (
        bugs.compares_times_alone,
        f"{LOOPS}._Timer.__lt__",
        on_virtual_loop(
            lambda loop, _: loops.TestOrder().test_is_that_of_setting_for_equal_times(loop)
        ),
        "assert seen == list(range(20))",
    ),
    (
        bugs.hangs_for_ever,
        f"{LOOPS}._VirtualSelector.select",
        on_virtual_loop(
            lambda loop, _: loops.TestDeadlock().test_is_raised_where_a_real_loop_would_hang(loop)
        ),
        "Hangs: loop.run_until_complete(task)",
    ),
    (
        bugs.swallows_bugs,
        f"{NODE}._fatal",
        in_world(a_bug.test_in_a_node_is_raised_by_the_run),
        'with pytest.raises(ZeroDivisionError, match="in n1"):',
    ),
    (
        bugs.does_nothing,
        f"{SIMULATED}.World._unhandled",
        in_world(a_bug.test_in_a_callback_is_raised_too),
        "with pytest.raises(ZeroDivisionError):",
    ),
    (
        bugs.does_nothing,
        f"{SIMULATED}.SimulatedRuntime.abandon_work",
        plainly(in_crash.test_has_done_half_of_what_an_executor_had_begun),
        'assert {self.found(seed, start) for seed in range(40)} == {b"", b"1"}',
    ),
    (
        bugs.HandsTheDiskOn,
        f"{SIMULATED}.copy",
        after_last_words(the_end.test_writes_nothing_to_the_disk),
        'assert disk.list() == ["f"]',
    ),
    (
        bugs.listens_to_the_dead,
        f"{SIMULATED}._Lines.write",
        after_last_words(the_end.test_writes_nothing_into_the_log),
        'assert events(world, "late") == []',
    ),
    (
        bugs.does_nothing,
        f"{WIRES}.release_all",
        on_radio(network.TestAProcessThatIsKilled().test_sends_nothing_any_more),
        'assert radio.heard["n2"] == []',
    ),
    (
        bugs.cuts_both_ways,
        f"{WIRES}.cut",
        on_radio(network.TestACut().test_of_one_way_leaves_the_other),
        'assert heard(radio) == {"n1": "23", "n2": "3", "n3": "12"}',
    ),
    (
        bugs.parts_one_way,
        f"{WIRES}.partition",
        on_radio(network.TestACut().test_between_groups_is_one_in_both_directions),
        'assert heard(radio) == {"n1": "", "n2": "3", "n3": "2"}',
    ),
    (
        bugs.throws_true_dice,
        f"{SIMULATED}.SimulatedRuntime.entropy",
        plainly(simulation.TestTheLog().test_is_the_same_for_the_same_seed, 1),
        "assert busy(seed) == log",
    ),
    (
        bugs.TheSameDiceInEachLife,
        f"{SIMULATED}.SimulatedRuntime",
        in_world(
            simulation.TestACrash().test_is_followed_by_a_life_with_another_number_and_other_dice
        ),
        "assert len(set(entropy)) == 3",
    ),
]


def _id(value: object) -> str:
    name = getattr(value, "__name__", "")
    return "" if isinstance(value, str) else name.strip("<>")


@pytest.mark.parametrize(("bug", "where", "judge", "by"), ZOO, ids=_id)
def test_the_bug_is_caught(bug, where, judge, by, monkeypatch, tmp_path):
    with monkeypatch.context() as planted:
        planted.setattr(where, bug)
        with caught(by):
            judge(tmp_path)


@pytest.mark.parametrize(
    "judge", [judge for _, _, judge, _ in ZOO], ids=[_id(bug) for bug, *_ in ZOO]
)
def test_the_judge_has_nothing_against_the_original(judge, tmp_path):
    judge(tmp_path)
