"""Groups against numpy: any size, type, reduction and algorithm; bits, order, errors."""

from __future__ import annotations

import functools
import threading

import numpy as np
import pytest
from ddp_kit import results, together
from hypothesis import given, settings
from hypothesis import strategies as st

from ddp import verifiable
from ddp.elements import FLOATS, OPS, TYPES
from ddp.errors import BadCall, GroupClosed, Mismatch, RankLate, RankLost
from ddp.local import alone, make_local, run_local
from ddp.schedules.catalogue import ALLREDUCE, schedule_of
from ddp.schedules.schedule import bounds

REDUCED = [name for name in TYPES if name != "uint8"]


def cases():
    pairs = [(t, op) for t in REDUCED for op in OPS if op != "mean" or t in FLOATS]
    return st.tuples(
        st.integers(1, 9),
        st.sampled_from(list(ALLREDUCE)),
        st.sampled_from(pairs),
        st.one_of(st.integers(0, 12), st.integers(13, 5000)),
    )


@settings(max_examples=100, deadline=None)
@given(cases())
def test_any_allreduce_gives_the_exact_result_in_place_on_all_ranks(case):
    size, algorithm, (dtype, op), n = case
    groups = make_local(size)
    contributors = schedule_of("allreduce", algorithm, size).contributors
    wanted = verifiable.expected(dtype, op, n, contributors, size)

    def work(group):
        data = verifiable.inputs(dtype, op, n, group.rank, size)
        assert group.allreduce(data, op, algorithm, dtype=dtype) is data
        return data

    for found in results(groups, work):
        assert verifiable.wrong(found, wanted) == 0


@pytest.mark.parametrize("algorithm", ALLREDUCE)
def test_all_ranks_have_the_same_bits_and_so_has_the_next_run(algorithm):
    size, n = 7, 1001
    data = [np.random.default_rng(rank).standard_normal(n).astype(np.float32) for rank in range(7)]

    def run():
        found = results(
            make_local(size), lambda g: g.allreduce(data[g.rank].copy(), algorithm=algorithm)
        )
        assert len({array.tobytes() for array in found}) == 1
        return found[0].tobytes()

    assert run() == run()


def test_the_order_of_additions_is_part_of_the_result():
    """The lecture's remark: float addition is commutative, but not associative.

    Of 1e8, 1 and -1e8, in float32, the order of ranks loses the 1 and the ring's does not.
    """
    data = [np.full(3, value, np.float32) for value in (1e8, 1.0, -1e8)]

    def sum_by(algorithm):
        found = results(
            make_local(3), lambda g: g.allreduce(data[g.rank].copy(), algorithm=algorithm)
        )
        return found[0].tolist()

    in_order = functools.reduce(np.add, data).tolist()
    assert in_order == [0.0, 0.0, 0.0]
    for algorithm in ("parameter-server", "sharded-server", "naive-serial", "naive-shift"):
        assert sum_by(algorithm) == in_order, algorithm
    assert sum_by("ring") == [0.0, 1.0, 0.0]  # chunk 1 is added in the order 2, 0, 1


@pytest.mark.parametrize("algorithm", ALLREDUCE)
def test_not_a_number_infinity_and_minus_zero_are_what_numpy_makes_of_them(algorithm):
    values = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 1.0], np.float64)
    data = [np.roll(values, rank) for rank in range(4)]
    for op, ufunc in (("sum", np.add), ("min", np.minimum), ("max", np.maximum)):
        found = results(
            make_local(4), lambda g, op=op: g.allreduce(data[g.rank].copy(), op, algorithm)
        )
        assert len({array.tobytes() for array in found}) == 1
        with np.errstate(invalid="ignore"):
            used = data[:-1] if algorithm == "dedicated-server" else data
            np.testing.assert_array_equal(found[0], functools.reduce(ufunc, used))


