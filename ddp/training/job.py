"""What is to be trained, in a few numbers; and one rank that can compute any step of it.

job = Job(model="mlp", data="digits", steps=200)
learner = Learner(job)
part = learner.gradient(step=17, rank=1, size=4)      flat: all gradients, then the loss
loss = learner.apply(sum of all parts)                the same on every rank, bit for bit
learner.snapshot(18)  /  learner.restore(snapshot)    parameters and the optimizer's memory
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import google_crc32c
import numpy as np

from ddp.training.autograd import Array, Parameter, Tensor
from ddp.training.checkpoint import Snapshot
from ddp.training.data import Dataset, load
from ddp.training.errors import BadCheckpoint, TrainingError
from ddp.training.functional import cross_entropy
from ddp.training.models import Spec, accuracy, build
from ddp.training.optimizers import OPTIMIZERS, Optimizer
from ddp.training.order import DataOrder

# Of a set that is larger, so many are asked for an accuracy: what a person can wait for.
ASKED_MAX = 1024


@dataclass(frozen=True, slots=True)
class Job:
    """One training run.

    batch: samples a step, of all ranks together. dtype: of all numbers.
    """

    model: str = "mlp"
    data: str = "digits"
    steps: int = 200
    batch: int = 64
    width: int = 64
    depth: int = 2
    heads: int = 4
    optimizer: str = "adam"
    rate: float = 1e-3
    seed: int = 0
    dtype: str = "float64"

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            known = ", ".join(OPTIMIZERS)
            raise TrainingError(f"there is no optimizer {self.optimizer!r}; there are: {known}")
        if self.dtype not in ("float32", "float64"):
            raise TrainingError(f"training is in float32 or float64, not {self.dtype!r}")
        if self.steps < 1 or self.batch < 1:
            raise TrainingError("a run has one step and one sample at least")
        if (self.model == "mlp") != (self.data == "digits"):
            raise TrainingError("an mlp learns digits, a transformer learns topics")

    def to_json(self) -> str:
        """One line, for another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The job of another process."""
        return cls(**json.loads(text))

    def dataset(self) -> Dataset:
        """Its data, in its type; raises TrainingError."""
        return load(self.data).astype(self.dtype)

    def spec(self, data: Dataset) -> Spec:
        """Its model."""
        return Spec(
            self.model,
            data.train_x.shape[1],
            data.classes,
            self.width,
            self.depth,
            self.heads,
            self.seed,
            self.dtype,
        )

    def order(self, data: Dataset) -> DataOrder:
        """Which samples each step takes."""
        if self.batch > len(data.train_x):
            raise TrainingError(f"a batch of {self.batch} is more than {len(data.train_x)} samples")
        return DataOrder(self.seed, len(data.train_x), self.batch)

    def make_optimizer(self) -> Optimizer:
        """A new one."""
        return OPTIMIZERS[self.optimizer](self.rate)


class Learner:
    """The whole model on one rank, and its part of any step."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.data = job.dataset()
        self.model = build(job.spec(self.data))
        self.parameters: list[Parameter] = list(self.model.parameters())
        self.optimizer = job.make_optimizer()
        self.order = job.order(self.data)

    def __repr__(self) -> str:
        return f"<Learner {self.job.model} {self.job.data} parameters={self.model.size}>"

    def gradient(self, step: int, rank: int, size: int) -> Array:
        """This rank's part of a step: the gradients of all parameters, flat, and its loss."""
        rows = self.order.part(step, rank, size)
        x, y = self.data.train_x[rows], self.data.train_y[rows]
        per_sample = self.data.train_y[0].size
        for parameter in self.parameters:
            parameter.grad = None
        loss = cross_entropy(self.model(Tensor(x)), y, self.order.batch * per_sample)
        loss.backward()
        parts = [np.zeros_like(p.data) if p.grad is None else p.grad for p in self.parameters]
        return np.concatenate([part.reshape(-1) for part in parts] + [loss.data.reshape(1)])

    def nothing(self) -> Array:
        """A part that adds nothing: of a rank that computes none."""
        return np.zeros(self.model.size + 1, self.job.dtype)

    def apply(self, total: Array) -> float:
        """Change the parameters by the sum of all parts; returns the loss of the whole batch."""
        for parameter, part in zip(self.parameters, self.cut(total), strict=True):
            parameter.grad = part
        self.optimizer.step(self.parameters)
        return float(total[-1])

    def put(self, flat: Array) -> None:
        """These are the parameters, one behind the other; copied."""
        for parameter, part in zip(self.parameters, self.cut(flat), strict=True):
            parameter.data = np.array(part)

    def cut(self, flat: Array) -> list[Array]:
        """Of each parameter its own; what lies behind them is left over."""
        ends = np.cumsum([parameter.data.size for parameter in self.parameters])
        return [
            flat[end - p.data.size : end].reshape(p.data.shape)
            for end, p in zip(ends, self.parameters, strict=True)
        ]

    def accuracy(self) -> float:
        """On what was held back."""
        asked = slice(0, ASKED_MAX)
        return accuracy(self.model, self.data.test_x[asked], self.data.test_y[asked])

    def checksum(self) -> int:
        """CRC-32C of all parameters: equal on two ranks if all their bits are."""
        crc = 0
        for parameter in self.parameters:
            crc = google_crc32c.extend(crc, np.ascontiguousarray(parameter.data).tobytes())
        return crc

    def snapshot(self, step: int) -> Snapshot:
        """All that is needed to go on before `step`."""
        arrays = {f"parameter/{p.name}": np.array(p.data) for p in self.parameters}
        memory = {f"optimizer/{n}": np.array(a) for n, a in self.optimizer.state().items()}
        return Snapshot(self.job.to_json(), step, arrays | memory)

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from one; raises BadCheckpoint, and changes nothing, if it is of another job."""
        if snapshot.job != self.job.to_json():
            raise BadCheckpoint(f"it is of another job: {snapshot.job}")
        for parameter in self.parameters:
            parameter.data = np.array(snapshot.arrays[f"parameter/{parameter.name}"])
            parameter.grad = None
        memory = {
            name.removeprefix("optimizer/"): array
            for name, array in snapshot.arrays.items()
            if name.startswith("optimizer/")
        }
        self.optimizer.restore(memory)
