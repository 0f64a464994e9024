"""Gradients against finite differences, and multiply-adds counted one by one."""

from __future__ import annotations

import importlib.util
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddp.training import functional as f
from ddp.training.autograd import Parameter, Tensor, unbroadcast
from ddp.training.counting import counting, rule
from ddp.training.layers import Attention, Making
from ddp.training.models import Spec, build
from ddp.training.optimizers import Adam, Sgd

DICE = np.random.default_rng(5)


def normal(*shape):
    return DICE.standard_normal(shape)


def slope(function, parameter, epsilon=1e-6):
    """dfunction/dparameter by central differences."""
    found = np.zeros_like(parameter.data)
    for index in np.ndindex(*parameter.shape):
        kept = parameter.data[index]
        parameter.data[index] = kept + epsilon
        above = float(function().data)
        parameter.data[index] = kept - epsilon
        found[index] = (above - float(function().data)) / (2 * epsilon)
        parameter.data[index] = kept
    return found


def check(function, *parameters):
    for parameter in parameters:
        parameter.grad = None
    function().backward()
    for parameter in parameters:
        np.testing.assert_allclose(parameter.grad, slope(function, parameter), atol=2e-7)


A, B = Parameter("a", normal(3, 4)), Parameter("b", normal(4, 2))
ROW, CUBE = Parameter("row", normal(4)), Parameter("cube", normal(2, 3, 4))
MIX = Tensor(normal(2, 3, 4))
LABELS = np.array([1, 0, 3])
OPERATIONS = {
    "matmul": (lambda: (A @ B).sum(), (A, B)),
    "batched matmul": (lambda: (CUBE @ B).sum(), (CUBE, B)),
    "product of batches": (lambda: (CUBE @ CUBE.transpose(0, 2, 1)).sum(), (CUBE,)),
    "a broadcast operand of a batch": (lambda: (A @ CUBE.transpose(0, 2, 1)).sum(), (A, CUBE)),
    "add, broadcast": (lambda: (A + ROW).sum(), (A, ROW)),
    "sub": (lambda: ((A - ROW) * (A - ROW)).sum(), (A, ROW)),
    "mul, broadcast": (lambda: (CUBE * A * ROW).sum(), (CUBE, A, ROW)),
    "scale and reshape": (lambda: (A.reshape(2, 6).scale(3.0) * A.reshape(2, 6)).sum(), (A,)),
    "relu": (lambda: (f.relu(A) * A).sum(), (A,)),
    "softmax": (lambda: (f.softmax(CUBE) * MIX).sum(), (CUBE,)),
    "causal softmax": (
        lambda: (f.softmax(CUBE @ CUBE.transpose(0, 2, 1), causal=True) @ MIX).sum(),
        (CUBE,),
    ),
    "cross entropy": (lambda: f.cross_entropy(A, LABELS, 5), (A,)),
    "layer norm": (lambda: (f.layer_norm(CUBE, ROW, ROW) * MIX).sum(), (CUBE, ROW)),
    "rows": (lambda: (f.rows(A, np.array([[0, 2], [2, 2]])) * ROW).sum(), (A, ROW)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_gradients_are_those_of_finite_differences(name):
    check(*(lambda function, leaves: (function, *leaves))(*OPERATIONS[name]))


def test_a_whole_transformer():
    model = build(Spec("transformer", 5, 7, width=8, depth=1, heads=2))
    x = DICE.integers(0, 7, (2, 5))
    y = DICE.integers(0, 7, (2, 5))
    check(lambda: f.cross_entropy(model(Tensor(x)), y, y.size), *model.parameters())


def test_a_tensor_used_twice_gets_both_gradients():
    x = Parameter("x", np.array([3.0]))
    (x * x + x).sum().backward()
    assert x.grad == 7.0


def test_gradients_add_up_over_backwards():
    x = Parameter("x", np.array([3.0]))
    for _ in range(2):
        x.scale(2.0).sum().backward()
    assert x.grad == 4.0


def test_nothing_is_kept_of_what_needs_no_gradient():
    result = Tensor(normal(2, 2)) @ Tensor(normal(2, 2))
    assert result.parents == ()
    assert result.pullback is None


def test_backward_wants_one_number():
    with pytest.raises(ValueError, match=r"a loss is one number, not \(3, 4\)"):
        A.backward()


def test_a_weight_is_complete_before_the_layers_before_it():
    """What lets a bucket leave early: the last layer's gradient comes first."""
    model = build(Spec("mlp", 4, 3, width=4, depth=2))
    seen = []
    for parameter in model.parameters():
        parameter.on_gradient = lambda p: seen.append(p.name)
    f.cross_entropy(model(Tensor(normal(5, 4))), np.zeros(5, int), 5).backward()
    backwards = [p.name.partition(".")[0] for p in model.parameters()][::-1]
    assert [name.partition(".")[0] for name in seen] == backwards


@given(st.lists(st.integers(1, 3), max_size=3), st.lists(st.booleans(), max_size=3))
@settings(max_examples=50, deadline=None)
def test_unbroadcast_undoes_broadcasting(shape, repeated):
    small = tuple(1 if r else n for n, r in zip(shape, repeated, strict=False))
    whole = np.broadcast_shapes((2, *shape[: len(small)]), small)
    back = unbroadcast(np.ones(whole), small)
    assert back.shape == small
    assert back.sum() == np.prod(whole)


def test_designed_reprs():
    assert repr(A) == "<Parameter a float64[3, 4]>"
    assert repr(A @ B) == "<Tensor float64[3, 2] result>"
    assert repr(build(Spec("mlp", 4, 3, width=4, depth=0))) == "<Chain layers=2 parameters=35>"
    assert repr(Adam()) == "<Adam rate=0.001 t=0>"


# -- optimizers


def steps(optimizer, gradients, start=1.0):
    parameter = Parameter("w", np.array([start]))
    for gradient in gradients:
        parameter.grad = np.array([gradient])
        optimizer.step([parameter])
    return float(parameter.data[0])


def test_descent_and_momentum_by_hand():
    assert steps(Sgd(0.1), [2.0, 4.0]) == pytest.approx(1.0 - 0.2 - 0.4)
    assert steps(Sgd(0.1, momentum=0.5), [2.0, 4.0]) == pytest.approx(1.0 - 0.2 - 0.1 * (1 + 4))


def test_adams_first_step_has_the_length_of_the_rate():
    """Kingma and Ba, §2.1: whatever the scale of the gradient."""
    for gradient in (1e-3, 1.0, 1e3):
        assert steps(Adam(0.01), [gradient]) == pytest.approx(0.99, abs=1e-6)


@pytest.mark.parametrize("make", [lambda: Sgd(0.1, 0.9), lambda: Adam(0.1)])
def test_an_optimizer_goes_on_from_its_state(make):
    whole = steps(make(), [1.0, 2.0, 3.0])
    first, second = make(), make()
    middle = steps(first, [1.0, 2.0])
    second.restore(first.state())
    assert steps(second, [3.0], middle) == whole


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="pip install torch==2.13.0")
def test_torch_says_the_same():
    import torch

    layer = Attention("a", 8, 2, Making())
    x = normal(2, 5, 8)
    (layer(Tensor(x)) * Tensor(np.ones((2, 5, 8)))).sum().backward()
    theirs = {p.name: torch.tensor(p.data, requires_grad=True) for p in layer.parameters()}
    split = [
        (torch.tensor(x) @ theirs[f"a.{role}.weight"]).view(2, 5, 2, 4).transpose(1, 2)
        for role in ("query", "key", "value")
    ]
    said = torch.nn.functional.scaled_dot_product_attention(*split, is_causal=True)
    (said.transpose(1, 2).reshape(2, 5, 8) @ theirs["a.mix.weight"]).sum().backward()
    for parameter in layer.parameters():
        np.testing.assert_allclose(parameter.grad, theirs[parameter.name].grad, atol=1e-12)


# -- the cost of training


class Counted:
    """A number that counts what is done with it."""

    multiplied = 0
    added = 0

    def __init__(self, value):
        self.value = value

    def __mul__(self, other):
        Counted.multiplied += 1
        return Counted(self.value * getattr(other, "value", other))

    __rmul__ = __mul__

    def __add__(self, other):
        Counted.added += 1
        return Counted(self.value + getattr(other, "value", other))

    __radd__ = __add__

    def __sub__(self, other):
        return Counted(self.value - other.value)

    def __gt__(self, other):
        return self.value > other


counted = np.frompyfunc(Counted, 1, 1)


def test_the_counter_counts_what_numbers_count_themselves():
    m, k, n = 3, 5, 2
    Counted.multiplied = Counted.added = 0
    with counting() as work:
        Tensor(counted(normal(m, k))) @ Tensor(counted(normal(k, n)))
    assert work.multiply_adds == Counted.multiplied == m * k * n
    assert Counted.added == m * (k - 1) * n  # the lecture's (2k − 1)·m·n in all


def test_training_costs_six_times_parameters_times_batch():
    """LEC 22: 2 forward, 2 for dW, 2 for dX; the first layer needs no dX."""
    batch, sizes = 8, (16, 24, 24, 4)
    weights = [
        Parameter(f"w{i}", counted(normal(*shape)))
        for i, shape in enumerate(itertools.pairwise(sizes))
    ]
    Counted.multiplied = Counted.added = 0
    with counting() as work:
        x = Tensor(counted(normal(batch, sizes[0])))
        for weight in weights:
            x = f.relu(x @ weight)
        x.backward(counted(np.ones((batch, sizes[-1]))))
    parameters = sum(w.data.size for w in weights)
    assert work.flop == rule(parameters, batch) - 2 * weights[0].data.size * batch
    # Outside the products, only the masks multiply: a unit forward, and again backward.
    masks = 2 * batch * sum(sizes[1:])
    assert Counted.multiplied == work.multiply_adds + masks


def test_the_rule_on_a_real_step():
    spec = Spec("mlp", 64, 10, width=128, depth=2)
    model = build(spec)
    with counting() as work:
        f.cross_entropy(model(Tensor(normal(32, 64))), np.zeros(32, int), 32).backward()
    without_biases = sum(p.data.size for p in model.parameters() if p.data.ndim == 2)
    assert work.flop == rule(without_biases, 32) - 2 * 64 * 128 * 32
    assert 0.9 < work.flop / rule(model.size, 32) < 1.0
    assert work.products == 3 * 6 - 1
