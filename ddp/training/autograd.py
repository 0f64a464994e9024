"""Tensors that know where they come from, and so their gradients.

    x, w = Tensor(data), Parameter(weights)
    loss = cross_entropy(relu(x @ w), labels)
    loss.backward()                              w.grad is dloss/dw

A tensor made by an operation holds its parents and a function from its own gradient to theirs.
`backward` walks that graph from the result to the leaves, each node once, after all that use it
(reverse-mode differentiation; the shape of this file is micrograd's, on arrays).

What it guarantees: gradients of equal programs on equal numbers are equal bit for bit, so ranks
that compute the same thing stay the same. A parameter's gradient is complete the moment that
`on_gradient` is called, long before `backward` ends: that is where data parallelism hides its
communication (buckets.py).

Where it stops: first derivatives, and the operations below and in functional.py. The numbers may
be of any type that numpy multiplies, objects too: a test counts every multiplication so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ddp.training.counting import count_matmul

Array: TypeAlias = NDArray[Any]
# From the gradient of a result to one gradient a parent; None where none is needed.
Pullback: TypeAlias = Callable[[Array], Sequence["Array | None"]]


class Tensor:
    """An array in a computation.

    Args:
        data: any shape; not copied.
        parents, pullback: how it was made; none for a leaf.
        needs_grad: for a leaf, whether its gradient is wanted; for others it follows.
    """

    __slots__ = ("data", "grad", "needs_grad", "on_gradient", "parents", "pullback")

    def __init__(
        self,
        data: Array,
        parents: tuple[Tensor, ...] = (),
        pullback: Pullback | None = None,
        *,
        needs_grad: bool = False,
    ) -> None:
        self.data = data
        self.grad: Array | None = None
        self.needs_grad: bool = needs_grad or any(parent.needs_grad for parent in parents)
        # Of a result that needs no gradient, nothing before it is kept.
        self.parents = parents if self.needs_grad else ()
        self.pullback = pullback if self.needs_grad else None
        self.on_gradient: Callable[[Tensor], None] | None = None

    def __repr__(self) -> str:
        kind = "leaf" if not self.parents else "result"
        return f"<{type(self).__name__} {self.data.dtype}{list(self.data.shape)} {kind}>"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self.data.shape

    def backward(self, gradient: Array | None = None) -> None:
        """Add d(self)/d(leaf) to `grad` of each leaf that needs it.

        gradient: of what `self` goes into, in its shape; None: self is the loss, one number.
        """
        if gradient is None:
            if self.data.size != 1:
                raise ValueError(f"a loss is one number, not {self.shape}; pass its gradient")
            gradient = np.ones_like(self.data)
        pending: dict[int, Array] = {id(self): gradient}
        for tensor in reversed(_in_order(self)):
            own = pending.pop(id(tensor), None)
            if own is None:
                continue
            if tensor.pullback is None:
                tensor.grad = own if tensor.grad is None else tensor.grad + own
                if tensor.on_gradient is not None:
                    tensor.on_gradient(tensor)
                continue
            for parent, part in zip(tensor.parents, tensor.pullback(own), strict=True):
                if parent.needs_grad and part is not None:
                    known = pending.get(id(parent))
                    pending[id(parent)] = part if known is None else known + part

    # -- arithmetic

    def __add__(self, other: Tensor) -> Tensor:
        def pullback(g: Array) -> Sequence[Array]:
            return unbroadcast(g, self.shape), unbroadcast(g, other.shape)

        return Tensor(self.data + other.data, (self, other), pullback)

    def __sub__(self, other: Tensor) -> Tensor:
        def pullback(g: Array) -> Sequence[Array]:
            return unbroadcast(g, self.shape), unbroadcast(-g, other.shape)

        return Tensor(self.data - other.data, (self, other), pullback)

    def __mul__(self, other: Tensor) -> Tensor:
        def pullback(g: Array) -> Sequence[Array]:
            return (
                unbroadcast(g * other.data, self.shape),
                unbroadcast(g * self.data, other.shape),
            )

        return Tensor(self.data * other.data, (self, other), pullback)

    def scale(self, factor: float) -> Tensor:
        """Times a number that is no tensor."""
        return Tensor(self.data * factor, (self,), lambda g: (g * factor,))

    def __matmul__(self, other: Tensor) -> Tensor:
        """Of the last two axes; the ones before are a batch, and may be broadcast."""

        def pullback(g: Array) -> Sequence[Array | None]:
            left = right = None
            if self.needs_grad:  # the lecture's dX: as many multiplications as forward
                left = unbroadcast(matmul(g, other.data.swapaxes(-1, -2)), self.shape)
            if other.needs_grad:  # dW: the same again, hence 6 and not 4 in all
                right = _weight_gradient(self.data, g, other.shape)
            return left, right

        return Tensor(matmul(self.data, other.data), (self, other), pullback)

    # -- shapes

    def reshape(self, *shape: int) -> Tensor:
        """The same numbers in another shape."""
        return Tensor(self.data.reshape(shape), (self,), lambda g: (g.reshape(self.shape),))

    def transpose(self, *axes: int) -> Tensor:
        """The same numbers with the axes in this order."""
        back = np.argsort(axes)
        return Tensor(self.data.transpose(axes), (self,), lambda g: (g.transpose(back),))

    def sum(self) -> Tensor:
        """Of all elements."""

        def pullback(g: Array) -> Sequence[Array]:
            return (np.broadcast_to(g, self.shape),)

        return Tensor(np.asarray(self.data.sum()), (self,), pullback)


class Parameter(Tensor):
    """A leaf that is trained. `name` is its own in the whole model, whatever rank holds it."""

    __slots__ = ("name",)

    def __init__(self, name: str, data: Array) -> None:
        super().__init__(data, needs_grad=True)
        self.name = name

    def __repr__(self) -> str:
        return f"<Parameter {self.name} {self.data.dtype}{list(self.data.shape)}>"


def matmul(left: Array, right: Array) -> Array:
    """`left @ right`, counted."""
    count_matmul(left.shape, right.shape)
    return np.asarray(np.matmul(left, right))


def _weight_gradient(x: Array, g: Array, shape: tuple[int, ...]) -> Array:
    if len(shape) == 2:  # a weight for all of a batch: one product over all its rows
        rows = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
        return matmul(rows[0].T, rows[1])
    return unbroadcast(matmul(x.swapaxes(-1, -2), g), shape)


def unbroadcast(gradient: Array, shape: tuple[int, ...]) -> Array:
    """Summed over the axes along which numpy repeated an operand of `shape`."""
    if gradient.shape == shape:
        return gradient
    ahead = gradient.ndim - len(shape)
    axes = [*range(ahead)]
    axes += [ahead + i for i, n in enumerate(shape) if n == 1 and gradient.shape[ahead + i] != 1]
    return np.asarray(gradient.sum(axis=tuple(axes))).reshape(shape)


def _in_order(root: Tensor) -> list[Tensor]:
    """All that `root` was made of, each after what it was made of itself; no recursion.

    A weight stands just before its first user, so on the way back its gradient comes just after.
    """
    order: list[Tensor] = []
    seen: set[int] = set()
    stack: list[tuple[Tensor, bool]] = [(root, False)]
    while stack:
        tensor, done = stack.pop()
        if done:
            order.append(tensor)
        elif id(tensor) not in seen and tensor.needs_grad:
            seen.add(id(tensor))
            stack.append((tensor, True))
            stack += [(parent, False) for parent in reversed(tensor.parents)]
    return order
