"""Gradients summed in buckets while the rest of backward still runs.

    backward:   ∇W₄  ∇W₃ │ ∇W₂  ∇W₁ │
                         └ bucket 0 is under way
                                    └ bucket 1; then wait for both

Parameters are laid into buckets in the order in which backward reaches them, from the last layer
to the first. When the last gradient of a bucket is complete, its sum is started, and backward
goes on. Buckets are started in their order on every rank, whatever order their gradients came in,
so that all ranks make the same calls. (Li et al. 2020, "PyTorch Distributed", §3.2.)

Every gradient is in exactly one bucket, and every bucket is summed once a step; `finish` checks it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from ddp.engine import OPERATIONS_MAX
from ddp.schedules.catalogue import IN_RANK_ORDER
from ddp.training.autograd import Array, Parameter, Tensor
from ddp.training.errors import TrainingError

if TYPE_CHECKING:
    from ddp.group import Group
    from ddp.work import Work

# Large enough that a sum's latency does not count, small enough that the first starts early.
BUCKET_BYTES: Final = 1 << 20

# All may be open at once, and a group has a limit to that; larger models get larger buckets.
BUCKETS_MAX: Final = OPERATIONS_MAX // 2


class Bucket:
    """Some parameters' gradients in one flat array."""

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self.parameters = list(parameters)
        self.flat = np.zeros(sum(p.data.size for p in parameters), parameters[0].data.dtype)
        ends = np.cumsum([p.data.size for p in parameters])
        self.views: dict[str, Array] = {
            p.name: self.flat[end - p.data.size : end].reshape(p.data.shape)
            for p, end in zip(parameters, ends, strict=True)
        }
        self.missing = len(parameters)

    def __repr__(self) -> str:
        return f"<Bucket {self.flat.nbytes} bytes, {len(self.parameters)} parameters>"

    def fill(self, parameter: Parameter) -> None:
        """One gradient is complete."""
        assert parameter.grad is not None
        self.views[parameter.name][...] = parameter.grad
        self.missing -= 1


class Buckets:
    """All gradients of one rank's parameters, summed over `group`.

    parameters: in the order of the layers.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        group: Group,
        bucket_bytes: int = BUCKET_BYTES,
    ) -> None:
        self.group = group
        parts = _divide(parameters[::-1], bucket_bytes)
        whole = sum(p.data.nbytes for p in parameters)
        while len(parts) > BUCKETS_MAX and bucket_bytes < whole:
            bucket_bytes *= 2
            parts = _divide(parameters[::-1], bucket_bytes)
        self.buckets = [Bucket(part) for part in parts]
        self.of = {p.name: bucket for bucket in self.buckets for p in bucket.parameters}
        self._parameters = list(parameters)
        self._pending: list[Work] = []
        self.started: list[int] = []  # in this step: how many gradients were still missing

    def __repr__(self) -> str:
        return f"<Buckets {len(self.buckets)} over {self.group!r}>"

    def arm(self) -> None:
        """The next backward is the last of this step: start sums as it goes."""
        self._pending.clear()
        self.started.clear()
        for bucket in self.buckets:
            bucket.missing = len(bucket.parameters)
        for parameter in self._parameters:
            parameter.on_gradient = self._complete

    def _complete(self, tensor: Tensor) -> None:
        assert isinstance(tensor, Parameter)
        tensor.on_gradient = None
        self.of[tensor.name].fill(tensor)
        while len(self._pending) < len(self.buckets):
            bucket = self.buckets[len(self._pending)]
            if bucket.missing:
                break
            self._start(bucket)

    def _start(self, bucket: Bucket) -> None:
        self._pending.append(self.group.start("allreduce", bucket.flat, algorithm=IN_RANK_ORDER))
        self.started.append(sum(b.missing for b in self.buckets))

    def finish(self) -> None:
        """Wait for all sums, and make them the parameters' gradients; raises TrainingError."""
        late = [b for b in self.buckets if b.missing]
        if late or len(self._pending) != len(self.buckets):
            names = ", ".join(p.name for b in late for p in b.parameters if p.on_gradient)
            raise TrainingError(f"backward gave no gradient for: {names}")
        for bucket, pending in zip(self.buckets, self._pending, strict=True):
            pending.wait()
            for parameter in bucket.parameters:
                parameter.grad = bucket.views[parameter.name]


def _divide(parameters: Sequence[Parameter], bucket_bytes: int) -> list[list[Parameter]]:
    """Full when the next would not fit; a bucket holds one type of number."""
    parts: list[list[Parameter]] = []
    room, dtype = 0, None
    for parameter in parameters:
        size = parameter.data.nbytes
        if not parts or size > room or parameter.data.dtype != dtype:
            parts.append([])
            room, dtype = bucket_bytes, parameter.data.dtype
        parts[-1].append(parameter)
        room -= size
    return parts
