"""`torch.distributed` over our groups: backend "ring".

    dist.init_process_group("ring")              # torchrun, or any rendezvous, as for gloo
    model = DistributedDataParallel(model)       # unmodified

Installed beside torch the name is known without an import (entry point `torch.backends`); `import
ddp.torch_backend` does the same. Tested with torch 2.13.0, on CPU tensors. What DDP needs and
most of the rest is here: broadcast, allreduce, allgather, reduce, reduce_scatter, all-to-all,
barrier, send, recv, and their single-tensor forms.

Ranks of one host share memory. Across hosts they use netstack; the certificates for it are made
by rank 0 and handed out through the rendezvous store, so whoever can read the store can join, as
with torch itself. Beyond one machine, or with GPUs, the same script runs on gloo or NCCL by
changing that one word.

Calls go on in a thread of ours while autograd goes on in its own; DDP's buckets overlap with
backward.
"""

from __future__ import annotations

import datetime
import json
import os
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np

from ddp.card import Card, share_memory
from ddp.elements import Array
from ddp.errors import BadCall
from ddp.group import Group
from ddp.rank import Rank
from ddp.segment import usable
from ddp.work import Work

NAME: Final = "ring"

# "network" insists on netstack between ranks of one host too.
TRANSPORT_VARIABLE: Final = "RING_DDP_TRANSPORT"


def register() -> None:
    """Make the name known to torch.distributed; again does nothing."""
    import torch.distributed as dist

    if dist.is_available() and not hasattr(dist.Backend, NAME.upper()):
        dist.Backend.register_backend(NAME, _create, devices=["cpu"])


def _create(store: Any, rank: int, size: int, timeout: datetime.timedelta) -> Any:
    """What init_process_group and new_group call, once on each member."""
    process_group = _classes()["ProcessGroup"]
    return process_group(*_join(store, rank, size, timeout.total_seconds()))


def _join(store: Any, rank: int, size: int, timeout_s: float) -> tuple[Rank, Group]:
    if os.environ.get(TRANSPORT_VARIABLE) != "network" and usable():
        own = Rank(f"r{rank}", size, transport="shared")
        cards = _exchange(store, "memory", rank, size, own.card)
        if share_memory(cards):
            return own, own.join(cards, rank, timeout_s=timeout_s)
        own.close()
    with tempfile.TemporaryDirectory(prefix="ring-torch-") as folder:
        home = Path(folder)
        _identities(store, rank, size, home)
        own = Rank(f"r{rank}", size, home=home, transport="network")
        cards = _exchange(store, "network", rank, size, own.card)
        return own, own.join(cards, rank, timeout_s=timeout_s)


def _exchange(store: Any, what: str, rank: int, size: int, card: Card) -> list[Card]:
    store.set(f"ring/{what}/{rank}", json.dumps(card.to_wire()))
    return [Card.from_wire(json.loads(store.get(f"ring/{what}/{other}"))) for other in range(size)]


def _identities(store: Any, rank: int, size: int, home: Path) -> None:
    """Rank 0 makes them all; each takes its own files out of the store."""
    from ddp.launch import make_identities

    shared = ("ca/cert", "ca/revoked")
    if rank == 0:
        make_identities(home, size)
        for other in range(size):
            names = [f"nodes/r{other}/key", f"nodes/r{other}/cert", *shared]
            files = {name: (home / name).read_text() for name in names}
            store.set(f"ring/identity/{other}", json.dumps(files))
        return
    for name, text in json.loads(store.get(f"ring/identity/{rank}")).items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(text)


_made: dict[str, Any] = {}


def _classes() -> dict[str, Any]:
    """Subclasses of torch's, made when torch is there."""
    if not _made:
        _made.update(_make_classes())
    return _made