def test_a_modular_sum_wraps_in_every_algorithm():
    masks = [np.array([2**32 - 1, 5], np.uint32), np.array([3, 2**32 - 5], np.uint32)]
    for algorithm in ("ring", "double-tree", "halving-doubling", "recursive-doubling"):
        found = results(
            make_local(2), lambda g, a=algorithm: g.allreduce(masks[g.rank].copy(), algorithm=a)
        )
        assert found[0].tolist() == [2, 0]


def test_a_long_vector_goes_in_slices_and_several_calls_go_on_at_once():
    n = 2_500_000  # three slices
    groups = make_local(3)

    def work(group):
        first, second = np.full(n, group.rank + 1.0, np.float32), np.arange(5) * (group.rank + 1)
        works = [
            group.start("allreduce", first, algorithm="ring"),
            group.start("allreduce", second, algorithm="double-tree"),
            group.start("broadcast", np.full(3, group.rank), root=2),
        ]
        return [work.wait() for work in reversed(works)][::-1]

    for first, second, third in results(groups, work):
        assert (first == 6).all()
        assert second.tolist() == [0, 6, 12, 18, 24]
        assert third.tolist() == [2, 2, 2]


def test_an_array_that_is_not_contiguous_is_reduced_where_it_lies():
    groups = make_local(2)

    def work(group):
        whole = np.arange(12.0).reshape(3, 4)
        group.allreduce(whole[:, 1:3])
        return whole

    wanted = np.arange(12.0).reshape(3, 4)
    wanted[:, 1:3] *= 2
    for found in results(groups, work):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("n", [0, 1, 7, 40])
def test_the_other_collectives(size, n):
    starts = bounds(n, size)

    def work(group):
        rank = group.rank
        mine = np.arange(n) + 100 * rank
        scattered = group.reduce_scatter(mine)
        np.testing.assert_array_equal(
            scattered,
            (np.arange(n) * size + 100 * sum(range(size)))[starts[rank] : starts[rank + 1]],
        )
        gathered = group.all_gather(mine)
        np.testing.assert_array_equal(
            gathered, np.concatenate([np.arange(n) + 100 * r for r in range(size)])
        )
        root = size - 1
        np.testing.assert_array_equal(group.broadcast(mine.copy(), root), np.arange(n) + 100 * root)
        reduced = group.reduce(mine.copy(), root)
        wanted = np.arange(n) * size + 100 * sum(range(size)) if rank == root else mine
        np.testing.assert_array_equal(reduced, wanted)
        blocks = np.arange(2 * size) + 100 * rank
        exchanged = group.all_to_all(blocks)
        wanted = [100 * r + 2 * rank + i for r in range(size) for i in (0, 1)]
        np.testing.assert_array_equal(exchanged, wanted)
        group.barrier()

    results(make_local(size), work)


def test_messages_are_matched_by_tag_in_their_order():
    groups = make_local(2)

    def work(group):
        if group.rank == 0:
            for value, tag in ((1, 5), (2, 6), (3, 5)):
                group.send(np.full(2, value), 1, tag)
            return None
        return [int(group.recv(np.zeros(2, int), 0, tag)[0]) for tag in (6, 5, 5)]

    assert results(groups, work)[1] == [2, 1, 3]


def test_two_may_both_send_first():
    def work(group):
        group.send(np.full(100_000, group.rank), 1 - group.rank)
        return int(group.recv(np.zeros(100_000, int), 1 - group.rank)[7])

    assert results(make_local(2), work) == [1, 0]


def test_a_message_received_as_something_else_is_a_mismatch_for_both():
    def work(group):
        if group.rank == 0:
            group.send(np.zeros(3), 1)
            group.barrier()
        else:
            group.recv(np.zeros(3, np.float32), 0)

    for error in together(make_local(2), work):
        assert isinstance(error, Mismatch)
        assert "3 × float64" in str(error)
        assert "3 × float32" in str(error)


