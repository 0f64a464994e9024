"""Schedules are proven by symbols, and cost what the lecture's table says."""

from __future__ import annotations

from itertools import pairwise

import pytest

from ddp.errors import BadCall
from ddp.schedules.catalogue import ALLREDUCE, SINGLE, schedule_of
from ddp.schedules.checker import WrongSchedule, count, prove
from ddp.schedules.costs import CostModel, table, tree_bounds
from ddp.schedules.double_tree import both_trees, double_tree
from ddp.schedules.hierarchical import hierarchical
from ddp.schedules.naive_serial import euler_circuit
from ddp.schedules.schedule import Action, Schedule, Transfer, bounds

SIZES = [*range(1, 18), 23, 32]


@pytest.mark.parametrize("algorithm", ALLREDUCE)
@pytest.mark.parametrize("size", SIZES)
def test_every_allreduce_is_one_for_any_number_of_ranks(algorithm, size):
    prove(schedule_of("allreduce", algorithm, size), "allreduce")


@pytest.mark.parametrize("kind", SINGLE)
@pytest.mark.parametrize("size", SIZES)
def test_every_other_collective_does_what_its_name_says(kind, size):
    for root in {0, size - 1, size // 2} if kind in ("broadcast", "reduce") else {0}:
        prove(schedule_of(kind, SINGLE[kind], size, root), kind, root)


@pytest.mark.parametrize("size", [6, 64, 100])
def test_the_best_are_proven_for_many_ranks_too(size):
    for algorithm in ("ring", "double-tree", "halving-doubling", "recursive-doubling"):
        prove(schedule_of("allreduce", algorithm, size), "allreduce")


@pytest.mark.parametrize("algorithm", ALLREDUCE)
def test_costs_are_those_of_the_table(algorithm):
    asked = 0
    for size in range(2, 34):
        row = table(algorithm, size)
        if row is None:
            continue
        asked += 1
        n = size * 64 * (-(-size // 2) if algorithm == "hierarchical" else 1)  # shares are whole
        cost = count(schedule_of("allreduce", algorithm, size), n)
        assert (cost.rounds, cost.fan_in) == (row.rounds, row.fan_in), size
        assert cost.sent_max == pytest.approx(row.sent_max * n), size
        assert cost.sent_mean == pytest.approx(row.sent_mean * n), size
    assert asked >= 5 or algorithm == "double-tree"


def test_the_examples_of_the_table_for_eight_ranks():
    n = 800
    found = {
        name: (cost.rounds, cost.sent_max / n, cost.fan_in)
        for name in ALLREDUCE
        for cost in [count(schedule_of("allreduce", name, 8), n)]
    }
    assert found["parameter-server"] == (2, 7.0, 7)
    assert found["sharded-server"] == (2, 1.75, 7)
    assert found["naive-serial"] == (56, 7.0, 1)
    assert found["naive-shift"] == (7, 7.0, 1)
    assert found["ring"] == (14, 1.75, 1)
    assert found["double-tree"] == (6, 2.0, 2)
    assert found["recursive-doubling"] == (3, 3.0, 1)
    assert found["halving-doubling"] == (6, 1.75, 1)


@pytest.mark.parametrize(
    "sizes", [range(1, 129), pytest.param(range(129, 1025), marks=pytest.mark.slow)]
)
def test_no_rank_is_interior_in_both_trees_for_up_to_1024_ranks(sizes):
    for size in sizes:
        first, second = both_trees(size)
        interior = [{r for r in range(size) if tree.children[r]} for tree in (first, second)]
        assert not interior[0] & interior[1], size
        leaf_in_both = [r for r in range(size) if r not in interior[0] | interior[1]]
        if size > 1:
            assert leaf_in_both == ([] if size % 2 == 0 else [0]), size
        for tree in (first, second):
            assert sum(parent is None for parent in tree.parent) == 1
            assert all(
                tree.parent[child] == r for r in range(size) for child in tree.children[r]
            ), size
            assert sum(map(len, tree.children)) == size - 1
            assert tree.height == size.bit_length() - 1, size  # floor(log2 P)


@pytest.mark.parametrize("size", [2, 3, 5, 8, 13, 100])
def test_the_double_tree_keeps_its_bounds(size):
    row = tree_bounds(size)
    n = size * 64
    cost = count(double_tree(size), n)
    assert cost.rounds == row.rounds
    assert cost.sent_max <= row.sent_max * n
    assert cost.sent_mean == pytest.approx(row.sent_mean * n)
    assert cost.fan_in <= row.fan_in


@pytest.mark.parametrize("segments", [2, 5])
def test_a_pipelined_double_tree_is_an_allreduce_of_few_rounds_more(segments):
    for size in (2, 3, 6, 9):
        schedule = double_tree(size, segments)
        prove(schedule, "allreduce")
        assert len(schedule.rounds) == 2 * (size.bit_length() - 1) + segments - 1


@pytest.mark.parametrize("hosts", [[[0, 1], [2, 3]], [[0, 1, 2], [3]], [[3, 0], [1, 2], [4, 5]]])
def test_hierarchies_of_any_shape_are_allreduces(hosts):
    prove(hierarchical(sum(map(len, hosts)), hosts), "allreduce")


def test_a_hierarchy_sends_less_between_hosts_than_a_ring():
    hosts = [[0, 1, 2, 3], [4, 5, 6, 7]]
    n = 800
    starts = bounds(n, 8)
    host_of = {rank: i for i, host in enumerate(hosts) for rank in host}

    def across(schedule):
        return sum(
            starts[t.hi] - starts[t.lo]
            for transfers in schedule.rounds
            for t in transfers
            if host_of[t.src] != host_of[t.dst]
        )

    assert across(hierarchical(8, hosts)) == 2 * n  # 2(h-1)/h · N/g a rank
    assert across(schedule_of("allreduce", "ring", 8)) > across(hierarchical(8, hosts))


def test_the_euler_circuit_has_each_pair_once_and_whoever_receives_sends_next():
    for size in range(2, 9):
        circuit = euler_circuit(size)
        pairs = list(pairwise(circuit))
        assert sorted(pairs) == [(a, b) for a in range(size) for b in range(size) if a != b]


def test_chunks_differ_by_one_element_at_most():
    for elements in range(20):
        for chunks in range(1, 9):
            starts = bounds(elements, chunks)
            lengths = [b - a for a, b in pairwise(starts)]
            assert sum(lengths) == elements
            assert max(lengths) - min(lengths) <= 1


def planted(change):
    """A ring of four with one thing wrong."""
    good = schedule_of("allreduce", "ring", 4)
    return Schedule("planted", 4, 4, tuple(change(n, r) for n, r in enumerate(good.rounds)))


def test_what_is_wrong_with_a_schedule_is_said_in_a_sentence():
    def lost(number, transfers):
        return transfers[1:] if number == 2 else transfers

    with pytest.raises(WrongSchedule, match=r"the contribution of rank \d is missing"):
        prove(planted(lost), "allreduce")

    def twice(number, transfers):
        return (*transfers, transfers[0]) if number == 0 else transfers

    with pytest.raises(WrongSchedule, match="rank 0 is counted twice"):
        prove(planted(twice), "allreduce")

    def off_by_one(number, transfers):
        if number < 3:
            return transfers
        return tuple(t._replace(lo=(t.lo + 1) % 4, hi=(t.lo + 1) % 4 + 1) for t in transfers)

    with pytest.raises(WrongSchedule):
        prove(planted(off_by_one), "allreduce")
    nothing = Schedule("empty", 2, 1, ((Transfer(1, 0, 0, 1, Action.COPY),),))
    with pytest.raises(WrongSchedule, match="which it does not have"):
        prove(nothing, "broadcast")


def test_sums_in_different_orders_on_different_ranks_are_no_allreduce():
    """Three ranks that all send to all and add as it comes: right sums, other bits."""
    transfers = tuple(
        Transfer(a, (a + k) % 3, 0, 1, Action.REDUCE) for a in range(3) for k in (1, 2)
    )
    with pytest.raises(WrongSchedule, match="in another order than on rank 0"):
        prove(Schedule("as it comes", 3, 1, (transfers,)), "allreduce")


def test_unknown_names_are_refused_with_those_there_are():
    with pytest.raises(BadCall, match="there are parameter-server, "):
        schedule_of("allreduce", "quick", 4)
    with pytest.raises(BadCall, match="there are allreduce, "):
        schedule_of("allsum", "ring", 4)


def test_auto_takes_few_rounds_for_small_vectors_and_few_bytes_for_large_ones():
    model = CostModel(alpha=50e-6, beta=1e-9, gamma=1e-10, delta=5e-10)
    small, large = model.choose(16, 64), model.choose(16, 1 << 30)
    assert small == "recursive-doubling"
    assert count(schedule_of("allreduce", large, 16), 1600).sent_max == 2 * 1600 * 15 // 16
    assert model.explain(16, 64).startswith("recursive-doubling ")
    assert (
        str(model)
        == "α 50.0 µs a message, 1/β 1.00 GB/s, 1/γ 10.00 GB/s added, 1/δ 2.00 GB/s copied"
    )


def lasting(name, size, rank, **options):
    return schedule_of("allreduce", name, size).lasting(rank, **options)


def test_what_a_finished_sum_overwrites_needs_no_copy():
    """The sum has in it what was sent: it cannot be there before that was read."""
    for name in ("ring", "double-tree", "halving-doubling", "sharded-server", "parameter-server"):
        for size in (2, 3, 4, 5, 8):
            schedule = schedule_of("allreduce", name, size)
            sends = {
                (number, t.src, t.dst, t.lo)
                for number, transfers in enumerate(schedule.rounds)
                for t in transfers
            }
            found = {(n, r, *rest) for r in range(size) for n, *rest in schedule.lasting(r)}
            assert found == sends, (name, size)


def test_what_is_written_while_it_is_read_is_copied():
    assert lasting("recursive-doubling", 2, 0) == frozenset()
    # Rank 0 folds when it has heard of rank 1, which had its first by then; nobody has told it of
    # rank 2, to whom it sends in the round in which it folds.
    assert lasting("naive-shift", 3, 0) == {(0, 1, 0)}


def test_of_a_mean_the_last_round_is_copied_because_all_is_divided_behind_it():
    assert lasting("ring", 2, 0) == {(0, 1, 1), (1, 1, 0)}
    assert lasting("ring", 2, 0, rewritten=True) == {(0, 1, 1)}


def test_between_two_a_large_vector_is_not_copied_only_to_save_a_message():
    model = CostModel(alpha=200e-6, beta=2e-9, gamma=5e-11, delta=5e-10)
    assert model.choose(2, 4096) == "recursive-doubling"
    assert model.choose(2, 1 << 20) != "recursive-doubling"
    copies_for_nothing = CostModel(alpha=200e-6, beta=2e-9, gamma=5e-11, delta=0.0)
    assert copies_for_nothing.choose(2, 1 << 20) == "recursive-doubling"
