"""The process group and the work that torch.distributed is given; made by torch_backend.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed import ReduceOp

from ddp.elements import Array
from ddp.errors import BadCall
from ddp.group import Group
from ddp.rank import Rank
from ddp.torch_backend import NAME
from ddp.work import Work


def _array(tensor: Any) -> tuple[Array, str | None]:
    """A contiguous CPU tensor's memory as numpy, and the element type where numpy has none."""
    if tensor.device.type != "cpu" or not tensor.is_contiguous():
        raise BadCall("the ring backend takes contiguous tensors in CPU memory")
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16), "bfloat16"
    return tensor.numpy(), None


def _bytes(tensor: Any) -> Array:
    """The same as bytes, for what is carried and not reduced."""
    array, _ = _array(tensor)
    return array.reshape(-1).view(np.uint8)


def _op(options: Any) -> str:
    wanted = options.reduceOp
    known = {"SUM": "sum", "AVG": "mean", "MIN": "min", "MAX": "max", "PRODUCT": "product"}
    for name, ours in known.items():
        if wanted == getattr(ReduceOp, name):
            return ours
    raise BadCall(f"the ring backend reduces by {', '.join(known)}, not by {wanted}")


class RingWork(dist._Work):  # type: ignore[misc]
    """A call under way, as torch wants it."""

    def __init__(self, work: Work | None, tensors: list[Any], finish: Any = None) -> None:
        super().__init__()
        self._work, self._finish = work, finish
        self._future: Any = torch.futures.Future()
        self._tensors = tensors
        if work is None:
            self._future.set_result(tensors)
        else:
            work.then(self._ended)

    def _ended(self, work: Work) -> None:
        try:
            result = work.result()
            if self._finish is not None:
                self._finish(result)
        except Exception as error:
            self._future.set_exception(error)
        else:
            self._future.set_result(self._tensors)

    def wait(self, timeout: Any = None) -> bool:
        """Until it is over; raises its error."""
        if self._work is not None:
            self._work.wait()
        self._future.wait()
        return True

    def is_completed(self) -> bool:
        """Whether it is over."""
        return bool(self._future.done())

    def get_future(self) -> Any:
        """Ends with the tensors."""
        return self._future


class RingProcessGroup(dist.ProcessGroup):  # type: ignore[misc]
    """One rank's membership; each method as in torch's ProcessGroup."""

    def __init__(self, rank: Rank, group: Group) -> None:
        super().__init__(group.rank, group.size)
        self._rank, self._group = rank, group

    def getBackendName(self) -> str:
        """The name as scripts write it."""
        return NAME

    def shutdown(self) -> None:
        """End the group."""
        self._group.close()
        self._rank.close()

    abort = shutdown

    def allreduce(self, tensors: list[Any], opts: Any = None) -> Any:
        """Reduce over all ranks, in place."""
        array, dtype = _array(tensors[0])
        work = self._group.start("allreduce", array, op=_op(opts), dtype=dtype)
        return RingWork(work, tensors)

    def broadcast(self, tensors: list[Any], opts: Any = None) -> Any:
        """The root's tensor, to all."""
        data = _bytes(tensors[0])
        return RingWork(self._group.start("broadcast", data, root=opts.rootRank), tensors)

    def reduce(self, tensors: list[Any], opts: Any = None) -> Any:
        """The reduction, at the root."""
        array, dtype = _array(tensors[0])
        work = self._group.start("reduce", array, op=_op(opts), root=opts.rootRank, dtype=dtype)
        return RingWork(work, tensors)

    def allgather(self, outputs: list[list[Any]], inputs: list[Any], opts: Any = None) -> Any:
        """Every rank's tensor, in a list."""

        def spread(result: Array) -> None:
            parts = result.reshape(self._group.size, -1)
            for tensor, part in zip(outputs[0], parts, strict=True):
                _bytes(tensor)[...] = part

        work = self._group.start("all-gather", _bytes(inputs[0]))
        return RingWork(work, outputs[0], spread)

    def all_gather_single(self, output: Any, input: Any, opts: Any = None) -> Any:
        """Every rank's tensor, one behind the other."""

        def copy(result: Array) -> None:
            _bytes(output)[...] = result

        return RingWork(self._group.start("all-gather", _bytes(input)), [output], copy)

    _allgather_base = all_gather_single

    def reduce_scatter(self, outputs: list[Any], inputs: list[list[Any]], opts: Any = None) -> Any:
        """Rank r's part of the reduction of what all brought, a tensor a rank."""
        whole = torch.cat([tensor.reshape(-1) for tensor in inputs[0]])
        return self.reduce_scatter_single(outputs[0], whole, opts)

    def reduce_scatter_single(self, output: Any, input: Any, opts: Any = None) -> Any:
        """The same, of one tensor."""
        array, dtype = _array(input)

        def copy(result: Array) -> None:
            _bytes(output)[...] = result.view(np.uint8)

        work = self._group.start("reduce-scatter", array, op=_op(opts), dtype=dtype)
        return RingWork(work, [output], copy)

    _reduce_scatter_base = reduce_scatter_single

    def all_to_all_single(
        self, output: Any, input: Any, output_splits: Any, input_splits: Any, opts: Any = None
    ) -> Any:
        """Part b of rank a becomes part a of rank b."""
        if len(set(output_splits or ())) > 1 or len(set(input_splits or ())) > 1:
            raise BadCall("the ring backend exchanges parts of one size")

        def copy(result: Array) -> None:
            _bytes(output)[...] = result

        return RingWork(self._group.start("all-to-all", _bytes(input)), [output], copy)

    alltoall_base = all_to_all_single

    def barrier(self, opts: Any = None) -> Any:
        """Until all have come."""
        return RingWork(self._group.start("barrier", np.empty(0, np.uint8)), [])

    def send(self, tensors: list[Any], dst: int, tag: int) -> Any:
        """To one rank."""
        return RingWork(self._group.start_send(_bytes(tensors[0]), dst, tag), tensors)

    def recv(self, tensors: list[Any], src: int, tag: int) -> Any:
        """From one rank."""
        return RingWork(self._group.start_recv(_bytes(tensors[0]), src, tag), tensors)