CALLS = {
    "another collective": lambda g: g.all_gather(np.zeros(2)),
    "another size": lambda g: g.allreduce(np.zeros(5), algorithm="ring"),
    "another type": lambda g: g.allreduce(np.zeros(4, np.float32), algorithm="ring"),
    "another reduction": lambda g: g.allreduce(np.zeros(4), "max", "ring"),
    "another algorithm": lambda g: g.allreduce(np.zeros(4), algorithm="double-tree"),
    "another root": lambda g: g.broadcast(np.zeros(4), root=1),
    "a barrier": lambda g: g.barrier(),
}


@pytest.mark.parametrize("what", CALLS)
@pytest.mark.parametrize("size", [2, 5])
def test_ranks_that_call_different_things_are_all_told_both_calls(what, size):
    common = (
        (lambda g: g.broadcast(np.zeros(4), root=0))
        if what == "another root"
        else (lambda g: g.allreduce(np.zeros(4), algorithm="ring"))
    )
    groups = make_local(size, timeout_s=20)
    found = together(groups, lambda g: (CALLS[what] if g.rank == size - 1 else common)(g))
    texts = {str(error) for error in found}
    for error in found:
        assert isinstance(error, Mismatch), error
        assert error.args[0].count(" called ") == 2
    assert any(f"rank {size - 1}" in text for text in texts)
    with pytest.raises(Mismatch):
        groups[0].barrier()  # the group is over, and says why


def test_a_rank_that_does_not_come_is_named():
    groups = make_local(3, timeout_s=0.2)

    def work(group):
        if group.rank != 1:
            group.allreduce(np.zeros(4))

    found = together(groups, work)
    for rank in (0, 2):
        assert isinstance(found[rank], RankLate)
        assert "rank 1 has not begun it" in str(found[rank])


def test_a_dead_rank_is_named_by_all_others():
    groups = make_local(4, timeout_s=20)

    def work(group):
        if group.rank == 2:
            group.fabric.kill(2)
            return
        group.allreduce(np.zeros(4), algorithm="ring")

    found = together(groups, work)
    for rank in (0, 1, 3):
        assert isinstance(found[rank], RankLost)
        assert "rank 2 is gone" in str(found[rank])


def test_calls_that_make_no_sense_are_refused_before_they_begin():
    group = make_local(1)[0]
    read_only = np.zeros(3)
    read_only.flags.writeable = False
    for call in (
        lambda: group.allreduce(np.zeros(3, np.complex64)),
        lambda: group.allreduce(np.zeros(3, np.uint8)),
        lambda: group.allreduce(np.zeros(3), "median"),
        lambda: group.allreduce(np.zeros(3, np.int32), "mean"),
        lambda: group.allreduce(np.zeros(3), algorithm="quick"),
        lambda: group.allreduce(np.zeros(3), dtype="bfloat16"),
        lambda: group.allreduce(read_only),
        lambda: group.broadcast(np.zeros(3), root=1),
        lambda: group.send(np.zeros(3), 0),
        lambda: group.start("allsum", np.zeros(3)),
        lambda: make_local(2)[0].all_to_all(np.zeros(3)),
    ):
        with pytest.raises(BadCall):
            call()
    assert group.allreduce(np.ones(3)).tolist() == [1, 1, 1]


def test_a_closed_group_says_so():
    group = make_local(1)[0]
    group.close()
    with pytest.raises(GroupClosed):
        group.barrier()
    assert repr(group) == "<Group rank=0/1 epoch=1 over local>"


@pytest.mark.parametrize("algorithm", ALLREDUCE)
def test_what_is_counted_is_what_the_schedule_costs(algorithm):
    from ddp.schedules.checker import count

    size, n = 8, 800
    groups = make_local(size)
    results(groups, lambda g: g.allreduce(np.zeros(n), algorithm=algorithm))
    cost = count(schedule_of("allreduce", algorithm, size), n)
    records = [group.fabric.engine.recorder.records[-1] for group in groups]
    assert [record.sent for record in records] == [8 * sent for sent in cost.sent]
    assert max(record.rounds for record in records) == cost.rounds
    assert max(record.fan_in for record in records) == cost.fan_in


