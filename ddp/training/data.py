"""Real data that is already on the machine.

    digits    1,797 images of handwritten digits, 8 × 8 grey values, in scikit-learn (extra `data`)
    topics    the text of Python's own manual, half a megabyte of English, in the standard library:
              bytes for a language model, always there

Each is cut once, by a fixed shuffle, into what is trained on and what is only ever asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from ddp.training.autograd import Array
from ddp.training.errors import TrainingError

# One in five is held back.
HELD_BACK: Final = 0.2
# The cut is the same whatever the seed of a run, so that runs can be compared.
CUT_SEED: Final = 0

CONTEXT: Final = 32  # bytes of text that the language model sees


@dataclass(frozen=True, slots=True)
class Dataset:
    """Samples in memory.

    train_x, test_x: (n, features) of floats, or (n, context) of byte numbers.
    train_y, test_y: integers, (n,) or (n, context): the class, or the next byte at each place.
    """

    name: str
    train_x: Array
    train_y: Array
    test_x: Array
    test_y: Array
    classes: int

    def __repr__(self) -> str:
        return f"<Dataset {self.name} train={len(self.train_x)} test={len(self.test_x)}>"

    def astype(self, dtype: str) -> Dataset:
        """The same, its numbers (not its byte numbers) in another type."""
        if self.train_x.dtype.kind != "f":
            return self
        return Dataset(
            self.name,
            self.train_x.astype(dtype),
            self.train_y,
            self.test_x.astype(dtype),
            self.test_y,
            self.classes,
        )


def digits() -> Dataset:
    """Handwritten digits; raises TrainingError where scikit-learn is absent."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise TrainingError(
            "digits come with scikit-learn: pip install 'ringleader[data]'; or try --data topics"
        ) from None
    images, labels = load_digits(return_X_y=True)
    return _cut("digits", images / 16.0, labels.astype(np.int64), 10)


def topics() -> Dataset:
    """Windows of the manual's text, each with the byte that follows at every place."""
    from pydoc_data.topics import topics as pages

    text = "\n".join(pages[name] for name in sorted(pages))
    stream = np.frombuffer(text.encode("ascii", "replace"), dtype=np.uint8).astype(np.int64)
    windows = len(stream) // CONTEXT - 1
    x = stream[: windows * CONTEXT].reshape(windows, CONTEXT)
    y = stream[1 : windows * CONTEXT + 1].reshape(windows, CONTEXT)
    return _cut("topics", x, y, 128)


DATASETS: Final[dict[str, Callable[[], Dataset]]] = {"digits": digits, "topics": topics}


def load(name: str) -> Dataset:
    """A data set by its name; raises TrainingError."""
    if name not in DATASETS:
        raise TrainingError(f"there is no data set {name!r}; there are: {', '.join(DATASETS)}")
    return DATASETS[name]()


def _cut(name: str, x: Array, y: Array, classes: int) -> Dataset:
    order = np.random.default_rng(CUT_SEED).permutation(len(x))
    held = int(len(x) * HELD_BACK)
    test, train = order[:held], order[held:]
    return Dataset(name, x[train], y[train], x[test], y[test], classes)
