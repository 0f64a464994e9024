"""Jobs, their data, and what the ranks of a run say."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from ddp.local import run_local
from ddp.schedules.catalogue import IN_RANK_ORDER
from ddp.training.data import CONTEXT, load, topics
from ddp.training.errors import BadCheckpoint, TrainingError
from ddp.training.grid import Grid
from ddp.training.job import Job, Learner
from ddp.training.run import train_rank
from ddp.training.worker import SERVED

sklearn = pytest.mark.skipif(
    not __import__("importlib.util").util.find_spec("sklearn"),
    reason="pip install 'ringleader[data]'",
)
WORDS = Job("transformer", "topics", steps=3, batch=6, width=16, depth=1, heads=2)


def run(job, grid, micros=1):
    """What the first rank says, and what each returns."""

    def rank(world):
        said = []
        events = train_rank(world, asdict(job), str(grid), micros, "1f1b")
        while True:
            try:
                said.append(next(events))
            except StopIteration as end:
                return said, end.value

    found = run_local(grid.size, rank)
    assert not any(said for said, _ in found[1:])
    return found[0][0], [result for _, result in found]


def of(lines, kind):
    return [event for event in lines if event["kind"] == kind]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_parameter_server_makes_the_bits_that_the_workers_make_without_it(workers):
    """Whoever adds, it is added in the order of ranks; so the server may die, and nobody sees it in
    the loss."""

    def train(size):
        def rank(group):
            learner, served = Learner(WORDS), size > workers
            for step in range(3):
                if group.rank < workers:
                    part = learner.gradient(step, group.rank, workers)
                else:
                    part = learner.nothing()
                group.allreduce(part, algorithm=SERVED if served else IN_RANK_ORDER)
                learner.apply(part)
            return learner.checksum()

        return run_local(size, rank)

    served, alone = train(workers + 1), train(workers)
    assert set(served) == set(alone)
    assert len(set(served)) == 1


def test_topics_are_text_and_the_byte_behind_each():
    data = topics()
    assert data.train_x.shape[1] == CONTEXT
    np.testing.assert_array_equal(data.train_x[:, 1:], data.train_y[:, :-1])
    text = "".join(chr(c) for c in data.train_x[:500].reshape(-1))
    assert " the " in text
    assert repr(data) == f"<Dataset topics train={len(data.train_x)} test={len(data.test_x)}>"


def test_a_run_says_its_losses_its_accuracy_and_its_cost():
    lines, results = run(WORDS, Grid(dp=2))
    losses = of(lines, "step")
    assert [line["step"] for line in losses] == [0, 1, 2]
    assert losses[-1]["loss"] < losses[0]["loss"]
    assert {result["parameters"] for result in results} == {7984}
    assert 0.5 < sum(result["flop"] for result in results) / results[0]["rule"] < 1.2
    # Three steps' gradients and losses, the accuracy three times: each of two sends all of it.
    assert [result["sent_bytes"] for result in results] == [8 * (3 * (7984 + 1) + 3)] * 2
    assert of(lines, "accuracy")[-1]["step"] == 3


def test_the_same_run_divided_says_the_same():
    whole, parts = (of(run(WORDS, grid, 2)[0], "step") for grid in (Grid(), Grid(2, 1, 2)))
    for one, other in zip(whole, parts, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-10)


@sklearn
def test_digits_are_learnt():
    """Row 41: real data, four replicas; nine of ten that it has never seen are right."""
    lines, _ = run(Job(steps=120, batch=64, width=32, depth=1), Grid(dp=4))
    assert of(lines, "accuracy")[-1]["accuracy"] > 0.9


@sklearn
def test_parts_of_a_step_make_the_whole_and_a_snapshot_goes_on():
    job = Job(steps=9, batch=30, width=8, depth=1)
    alone, ranks = Learner(job), [Learner(job) for _ in range(3)]
    for step in range(4):
        alone.apply(alone.gradient(step, 0, 1))
        parts = [rank.gradient(step, i, 3) for i, rank in enumerate(ranks)]
        losses = {rank.apply(sum(parts[1:], parts[0])) for rank in ranks}
        assert len(losses) == 1
        assert len({rank.checksum() for rank in ranks}) == 1
    for one, other in zip(alone.parameters, ranks[0].parameters, strict=True):
        np.testing.assert_allclose(one.data, other.data, atol=1e-12)
    late = Learner(job)
    late.restore(type(alone.snapshot(4)).decode(alone.snapshot(4).encode()))
    for learner in (alone, late):
        learner.apply(learner.gradient(4, 0, 1))
    assert late.checksum() == alone.checksum()


@sklearn
def test_a_snapshot_of_another_job_changes_nothing():
    learner = Learner(Job(width=8))
    before = learner.checksum()
    with pytest.raises(BadCheckpoint, match="it is of another job"):
        learner.restore(Learner(Job(width=8, seed=1)).snapshot(0))
    assert learner.checksum() == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer": "lamb"}, "there is no optimizer 'lamb'; there are: sgd, momentum, adam"),
        ({"dtype": "float16"}, "float32 or float64"),
        ({"steps": 0}, "one step"),
        ({"model": "transformer"}, "a transformer learns topics"),
    ],
)
def test_jobs_that_make_no_sense(changes, words):
    with pytest.raises(TrainingError, match=words):
        Job(**changes)


def test_an_unknown_data_set_is_told_the_known():
    with pytest.raises(TrainingError, match="there are: digits, topics"):
        load("imagenet")