def test_the_flight_recorder_says_for_whom_a_call_waits():
    groups = make_local(3)
    work = groups[0].start("allreduce", np.zeros(3), algorithm="ring")
    groups[1].start("allreduce", np.zeros(3), algorithm="ring")
    (line,) = groups[0].why()
    assert line.startswith("#0 allreduce(3 × float64, sum, ring), open for ")
    assert line.endswith("rank 2 has not begun it")
    groups[2].allreduce(np.zeros(3), algorithm="ring")
    work.wait()
    assert "came last" in groups[0].why()[-1] or "nothing is open" in groups[0].why()[-1]


def test_auto_can_be_forbidden_or_prescribed(monkeypatch):
    monkeypatch.setenv("RING_DDP_ALGORITHM", "naive-shift")
    groups = make_local(4)
    results(groups, lambda g: g.allreduce(np.zeros(3)))
    assert "naive-shift" in groups[0].fabric.engine.recorder.records[-1].call
    monkeypatch.setenv("RING_DDP_ALGORITHM", "^recursive-doubling")
    groups = make_local(4)
    results(groups, lambda g: g.allreduce(np.zeros(3)))
    assert "recursive-doubling" not in groups[0].fabric.engine.recorder.records[-1].call


# -- groups of some


def test_a_group_is_split_by_rows_and_columns_and_all_go_on_at_once():
    """Six ranks as two rows of three: a sum along each, messages in each, and the whole as well."""

    def rank(world):
        row = world.split(range(world.rank // 3 * 3, world.rank // 3 * 3 + 3))
        column = world.split([world.rank % 3 + 3, world.rank % 3])  # the lower row is first
        mine = np.array([float(world.rank)])
        works = [g.start("allreduce", mine.copy()) for g in (row, column, world)]
        sums = [float(work.wait()[0]) for work in works]
        if column.rank == 0:
            column.send(mine, 1)
        else:
            assert column.recv(np.empty(1), 0) == world.rank + 3
        assert (row.size, row.rank, column.size) == (3, world.rank % 3, 2)
        return [*sums, column.rank]

    found = run_local(6, rank)
    assert found == [[3 + 9 * (r // 3), 2 * (r % 3) + 3, 15, 1 - r // 3] for r in range(6)]


def test_bytes_of_any_length_are_exchanged():
    said = [b"", b"x", b"\0" * 1000]
    assert run_local(3, lambda group: group.exchange(said[group.rank])) == [said] * 3


@pytest.mark.parametrize("members", [[1], [0, 0], [0, 2], []])
def test_a_part_without_oneself_or_with_strangers_is_refused(members):
    with pytest.raises(BadCall, match="are no ranks of 2"):
        make_local(2)[0].split(members)


def test_a_death_is_noticed_in_every_part_and_nowhere_else():
    died = threading.Event()

    def rank(world):
        part = world.split([0, 1] if world.rank < 2 else [2, 3])
        if world.rank == 1:
            world.fabric.kill(1)
            died.set()
            return None
        died.wait(20)
        return float(part.allreduce(np.ones(1))[0])

    found = together(make_local(4, timeout_s=20), rank)
    assert isinstance(found[0], RankLost)
    assert found[1:] == [None, 2.0, 2.0]


def test_a_part_ends_with_its_group():
    world = alone()
    part = world.split([0])
    world.close()
    with pytest.raises(GroupClosed):
        part.barrier()


def test_a_rank_that_fails_ends_the_others_and_its_error_is_raised():
    seen = []

    def rank(group):
        if group.rank == 1:
            raise RuntimeError("this one")
        try:
            group.recv(np.empty(1), 1)
        except RankLost as error:
            seen.append(str(error))
            raise

    with pytest.raises(RuntimeError, match="this one"):
        run_local(2, rank)
    assert seen == ["rank 1 is gone: it failed: this one"]
