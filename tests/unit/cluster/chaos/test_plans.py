"""What is drawn before anything is harmed: shapes of partitions, and plans."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.chaos import grudges
from cluster.chaos.catalogue import (
    DEFAULT,
    FAULTS_BY_NAME,
    PACKAGES,
    PROCESS,
    UnknownFault,
    package,
    package_of,
)
from cluster.chaos.plan import draw_plan, read_plan, write_plan
from cluster.chaos.simulate import shrink
from netstack.runtime.failpoints import catalogue

# A busy machine is late, and that says nothing about plans.
EXAMPLES = settings(deadline=None, database=None, max_examples=60)
FIVE = ("n1", "n2", "n3", "n4", "n5")


def sees(node, nodes, grudge):
    """Whom a node hears and is heard by, itself included."""
    return {other for other in nodes if (node, other) not in grudge and (other, node) not in grudge}


sizes = st.integers(3, 9).map(lambda n: tuple(f"n{i}" for i in range(1, n + 1)))


class TestShapes:
    @EXAMPLES
    @given(sizes, st.integers())
    def test_halves_are_two_groups_as_equal_as_can_be(self, nodes, seed):
        grudge = grudges.halves(nodes, random.Random(seed))
        groups = {frozenset(sees(node, nodes, grudge)) for node in nodes}
        assert sorted(map(len, groups)) == [len(nodes) // 2, -(-len(nodes) // 2)]

    @EXAMPLES
    @given(sizes, st.integers())
    def test_one_alone_and_all_others_together(self, nodes, seed):
        grudge = grudges.isolate(nodes, random.Random(seed))
        groups = {frozenset(sees(node, nodes, grudge)) for node in nodes}
        assert sorted(map(len, groups)) == [1, len(nodes) - 1]

    @EXAMPLES
    @given(sizes, st.integers())
    def test_a_bridge_is_the_one_who_sees_everybody(self, nodes, seed):
        grudge = grudges.bridge(nodes, random.Random(seed))
        assert [len(sees(node, nodes, grudge)) for node in nodes].count(len(nodes)) == 1

    @EXAMPLES
    @given(sizes, st.integers())
    def test_in_a_ring_everybody_sees_a_majority_and_no_two_the_same(self, nodes, seed):
        grudge = grudges.ring(nodes, random.Random(seed))
        views = [frozenset(sees(node, nodes, grudge)) for node in nodes]
        assert all(len(view) > len(nodes) // 2 for view in views)
        if len(nodes) > 4:
            assert len(set(views)) == len(nodes)

    @EXAMPLES
    @given(sizes, st.integers())
    def test_in_a_chain_two_have_one_neighbour_and_the_others_two(self, nodes, seed):
        grudge = grudges.chain(nodes, random.Random(seed))
        counts = sorted(len(sees(node, nodes, grudge)) - 1 for node in nodes)
        assert counts == [1, 1] + [2] * (len(nodes) - 2)

    @EXAMPLES
    @given(sizes, st.integers())
    def test_one_way_cuts_one_direction_only(self, nodes, seed):
        grudge = grudges.one_way(nodes, random.Random(seed))
        assert len(grudge) == len(nodes) - 1
        assert not any((b, a) in grudge for a, b in grudge)

    @pytest.mark.parametrize(
        ("grudge", "size"),
        [
            (grudges.apart([["n1", "n2"], ["n3", "n4", "n5"]]), 3),
            (grudges.apart([["n1"], ["n3", "n4"]]), 4),
            (frozenset({("n1", "n2")}), 4),
            (grudges.only([], FIVE), 1),
            (frozenset(), 5),
        ],
    )
    def test_the_largest_group_of_those_who_all_hear_each_other(self, grudge, size):
        group = grudges.largest_group(FIVE, grudge)
        assert len(group) == size
        assert not any((a, b) in grudge for a in group for b in group)


class TestPlans:
    @EXAMPLES
    @given(st.integers(), st.floats(5, 200), st.integers(3, 7))
    def test_episodes_of_a_package_follow_one_another_and_all_end_in_time(self, seed, time, nodes):
        plan = draw_plan(DEFAULT, time, random.Random(seed), nodes=nodes)
        ends: dict[str, float] = {}
        for episode in plan:
            name = package_of(episode.fault)
            assert ends.get(name, 0.0) <= episode.at < episode.until <= time
            ends[name] = episode.until

    def test_a_seed_is_a_plan(self):
        first, second, other = (draw_plan(DEFAULT, 60, random.Random(s)) for s in (1, 1, 2))
        assert first == second != other

    def test_every_package_comes_in_a_minute(self):
        for seed in range(20):
            plan = draw_plan(DEFAULT, 60, random.Random(seed))
            assert {package_of(episode.fault) for episode in plan} == set(DEFAULT)

    def test_what_a_system_cannot_suffer_is_left_out(self):
        plan = draw_plan(DEFAULT, 600, random.Random(1), able={PROCESS})
        assert {episode.fault for episode in plan} == {"kill"}

    def test_few_nodes_have_no_ring(self):
        plan = draw_plan(["partition"], 2000, random.Random(1), nodes=3)
        assert {"halves", "bridge"} <= {e.fault for e in plan}
        assert not {"ring", "chain"} & {e.fault for e in plan}

    def test_more_packages_are_not_many_more_faults_at_once(self):
        plan = draw_plan(DEFAULT, 10_000, random.Random(1))
        assert 1.0 < sum(e.until - e.at for e in plan) / 10_000 < 2.5

    def test_it_is_written_and_read_as_it_was(self, tmp_path):
        plan = draw_plan([*DEFAULT, "lies"], 60, random.Random(3))
        write_plan(tmp_path / "plan.jsonl", plan)
        assert read_plan(tmp_path / "plan.jsonl") == plan

    @pytest.mark.parametrize(
        ("line", "why"),
        [
            ("nonsense", "line 1"),
            ('{"fault": "kill"}', "missing"),
            (
                '{"fault": "flood", "target": "one", "values": {}, "at": 1, "until": 2}',
                "no fault 'flood'",
            ),
            ('{"fault": "kill", "target": "one", "values": {}, "at": 3, "until": 2}', "end after"),
        ],
    )
    def test_a_plan_that_makes_no_sense_is_refused_by_its_line(self, tmp_path, line, why):
        (tmp_path / "plan.jsonl").write_text(line + "\n")
        with pytest.raises(ValueError, match=why):
            read_plan(tmp_path / "plan.jsonl")


class TestTheCatalogue:
    def test_every_fault_belongs_to_one_package(self):
        together = [fault for faults in PACKAGES.values() for fault in faults]
        assert sorted(together) == sorted(FAULTS_BY_NAME)

    def test_an_unknown_name_is_answered_with_those_there_are(self):
        with pytest.raises(UnknownFault, match=r"'floods'; packages: kill, host.*truncate"):
            package("floods")

    def test_crash_points_are_those_of_the_source(self):
        drawn = {
            FAULTS_BY_NAME["crashpoint"].draw(random.Random(seed))["point"] for seed in range(500)
        }
        assert drawn == set(catalogue("raftd"))


class TestShrinking:
    plan = draw_plan(DEFAULT, 120, random.Random(5))

    @EXAMPLES
    @given(st.sets(st.integers(0, len(plan) - 1), min_size=1, max_size=3))
    def test_what_is_left_is_exactly_what_is_needed(self, needed):
        wanted = [self.plan[i] for i in sorted(needed)]
        smallest = shrink(self.plan, lambda part: all(e in part for e in wanted), tries=10_000)
        assert smallest == wanted

    def test_a_run_that_needs_no_fault_is_told_as_such(self):
        assert shrink(self.plan, lambda part: True, tries=10_000) == []

    def test_it_costs_no_more_tries_than_it_may(self):
        tried = []
        shrink(self.plan, lambda part: tried.append(part) or False, tries=7)
        assert len(tried) == 7
