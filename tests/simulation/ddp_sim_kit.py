"""Collectives in a simulation, and the verdict on their outcomes."""

from __future__ import annotations

import numpy as np

from ddp import engine as engine_module
from ddp import execution as execution_module
from ddp import operation as operation_module
from ddp import verifiable
from ddp.call import Call
from ddp.engine import Engine
from ddp.errors import DdpError
from ddp.operation import Operation
from ddp.schedules.catalogue import SINGLE, schedule_of
from ddp.schedules.schedule import bounds
from ddp.simulation import Simulation

N = 23  # of elements; not divisible by the ranks
ROOT = 1  # of those collectives that have one

# Ways of a vector: copied, whole and at once; or sent from where it is, where that is allowed: held
# until its receiver has begun; in pieces; in slices. The limits are small so that a short vector
# has them all, and every step can be a death.
LENT = {(execution_module, "LENT_BYTES_MIN"): 0}
WAYS = {
    "eager": {},
    "held": LENT | {(engine_module, "EAGER_BYTES"): 0},
    "pieces": LENT | {(execution_module, "SEGMENT_BYTES"): 16, (engine_module, "EAGER_BYTES"): 8},
    "slices": LENT
    | {
        (operation_module, "SLICE_BYTES"): 20,
        (operation_module, "SLICES_ACTIVE"): 2,
        (engine_module, "EAGER_BYTES"): 8,
    },
}


def go(way, patch):
    """Let vectors take that way; `patch` is pytest's."""
    for (module, name), value in WAYS[way].items():
        patch.setattr(module, name, value)


def algorithms_of(kind, allreduce):
    """(kind, algorithm) of all that do it."""
    return [(kind, name) for name in (allreduce if kind == "allreduce" else [SINGLE[kind]])]


def inputs(kind, n, rank, size):
    """What a rank brings; n elements, or so many for each rank where ranks have parts of it."""
    if kind == "barrier":
        return np.empty(0, np.float32)
    own = verifiable.inputs("float32", "sum", n, rank, size)
    if kind == "all-to-all":
        return np.concatenate([own + 1000 * other for other in range(size)])
    if kind == "all-gather":
        vector = np.zeros(n * size, np.float32)
        vector[n * rank : n * (rank + 1)] = own
        return vector
    return own


def wanted(kind, algorithm, n, rank, size):
    """(the part of the vector that counts, what must be in it)."""
    all_ = [verifiable.inputs("float32", "sum", n, r, size) for r in range(size)]
    whole, nothing = slice(None), slice(0)
    if kind == "barrier":
        return nothing, np.empty(0, np.float32)
    if kind == "all-gather":
        return whole, np.concatenate(all_)
    if kind == "all-to-all":
        return whole, np.concatenate([own + 1000 * rank for own in all_])
    if kind == "broadcast":
        return whole, all_[ROOT]
    contributors = schedule_of(kind, algorithm, size).contributors
    total = verifiable.expected("float32", "sum", n, contributors, size)
    if kind == "reduce":
        return (whole, total) if rank == ROOT else (nothing, total[:0])
    if kind == "reduce-scatter":
        starts = bounds(n, size)
        part = slice(starts[rank], starts[rank + 1])
        return part, total[part]
    return whole, total


def one_call(
    algorithm, size, seed, kill=None, n=N, make=Engine, kind="allreduce", world=Simulation
):
    """A collective of everybody under a seed; returns the world, the operations and the vectors."""
    found = world(size, seed, make=make)
    vectors = [inputs(kind, n, rank, size) for rank in range(size)]
    root = ROOT if kind in ("broadcast", "reduce") else 0
    call = Call(kind, algorithm, "sum", "float32", len(vectors[0]), root)
    started = found.all_call(call, vectors)
    found.run(kill=kill)
    return found, started, vectors


def judge(world, started, vectors, algorithm, n=N, kind="allreduce"):
    """All survivors have the sum, or all have an error; returns which: "sum" or "error"."""
    size = len(vectors)
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
        part, right = wanted(kind, algorithm, n, rank, size)
        assert np.array_equal(vectors[rank][part], right), f"rank {rank} returned a wrong number"
    assert len(set(outcomes.values())) == 1, f"survivors disagree: {outcomes}"
    return next(iter(outcomes.values()))


def deaths(kind, algorithm, size, *, n=N, every=1, make=Engine):
    """Each rank killed after each delivery (each `every`-th, over all ranks); how it ended."""
    seen = set()
    steps = one_call(algorithm, size, 0, kind=kind, n=n)[0].delivered
    assert steps >= size
    for case in range(0, (steps + 1) * size, every):
        step, victim = divmod(case, size)
        found = one_call(algorithm, size, case, {victim: step}, n, make, kind)
        seen.add(judge(*found, algorithm, n, kind))
        for engine in found[0].engines:
            if engine.rank != victim and victim in found[0].dead:
                assert f"rank {victim} is gone" in str(engine.broken)
    return seen
