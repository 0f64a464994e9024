"""Layers, whole or as the part that one rank of a tensor-parallel group holds.

    column split   W = [W₀ W₁ …]   y_i = x·W_i                 each rank makes some of the outputs
    row split      W = [W₀; W₁ …]  y = Σ x_i·W_i               each rank takes some of the inputs

    FeedForward    column, ReLU, row              one sum forward (y), one backward (dx)
    Attention      heads as columns, then row     the same

Between the two nothing is sent. The pair of operations at the ends is Megatron's f and g (Shoeybi
et al. 2019, §3): `copy_to_group` does nothing forward and sums backward, `sum_over_group` sums
forward and does nothing backward. dW needs no communication at all.

A rank makes the *whole* weight from (seed, name) and cuts its part out of it, so that a model is
the same numbers however it is divided.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ddp.group import Group
from ddp.local import alone
from ddp.schedules.catalogue import IN_RANK_ORDER
from ddp.training.autograd import Array, Parameter, Tensor
from ddp.training.functional import layer_norm, relu, rows, softmax


@dataclass(frozen=True, slots=True)
class Making:
    """How layers are made: the dice's seed, the type of numbers, and the group that shares them."""

    seed: int = 0
    dtype: str = "float64"
    group: Group = field(default_factory=alone)

    def weight(self, name: str, inputs: int, outputs: int) -> Array:
        """He's initialisation of a whole weight; the same on each rank."""
        dice = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        whole = dice.standard_normal((inputs, outputs)) * np.sqrt(2.0 / inputs)
        return np.asarray(whole, self.dtype)

    def part(self, whole: Array, axis: int) -> Array:
        """This rank's part along an axis, which the group must divide evenly."""
        return np.array(np.split(whole, self.group.size, axis=axis)[self.group.rank])


class Layer(Protocol):
    """A function of one tensor, with parameters."""

    def __call__(self, x: Tensor) -> Tensor:
        """Forward."""

    def parameters(self) -> Iterator[Parameter]:
        """In a fixed order."""


def copy_to_group(x: Tensor, group: Group) -> Tensor:
    """f: the same on every rank; its gradient is the sum of what all ranks make of it."""
    if group.size == 1:
        return x
    return Tensor(x.data, (x,), lambda g: (_sum(g, group),))


def sum_over_group(x: Tensor, group: Group) -> Tensor:
    """g: the sum over all ranks; each rank's gradient is that of the sum."""
    if group.size == 1:
        return x
    return Tensor(_sum(x.data, group), (x,), lambda g: (g,))


def _sum(part: Array, group: Group) -> Array:
    return group.allreduce(np.array(part), algorithm=IN_RANK_ORDER)


class Dense:
    """x·W + b, whole on each rank. `activate`: with a ReLU behind."""

    def __init__(
        self, name: str, inputs: int, outputs: int, make: Making, *, activate: bool = False
    ) -> None:
        self.weight = Parameter(f"{name}.weight", make.weight(name, inputs, outputs))
        self.bias = Parameter(f"{name}.bias", np.zeros(outputs, make.dtype))
        self.activate = activate

    def __call__(self, x: Tensor) -> Tensor:
        """x: (…, inputs) to (…, outputs)."""
        y = x @ self.weight + self.bias
        return relu(y) if self.activate else y

    def parameters(self) -> Iterator[Parameter]:
        """In a fixed order."""
        yield self.weight
        yield self.bias


class FeedForward:
    """x + relu(x·W + b)·V + c: W by columns, V by rows over the group."""

    def __init__(self, name: str, width: int, hidden: int, make: Making) -> None:
        up, down = (
            make.weight(f"{name}.up", width, hidden),
            make.weight(f"{name}.down", hidden, width),
        )
        self.group = make.group
        self.up = Parameter(f"{name}.up.weight", make.part(up, axis=1))
        self.up_bias = Parameter(f"{name}.up.bias", make.part(np.zeros(hidden, make.dtype), axis=0))
        self.down = Parameter(f"{name}.down.weight", make.part(down, axis=0))
        # Once, behind the sum: in each part it would be added as often as there are ranks.
        self.down_bias = Parameter(f"{name}.down.bias", np.zeros(width, make.dtype))

    def __call__(self, x: Tensor) -> Tensor:
        """x: (…, width), whole on each rank; so is the result."""
        inner = relu(copy_to_group(x, self.group) @ self.up + self.up_bias)
        return x + (sum_over_group(inner @ self.down, self.group) + self.down_bias)

    def parameters(self) -> Iterator[Parameter]:
        """In a fixed order."""
        yield from (self.up, self.up_bias, self.down, self.down_bias)