def _array(tensor: Any) -> tuple[Array, str | None]:
    """A contiguous CPU tensor's memory as numpy, and the element type where numpy has none."""
    import torch

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
    from torch.distributed import ReduceOp

    wanted = options.reduceOp
    known = {"SUM": "sum", "AVG": "mean", "MIN": "min", "MAX": "max", "PRODUCT": "product"}
    for name, ours in known.items():
        if wanted == getattr(ReduceOp, name):
            return ours
    raise BadCall(f"the ring backend reduces by {', '.join(known)}, not by {wanted}")


def _make_classes() -> dict[str, Any]:  # noqa: C901 - one body of short methods
    import torch
    import torch.distributed as dist

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
            return NAME

        def shutdown(self) -> None:
            """End the group."""
            self._group.close()
            self._rank.close()

        abort = shutdown

        def allreduce(self, tensors: list[Any], opts: Any = None) -> Any:
            array, dtype = _array(tensors[0])
            work = self._group.start("allreduce", array, op=_op(opts), dtype=dtype)
            return RingWork(work, tensors)

        def broadcast(self, tensors: list[Any], opts: Any = None) -> Any:
            data = _bytes(tensors[0])
            return RingWork(self._group.start("broadcast", data, root=opts.rootRank), tensors)

        def reduce(self, tensors: list[Any], opts: Any = None) -> Any:
            array, dtype = _array(tensors[0])
            work = self._group.start("reduce", array, op=_op(opts), root=opts.rootRank, dtype=dtype)
            return RingWork(work, tensors)

        def allgather(self, outputs: list[list[Any]], inputs: list[Any], opts: Any = None) -> Any:
            def spread(result: Array) -> None:
                parts = result.reshape(self._group.size, -1)
                for tensor, part in zip(outputs[0], parts, strict=True):
                    _bytes(tensor)[...] = part

            work = self._group.start("all-gather", _bytes(inputs[0]))
            return RingWork(work, outputs[0], spread)

        def all_gather_single(self, output: Any, input: Any, opts: Any = None) -> Any:
            def copy(result: Array) -> None:
                _bytes(output)[...] = result

            return RingWork(self._group.start("all-gather", _bytes(input)), [output], copy)

        _allgather_base = all_gather_single

        def reduce_scatter(
            self, outputs: list[Any], inputs: list[list[Any]], opts: Any = None
        ) -> Any:
            whole = torch.cat([tensor.reshape(-1) for tensor in inputs[0]])
            return self.reduce_scatter_single(outputs[0], whole, opts)

        def reduce_scatter_single(self, output: Any, input: Any, opts: Any = None) -> Any:
            array, dtype = _array(input)

            def copy(result: Array) -> None:
                _bytes(output)[...] = result.view(np.uint8)

            work = self._group.start("reduce-scatter", array, op=_op(opts), dtype=dtype)
            return RingWork(work, [output], copy)

        _reduce_scatter_base = reduce_scatter_single

        def all_to_all_single(
            self, output: Any, input: Any, output_splits: Any, input_splits: Any, opts: Any = None
        ) -> Any:
            if len(set(output_splits or ())) > 1 or len(set(input_splits or ())) > 1:
                raise BadCall("the ring backend exchanges parts of one size")

            def copy(result: Array) -> None:
                _bytes(output)[...] = result

            return RingWork(self._group.start("all-to-all", _bytes(input)), [output], copy)

        alltoall_base = all_to_all_single

        def barrier(self, opts: Any = None) -> Any:
            return RingWork(self._group.start("barrier", np.empty(0, np.uint8)), [])

        def send(self, tensors: list[Any], dst: int, tag: int) -> Any:
            return RingWork(self._group.start_send(_bytes(tensors[0]), dst, tag), tensors)

        def recv(self, tensors: list[Any], src: int, tag: int) -> Any:
            return RingWork(self._group.start_recv(_bytes(tensors[0]), src, tag), tensors)

    return {"Work": RingWork, "ProcessGroup": RingProcessGroup}


register()
