"""Those beside whom our collectives are measured, each as the child process that it wants to be.

    python -m cluster.bench.ddp_peers gloo RANK SIZE PORT CASES         rank 0 prints JSON
    mpirun -n P python -m cluster.bench.ddp_peers mpi CASES             rank 0 prints JSON
    python -m cluster.bench.ddp_peers train BACKEND RANK SIZE PORT STEPS

CASES is JSON: [[bytes, calls], …]. A time is that of all calls between two barriers, divided.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

WIDTH, LAYERS, BATCH = 1024, 4, 32


def timed(
    cases: list[list[int]], ranks: int, prepare: Callable[[int], Any], call: Any, barrier: Any
) -> list[float]:
    """Seconds a call, by case; `prepare` gives so many bytes of float32 ones.

    Raises RuntimeError if a call does not add them up: a figure of that would be of nothing.
    """
    found = []
    for nbytes, calls in cases:
        data = prepare(nbytes)
        call(data)
        wrong = int((data != ranks).sum())
        if wrong:
            raise RuntimeError(f"{wrong} elements of {len(data)} are not the sum")
        data[:] = 0
        call(data)
        barrier()
        began = time.perf_counter()
        for _ in range(calls):
            call(data)
        found.append((time.perf_counter() - began) / calls)
    barrier()
    return found


def gloo(rank: int, size: int, port: str, cases: list[list[int]]) -> None:
    """torch's CPU backend."""
    import torch
    import torch.distributed as dist

    _join("gloo", rank, size, port)
    found = timed(cases, size, lambda n: torch.ones(n // 4), dist.all_reduce, dist.barrier)
    if rank == 0:
        print(json.dumps(found), flush=True)
    dist.destroy_process_group()


def mpi(cases: list[list[int]]) -> None:
    """Whatever MPI is installed."""
    import numpy as np
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    found = timed(
        cases,
        world.size,
        lambda n: np.ones(n // 4, np.float32),
        lambda data: world.Allreduce(MPI.IN_PLACE, data),
        world.Barrier,
    )
    if world.rank == 0:
        print(json.dumps(found), flush=True)


def train(backend: str, rank: int, size: int, port: str, steps: int) -> None:
    """DistributedDataParallel of an MLP, steps a second."""
    import torch
    import torch.distributed as dist
    from torch import nn

    if backend == "ring":
        import ddp.torch_backend

        ddp.torch_backend.register()
    _join(backend, rank, size, port)
    torch.manual_seed(0)
    layers = [part for _ in range(LAYERS) for part in (nn.Linear(WIDTH, WIDTH), nn.ReLU())]
    model = nn.parallel.DistributedDataParallel(nn.Sequential(*layers))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    data = torch.randn(BATCH, WIDTH)
    began = 0.0
    for step in range(steps + 2):
        if step == 2:
            dist.barrier()
            began = time.perf_counter()
        optimizer.zero_grad()
        model(data).square().mean().backward()
        optimizer.step()
    if rank == 0:
        print(json.dumps(steps / (time.perf_counter() - began)), flush=True)
    dist.barrier()
    dist.destroy_process_group()


def _join(backend: str, rank: int, size: int, port: str) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    dist.init_process_group(backend, rank=rank, world_size=size)


def main(arguments: list[str]) -> None:
    """Entry of the child processes."""
    verb, *rest = arguments
    if verb == "gloo":
        gloo(int(rest[0]), int(rest[1]), rest[2], json.loads(rest[3]))
    elif verb == "mpi":
        mpi(json.loads(rest[0]))
    else:
        train(rest[0], int(rest[1]), int(rest[2]), rest[3], int(rest[4]))


if __name__ == "__main__":
    main(sys.argv[1:])
