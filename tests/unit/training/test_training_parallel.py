"""Any division of the work gives what one process gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddp import local
from ddp.local import run_local
from ddp.training import layers
from ddp.training.autograd import Parameter, Tensor
from ddp.training.buckets import BUCKETS_MAX, Buckets
from ddp.training.errors import TrainingError
from ddp.training.grid import Grid, Place
from ddp.training.layers import Making
from ddp.training.models import Spec, build
from ddp.training.optimizers import Adam, Sgd
from ddp.training.order import DataOrder
from ddp.training.trainer import Trainer, train_alone

STEPS, BATCH = 4, 24
GRIDS = [
    Grid(dp, pp, tp)
    for dp in range(1, 9)
    for pp in range(1, 9)
    for tp in range(1, 9)
    if 1 < dp * pp * tp <= 8
]
MLP = Spec("mlp", 12, 5, width=6, depth=6)
WORDS = Spec("transformer", 6, 11, width=40, depth=6, heads=40)


def samples(spec):
    dice = np.random.default_rng(3)
    if spec.kind == "mlp":
        return dice.standard_normal((60, spec.inputs)), dice.integers(0, spec.classes, 60)
    whole = dice.integers(0, spec.classes, (60, spec.inputs + 1))
    return whole[:, :-1], whole[:, 1:]


def curve(trainer, x, y, steps=STEPS, batch=BATCH):
    order = DataOrder(1, len(x), batch)
    losses = [trainer.step(x[rows], y[rows]) for rows in (order.rows(i) for i in range(steps))]
    return [*losses, trainer.accuracy(x, y)]


def divided(spec, grid, make_optimizer, **options):
    x, y = samples(spec)

    def rank(world):
        return curve(Trainer(spec, grid, world, make_optimizer(), **options), x, y)

    return run_local(grid.size, rank)


def alone(spec, make_optimizer):
    return curve(train_alone(spec, make_optimizer()), *samples(spec))


# A width of 6 makes 24 hidden units, which 5 and 7 ranks cannot share evenly.
FITS = [grid for grid in GRIDS if grid.tp not in (5, 7)]


@pytest.mark.parametrize("grid", FITS, ids=str)
def test_every_grid_of_up_to_eight_ranks_equals_one_process(grid):
    """Row 43: dp x pp x tp, four steps, the losses and the accuracy of the model that came out."""
    expected = alone(MLP, lambda: Adam(0.01))
    for found in divided(MLP, grid, lambda: Adam(0.01), micros=3, bucket_bytes=400):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("tp", [5, 7])
def test_widths_that_five_and_seven_ranks_share(tp):
    spec = Spec("mlp", 12, 5, width=35, depth=1)
    expected = alone(spec, lambda: Sgd(0.1))
    for found in divided(spec, Grid(tp=tp), lambda: Sgd(0.1)):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("text", ["dp=3", "pp=3", "tp=4", "tp=8", "pp=2,tp=2", "dp=2,pp=2,tp=2"])
def test_a_transformer_with_its_heads_divided(text):
    expected = alone(WORDS, lambda: Adam(0.01))
    options = {"micros": 2, "bucket_bytes": 20_000, "schedule": "gpipe"}
    for found in divided(WORDS, Grid.parse(text), lambda: Adam(0.01), **options):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


def test_ranks_of_one_replica_group_stay_equal_bit_for_bit():
    x, y = samples(MLP)

    def rank(world):
        trainer = Trainer(MLP, Grid(dp=4), world, Adam(0.01), bucket_bytes=400)
        curve(trainer, x, y)
        return b"".join(p.data.tobytes() for p in trainer.parameters)

    assert len(set(run_local(4, rank))) == 1


def test_data_parallel_is_the_sum_in_rank_order_bit_for_bit():
    """Each rank's part done here, one after the other, and added up in their order."""
    x, y = samples(MLP)
    grid = Grid(dp=3)
    found = divided(MLP, grid, lambda: Sgd(0.001), bucket_bytes=400)[0]
    from ddp.training.functional import cross_entropy

    model, optimizer, order = build(MLP), Sgd(0.001), DataOrder(1, len(x), BATCH)
    for step in range(STEPS):
        sums, loss = None, np.zeros(1)
        for rank in range(3):
            rows = order.part(step, rank, 3)
            part = cross_entropy(model(Tensor(x[rows])), y[rows], BATCH)
            part.backward()
            grads = [p.grad for p in model.parameters()]
            sums = grads if sums is None else [a + b for a, b in zip(sums, grads, strict=True)]
            loss = loss + float(part.data)
            for p in model.parameters():
                p.grad = None
        assert float(loss[0]) == found[step]
        for p, total in zip(model.parameters(), sums, strict=True):
            p.grad = total
        optimizer.step(model.parameters())


# -- buckets


class Watched:
    """A group of one that writes down what is asked of it, and doubles what it sums."""

    rank, size = 0, 2

    def __init__(self, log):
        self.log = log

    def start(self, kind, array, *, algorithm):
        assert (kind, algorithm) == ("allreduce", "sharded-server")  # in the order of ranks
        self.log.append(("start", array.size))
        array *= 2
        return self

    def wait(self):
        self.log.append(("wait",))


