"""The two networks that are trained here, as chains of layers that can be cut anywhere.

    mlp           Dense, ReLU; then `depth` residual FeedForward layers; Dense
    transformer   Embedding; then `depth` Blocks; Head

A chain is what a pipeline cuts into stages; the layers in its middle are what a tensor-parallel
group divides. A model is described once (`Spec`), and each rank makes only what it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ddp.training.autograd import Array, Parameter, Tensor
from ddp.training.errors import TrainingError
from ddp.training.layers import Block, Dense, Embedding, FeedForward, Head, Layer, Making

# Makes one layer, once it is known how.
Maker = Callable[[Making], Layer]


@dataclass(frozen=True, slots=True)
class Spec:
    """A model in a few numbers.

    kind: "mlp" or "transformer".
    inputs: features a sample (mlp), or bytes of context (transformer).
    heads: of attention; transformer only.
    """

    kind: str
    inputs: int
    classes: int
    width: int = 64
    depth: int = 2
    heads: int = 4
    seed: int = 0
    dtype: str = "float64"

    def __post_init__(self) -> None:
        if self.kind not in ("mlp", "transformer"):
            raise TrainingError(f"a model is mlp or transformer, not {self.kind!r}")
        if self.kind == "transformer" and self.width % self.heads:
            raise TrainingError(f"{self.heads} heads do not divide a width of {self.width}")

    def makers(self) -> list[Maker]:
        """One a layer, in order."""
        return [partial(self._layer, i) for i in range(self.depth + 2)]

    def _layer(self, i: int, make: Making) -> Layer:
        first, last = i == 0, i == self.depth + 1
        if self.kind == "mlp":
            if first:
                return Dense("in", self.inputs, self.width, make, activate=True)
            if last:
                return Dense("out", self.width, self.classes, make)
            return FeedForward(f"layer{i}", self.width, 4 * self.width, make)
        if first:
            return Embedding("embed", self.classes, self.inputs, self.width, make)
        if last:
            return Head("head", self.width, self.classes, make)
        return Block(f"block{i}", self.width, self.heads, make)

    def border(self, samples: Array) -> Array:
        """Room for what one layer hands to the next, for these samples."""
        rows = samples.shape[:1] if self.kind == "mlp" else samples.shape
        return np.empty((*rows, self.width), self.dtype)

    def check_split(self, tensor: int) -> None:
        """Raises TrainingError if `tensor` ranks cannot divide it evenly."""
        divided = self.heads if self.kind == "transformer" else 4 * self.width
        what = "heads" if self.kind == "transformer" else "hidden units"
        if divided % tensor:
            raise TrainingError(f"tp={tensor} does not divide {divided} {what}")


class Chain:
    """Layers one behind the other: a model, or a stage of one."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = list(layers)

    def __repr__(self) -> str:
        return f"<Chain layers={len(self.layers)} parameters={self.size}>"

    def __call__(self, x: Tensor) -> Tensor:
        """Forward through all."""
        for layer in self.layers:
            x = layer(x)
        return x

    def parameters(self) -> Iterator[Parameter]:
        """In the order of the layers."""
        for layer in self.layers:
            yield from layer.parameters()

    @property
    def size(self) -> int:
        """Numbers in it."""
        return sum(parameter.data.size for parameter in self.parameters())


def build(spec: Spec, make: Making | None = None, stage: int = 0, stages: int = 1) -> Chain:
    """Stage `stage` of `stages` of a model: a contiguous part of its layers, as even as it goes."""
    makers = spec.makers()
    if stages > len(makers):
        raise TrainingError(f"{len(makers)} layers cannot make {stages} stages; raise --depth")
    make = make or Making(spec.seed, spec.dtype)
    chosen = np.array_split(np.arange(len(makers)), stages)[stage]
    return Chain([makers[i](make) for i in chosen])


def accuracy(model: Callable[[Tensor], Tensor], x: Array, y: Array) -> float:
    """The part of all labels that the model's best guess hits."""
    return float((model(Tensor(x)).data.argmax(axis=-1) == y).mean())
