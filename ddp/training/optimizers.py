"""How a gradient changes a parameter: plain descent, with momentum, and Adam.

An optimizer works on the parameters of one rank and keeps what it remembers by their names, so
that its state can be written down, sent to a newcomer, and cut as the parameters are. All
arithmetic is elementwise: ranks with equal parameters and equal gradients stay equal, bit for
bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol

import numpy as np

from ddp.training.autograd import Array, Parameter


class Optimizer(Protocol):
    """One step at a time."""

    def step(self, parameters: Iterable[Parameter]) -> None:
        """Change each parameter by its `grad`, and clear that."""

    def state(self) -> dict[str, Array]:
        """What it remembers, by name; not copied."""

    def restore(self, state: dict[str, Array]) -> None:
        """Go on from such a state."""


class _Remembering:
    """What all have in common: the state is a map of arrays."""

    def __init__(self) -> None:
        self._memory: dict[str, Array] = {}

    def state(self) -> dict[str, Array]:
        """What it remembers, by name; not copied."""
        return self._memory

    def restore(self, state: dict[str, Array]) -> None:
        """Go on from such a state."""
        self._memory = {name: np.array(array) for name, array in state.items()}

    def _slot(self, kind: str, parameter: Parameter) -> Array:
        name = f"{kind}/{parameter.name}"
        if name not in self._memory:
            self._memory[name] = np.zeros_like(parameter.data)
        return self._memory[name]


class Sgd(_Remembering):
    """w ← w − rate · g; with momentum m: v ← m·v + g, w ← w − rate · v (Polyak 1964)."""

    def __init__(self, rate: float, momentum: float = 0.0) -> None:
        super().__init__()
        self.rate = rate
        self.momentum = momentum

    def __repr__(self) -> str:
        return f"<Sgd rate={self.rate:g} momentum={self.momentum:g}>"

    def step(self, parameters: Iterable[Parameter]) -> None:
        """Change each parameter by its `grad`, and clear that."""
        for parameter in parameters:
            gradient = parameter.grad
            if gradient is None:
                continue
            if self.momentum:
                velocity = self._slot("velocity", parameter)
                velocity *= self.momentum
                velocity += gradient
                gradient = velocity
            parameter.data -= self.rate * gradient
            parameter.grad = None


class Adam(_Remembering):
    """Kingma and Ba 2015, algorithm 1, with its bias corrections."""

    def __init__(
        self, rate: float = 1e-3, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8
    ) -> None:
        super().__init__()
        self.rate = rate
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon

    def __repr__(self) -> str:
        return f"<Adam rate={self.rate:g} t={int(self._time()[0])}>"

    def _time(self) -> Array:
        return self._memory.setdefault("t", np.zeros(1, dtype=np.int64))

    def step(self, parameters: Iterable[Parameter]) -> None:
        """Change each parameter by its `grad`, and clear that."""
        time = self._time()
        time += 1
        t = int(time[0])
        first, second = 1 - self.beta1**t, 1 - self.beta2**t
        for parameter in parameters:
            gradient = parameter.grad
            if gradient is None:
                continue
            mean, square = self._slot("mean", parameter), self._slot("square", parameter)
            mean *= self.beta1
            mean += (1 - self.beta1) * gradient
            square *= self.beta2
            square += (1 - self.beta2) * gradient * gradient
            step = (mean / first) / (np.sqrt(square / second) + self.epsilon)
            parameter.data -= self.rate * step
            parameter.grad = None


# Name -> optimizer at a given rate; the names of `--optimizer`.
OPTIMIZERS: Final[dict[str, Callable[[float], Optimizer]]] = {
    "sgd": lambda rate: Sgd(rate),
    "momentum": lambda rate: Sgd(rate, momentum=0.9),
    "adam": lambda rate: Adam(rate),
}
