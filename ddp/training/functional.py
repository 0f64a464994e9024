"""The operations of a network beyond arithmetic, each with its gradient by hand.

Fused where the textbook form would lose precision or keep many arrays: cross entropy is one
operation with its softmax, layer normalisation is one, attention's softmax takes its mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ddp.training.autograd import Array, Tensor


def relu(x: Tensor) -> Tensor:
    """max(x, 0), by mask: what is computed for the negative half is thrown away."""
    mask = x.data > 0
    return Tensor(x.data * mask, (x,), lambda g: (g * mask,))


def softmax(x: Tensor, *, causal: bool = False) -> Tensor:
    """Along the last axis. `causal`: row i sees columns 0 … i only; the others get 0."""
    scores = x.data
    if causal:
        hidden = np.triu(np.ones(scores.shape[-2:], dtype=bool), k=1)
        scores = np.where(hidden, -np.inf, scores)
    y = np.exp(scores - scores.max(axis=-1, keepdims=True))
    y = y / y.sum(axis=-1, keepdims=True)

    def pullback(g: Array) -> Sequence[Array]:
        return (y * (g - (g * y).sum(axis=-1, keepdims=True)),)

    return Tensor(y, (x,), pullback)


def cross_entropy(logits: Tensor, labels: Array, count: int) -> Tensor:
    """−log p(label), summed over all rows and divided by `count`.

    logits: (…, classes); labels: integers (…). `count` is the number of labels of the *whole*
    batch, of which these may be a part: the losses of all parts then add up to the batch's mean,
    and so do their gradients, however unequal the parts are.
    """
    flat = logits.data.reshape(-1, logits.shape[-1])
    rows, wanted = np.arange(len(flat)), labels.reshape(-1)
    shifted = flat - flat.max(axis=-1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    log_p = shifted - log_sum
    loss = -log_p[rows, wanted].sum() / count

    def pullback(g: Array) -> Sequence[Array]:
        slope = np.exp(log_p)
        slope[rows, wanted] -= 1
        return ((slope * (g / count)).reshape(logits.shape),)

    return Tensor(np.asarray(loss), (logits,), pullback)


def layer_norm(x: Tensor, gain: Tensor, bias: Tensor, epsilon: float = 1e-5) -> Tensor:
    """(x − mean) / deviation · gain + bias, along the last axis (Ba et al. 2016)."""
    centred = x.data - x.data.mean(axis=-1, keepdims=True)
    inverse = 1.0 / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + epsilon)
    unit = centred * inverse

    def pullback(g: Array) -> Sequence[Array]:
        axes = tuple(range(g.ndim - 1))
        u = g * gain.data
        along = u.mean(axis=-1, keepdims=True)
        across = (u * unit).mean(axis=-1, keepdims=True)
        return (
            inverse * (u - along - unit * across),
            (g * unit).sum(axis=axes),
            g.sum(axis=axes),
        )

    return Tensor(unit * gain.data + bias.data, (x, gain, bias), pullback)


def rows(table: Tensor, indices: Array) -> Tensor:
    """table[indices]: an embedding. table: (n, width); indices: integers of any shape."""

    def pullback(g: Array) -> Sequence[Array]:
        slope = np.zeros_like(table.data)
        np.add.at(slope, indices.reshape(-1), g.reshape(-1, table.shape[-1]))
        return (slope,)

    return Tensor(table.data[indices], (table,), pullback)
