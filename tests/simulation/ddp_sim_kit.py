"""Collectives in a simulation, and the verdict on their outcomes."""

from __future__ import annotations

import numpy as np

from ddp import verifiable
from ddp.call import Call
from ddp.engine import Engine
from ddp.errors import DdpError
from ddp.operation import Operation
from ddp.schedules.catalogue import schedule_of
from ddp.simulation import Simulation


def one_call(algorithm, size, seed, kill=None, n=23, make=Engine, kind="allreduce"):
    """An allreduce of everybody under a seed; returns the world, the operations and the vectors."""
    world = Simulation(size, seed, make=make)
    call = Call(kind, algorithm, "sum", "float32", n)
    vectors = [verifiable.inputs("float32", "sum", n, rank, size) for rank in range(size)]
    started = world.all_call(call, vectors)
    world.run(kill=kill)
    return world, started, vectors


def judge(world, started, vectors, algorithm, n=23):
    """All survivors have the sum, or all have an error; returns which: "sum" or "error"."""
    size = len(vectors)
    contributors = schedule_of("allreduce", algorithm, size).contributors
    wanted = verifiable.expected("float32", "sum", n, contributors, size)
    outcomes = {}
    for rank in range(size):
        if rank in world.dead:
            continue
        operation = started[rank]
        if isinstance(operation, DdpError):
            outcomes[rank] = "error"
            continue
        assert isinstance(operation, Operation)
        assert operation.ended, f"rank {rank} hangs: {operation!r}"
        if operation.error is not None:
            outcomes[rank] = "error"
            continue
        outcomes[rank] = "sum"
        assert np.array_equal(vectors[rank], wanted), f"rank {rank} returned a wrong number"
    assert len(set(outcomes.values())) == 1, f"survivors disagree: {outcomes}"
    return next(iter(outcomes.values()))