class LayerNorm:
    """Mean 0 and deviation 1 along the last axis, then gain and bias; whole on each rank."""

    def __init__(self, name: str, width: int, make: Making) -> None:
        self.gain = Parameter(f"{name}.gain", np.ones(width, make.dtype))
        self.bias = Parameter(f"{name}.bias", np.zeros(width, make.dtype))

    def __call__(self, x: Tensor) -> Tensor:
        """x: (…, width)."""
        return layer_norm(x, self.gain, self.bias)

    def parameters(self) -> Iterator[Parameter]:
        """In a fixed order."""
        yield self.gain
        yield self.bias


class Attention:
    """Causal self-attention; the heads are divided over the group.

    q, k and v are split by columns, that is by heads; what the heads say is mixed by a weight
    split by rows. A head needs nothing of another.
    """

    def __init__(self, name: str, width: int, heads: int, make: Making) -> None:
        self.group = make.group
        self.heads = heads // make.group.size
        self.size = width // heads
        parts = {
            role: make.part(make.weight(f"{name}.{role}", width, width), axis=1)
            for role in ("query", "key", "value")
        }
        self.query, self.key, self.value = (
            Parameter(f"{name}.{role}.weight", part) for role, part in parts.items()
        )
        mix = make.part(make.weight(f"{name}.mix", width, width), axis=0)
        self.mix = Parameter(f"{name}.mix.weight", mix)

    def __call__(self, x: Tensor) -> Tensor:
        """x: (batch, places, width), whole on each rank; so is the result."""
        shared = copy_to_group(x, self.group)
        query, key, value = (self._by_head(shared @ w) for w in (self.query, self.key, self.value))
        scores = (query @ key.transpose(0, 1, 3, 2)).scale(self.size**-0.5)
        said = softmax(scores, causal=True) @ value
        batch, _, places, _ = said.shape
        together = said.transpose(0, 2, 1, 3).reshape(batch, places, self.heads * self.size)
        return sum_over_group(together @ self.mix, self.group)

    def _by_head(self, x: Tensor) -> Tensor:
        batch, places, _ = x.shape
        return x.reshape(batch, places, self.heads, self.size).transpose(0, 2, 1, 3)

    def parameters(self) -> Iterator[Parameter]:
        """In a fixed order."""
        yield from (self.query, self.key, self.value, self.mix)


class Block:
    """A transformer's layer: x + attention(norm x), then the feed-forward of its norm."""

    def __init__(self, name: str, width: int, heads: int, make: Making) -> None:
        self.before = LayerNorm(f"{name}.norm1", width, make)
        self.attention = Attention(f"{name}.attention", width, heads, make)
        self.between = LayerNorm(f"{name}.norm2", width, make)
        self.forward = FeedForward(f"{name}.feed", width, 4 * width, make)

    def __call__(self, x: Tensor) -> Tensor:
        """x: (batch, places, width)."""
        x = x + self.attention(self.before(x))
        return self.forward(self.between(x))

    def parameters(self) -> Iterator[Parameter]:
        """In a fixed order."""
        for layer in (self.before, self.attention, self.between, self.forward):
            yield from layer.parameters()


class Embedding:
    """A vector a byte, plus a vector a place."""

    def __init__(self, name: str, vocabulary: int, places: int, width: int, make: Making) -> None:
        scale = make.dtype
        table = make.weight(f"{name}.bytes", vocabulary, width)
        self.bytes = Parameter(f"{name}.bytes", table)
        self.places = Parameter(
            f"{name}.places", (0.1 * make.weight(f"{name}.places", places, width)).astype(scale)
        )

    def __call__(self, x: Tensor) -> Tensor:
        """x: (batch, places) of byte numbers to (batch, places, width)."""
        return rows(self.bytes, x.data) + self.places

    def parameters(self) -> Iterator[Parameter]:
        """In a fixed order."""
        yield self.bytes
        yield self.places


class Head:
    """The last of a transformer: a norm and the scores of every byte."""

    def __init__(self, name: str, width: int, vocabulary: int, make: Making) -> None:
        self.norm = LayerNorm(f"{name}.norm", width, make)
        self.scores = Dense(f"{name}.scores", width, vocabulary, make)

    def __call__(self, x: Tensor) -> Tensor:
        """x: (batch, places, width) to (batch, places, vocabulary)."""
        return self.scores(self.norm(x))

    def parameters(self) -> Iterator[Parameter]:
        """In a fixed order."""
        yield from self.norm.parameters()
        yield from self.scores.parameters()