def test_buckets_leave_while_backward_runs():
    model = build(Spec("mlp", 12, 5, width=6, depth=3))
    parameters = list(model.parameters())
    log = []
    buckets = Buckets(parameters, Watched(log), bucket_bytes=1200)
    buckets.arm()
    x, y = samples(MLP)
    from ddp.training.functional import cross_entropy

    cross_entropy(model(Tensor(x)), y, len(x)).backward()
    assert len(buckets.buckets) > 2
    # All but the last left before the last gradient was there.
    assert buckets.started == sorted(buckets.started, reverse=True)
    assert all(missing > 0 for missing in buckets.started[:-1])
    assert [entry[0] for entry in log] == ["start"] * len(buckets.buckets)
    before = [p.grad.copy() for p in parameters]
    buckets.finish()
    assert log[-1] == ("wait",)
    for parameter, own in zip(parameters, before, strict=True):
        np.testing.assert_array_equal(parameter.grad, 2 * own)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=12), st.integers(8, 400))
@settings(max_examples=60, deadline=None)
def test_every_parameter_is_in_one_bucket(sizes, bucket_bytes):
    parameters = [Parameter(str(i), np.zeros(n)) for i, n in enumerate(sizes)]
    buckets = Buckets(parameters, local.alone(), bucket_bytes)
    names = [p.name for bucket in buckets.buckets for p in bucket.parameters]
    assert names == [p.name for p in parameters[::-1]]
    for bucket in buckets.buckets:
        assert len(bucket.parameters) == 1 or bucket.flat.nbytes <= bucket_bytes


def test_a_large_model_gets_larger_buckets_not_more_than_may_be_open():
    parameters = [Parameter(str(i), np.zeros(10)) for i in range(1000)]
    buckets = Buckets(parameters, local.alone(), bucket_bytes=100)
    assert 1 < len(buckets.buckets) <= BUCKETS_MAX
    assert sum(len(bucket.parameters) for bucket in buckets.buckets) == 1000


def test_a_parameter_without_gradient_is_named():
    used, unused = Parameter("used", np.ones(2)), Parameter("unused", np.ones(2))
    buckets = Buckets([used, unused], Watched([]))
    buckets.arm()
    used.sum().backward()
    with pytest.raises(TrainingError, match="no gradient for: unused"):
        buckets.finish()


# -- tensor parallel layers


def test_row_and_column_parts_make_up_the_whole():
    whole = Making(seed=4).weight("w", 8, 12)
    for axis in (0, 1):
        parts = run_local(4, lambda group, axis=axis: Making(4, group=group).part(whole, axis))
        np.testing.assert_array_equal(np.concatenate(parts, axis=axis), whole)


def test_one_sum_forward_and_one_backward():
    """Megatron §3: a feed-forward layer costs two sums of batch x width, whatever its size."""

    def rank(group):
        layer = layers.FeedForward("f", 8, 32, Making(group=group))
        x = Tensor(np.ones((3, 8)), needs_grad=True)
        layer(x).sum().backward()
        return x.grad, group.counters["calls"], group.counters["sent_bytes"]

    first, second = run_local(2, rank)
    np.testing.assert_array_equal(first[0], second[0])
    for _, calls, sent in (first, second):
        assert (calls, sent) == (2, 2 * 3 * 8 * 8)  # of a sum of N bytes, each of two sends N


# -- the grid


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_groups_partition_the_ranks_and_meet_in_one(grid):
    for kind in ("dp", "pp", "tp"):
        groups = {tuple(grid.group(kind, rank)) for rank in range(grid.size)}
        assert sorted(rank for group in groups for rank in group) == list(range(grid.size))
    for rank in range(grid.size):
        assert grid.rank(grid.place(rank)) == rank
        for one, other in (("dp", "pp"), ("dp", "tp"), ("pp", "tp")):
            assert set(grid.group(one, rank)) & set(grid.group(other, rank)) == {rank}


def test_the_picture_in_the_head_comment():
    grid = Grid(2, 2, 2)
    assert grid.place(6) == Place(data=1, stage=1, tensor=0)
    assert grid.group("tp", 6) == [6, 7]
    assert grid.group("dp", 6) == [4, 6]
    assert grid.group("pp", 6) == [2, 6]


@pytest.mark.parametrize("text", ["dp", "dp=x", "qp=2", "dp=2;pp=2"])
def test_what_is_no_grid(text):
    with pytest.raises(TrainingError, match="write dp=2,pp=2,tp=2"):
        Grid.parse(text)


def test_impossible_divisions_say_so():
    with pytest.raises(TrainingError, match="tp=5 does not divide 24 hidden units"):
        run_local(5, lambda world: Trainer(MLP, Grid(tp=5), world, Sgd(1)))
    with pytest.raises(TrainingError, match="8 layers cannot make 9 stages"):
        build(MLP, stages=9)
    with pytest.raises(TrainingError, match="2 samples make no 1 x 3 parts"):
        train_alone(MLP, Sgd(1), micros=3).step(*(a[:2] for a in samples(MLP)))


# -- the order of the data


@given(st.integers(0, 5), st.integers(1, 40), st.data())
@settings(max_examples=60, deadline=None)
def test_each_pass_has_each_sample_once_whoever_is_there(seed, samples, data):
    order = DataOrder(seed, samples, data.draw(st.integers(1, samples)))
    taken = []
    for step in range(order.steps_per_pass):
        size = data.draw(st.integers(1, 5))
        parts = [order.part(step, rank, size) for rank in range(size)]
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        np.testing.assert_array_equal(np.concatenate(parts), order.rows(step))
        taken += [*order.rows(step)]
    assert len(taken) == len(set(taken)) == order.steps_per_pass * order.batch


def test_passes_are_shuffled_anew():
    order = DataOrder(0, 20, 20)
    assert [*order.rows(0)] != [*order.rows(1)]
    assert [*order.rows(1)] == [*DataOrder(0, 20, 20).rows(1)]
