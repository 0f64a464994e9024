"""What ranks do in the tests of real processes; run by ddp.launch as `ddp_real_kit:NAME`."""

from __future__ import annotations

import os
import signal
import time

import numpy as np

from ddp import verifiable
from ddp.errors import DdpError
from ddp.schedules.catalogue import ALLREDUCE, schedule_of


def all_algorithms(group, n):
    """Wrong elements of every algorithm and some types."""
    wrong = {}
    for algorithm in ALLREDUCE:
        for dtype, op in (("float32", "sum"), ("bfloat16", "mean"), ("uint64", "sum")):
            contributors = schedule_of("allreduce", algorithm, group.size).contributors
            wanted = verifiable.expected(dtype, op, n, contributors, group.size)
            data = verifiable.inputs(dtype, op, n, group.rank, group.size)
            group.allreduce(data, op, algorithm, dtype=dtype)
            wrong[f"{algorithm} {dtype} {op}"] = verifiable.wrong(data, wanted)
    return {"fabric": group.fabric.name, "wrong": wrong}


def other_collectives(group):
    rank, size = group.rank, group.size
    big = np.arange(300_000) + rank
    assert group.all_gather(big)[rank * 300_000] == rank
    assert (group.broadcast(big.copy(), 1) == np.arange(300_000) + 1).all()
    assert group.all_to_all(np.arange(size) + 10 * rank).tolist() == [
        10 * r + rank for r in range(size)
    ]
    group.send(big, (rank + 1) % size)
    assert group.recv(np.empty_like(big), (rank - 1) % size)[0] == (rank - 1) % size
    works = [group.start("allreduce", np.full(1000, i + rank), algorithm="ring") for i in range(9)]
    late = group.start_recv(np.empty(3), (rank - 1) % size, tag=7)
    group.start_send(np.full(3, float(rank)), (rank + 1) % size, tag=7).wait()
    assert late.wait()[0] == (rank - 1) % size
    for i, work in reversed(list(enumerate(works))):
        assert (work.wait() == size * i + sum(range(size))).all()
    group.barrier()
    return True


def parts(group):
    """Rows and columns of a square of four."""
    rank = group.rank
    row, column = group.split([rank & 2, rank | 1]), group.split([rank & 1, rank | 2])
    sums = [float(g.allreduce(np.full(70_000, 1.0 + rank))[0]) for g in (row, column, group)]
    return [row.fabric.name, *sums]


def ways(group, n, algorithm):
    """How a group that spans hosts carries a sum: bytes through memory, and over netstack."""
    before = dict(group.counters)
    data = np.ones(n, np.float32)
    group.allreduce(data, algorithm=algorithm)
    assert (data == group.size).all()
    sent = group.counters["sent_bytes"] - before["sent_bytes"]
    near = group.counters["memory_bytes"] - before.get("memory_bytes", 0)
    return {"fabric": group.fabric.name, "near": near, "far": sent - near}


def counts(group, to):
    """A generator: it says as it goes."""
    for i in range(to):
        group.barrier()
        yield {"rank": group.rank, "i": i}
    return 100 + group.rank


def fails_alone(group):
    """One fails by itself, and another waits for it."""
    if group.rank == 1:
        raise ValueError("this one")
    group.barrier()


def mismatch(group):
    try:
        if group.rank == 0:
            group.allreduce(np.zeros(8), "max")
        else:
            group.allreduce(np.zeros(8), "sum")
    except DdpError as error:
        return [type(error).__name__, str(error)]
    return "no error"


def mixed_mismatch(group):
    """One call that goes directly through memory, and one that goes through rings."""
    try:
        if group.rank == 0:
            group.barrier()
        else:
            group.allreduce(np.zeros(8), algorithm="sharded-server")
    except DdpError as error:
        return [type(error).__name__, str(error)]
    return "no error"


def killed(group, victim, algorithm, n):
    """Everybody adds for ever; one is killed -9 in the middle. What the others are told."""
    data = np.ones(n, np.float32)
    for _ in range(3):
        group.allreduce(data, algorithm=algorithm)
    group.barrier()
    if group.rank == victim:
        # From a thread: it dies wherever its calls happen to be.
        import threading

        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGKILL)).start()
    deadline = time.monotonic() + 60
    count = 0
    while time.monotonic() < deadline:
        try:
            data.fill(1)
            group.allreduce(data, algorithm=algorithm)
            assert (data == group.size).all(), "a wrong number"
            count += 1
        except DdpError as error:
            return {"error": str(error), "kind": type(error).__name__, "count": count}
    return {"error": "none in a minute", "kind": "", "count": count}


def killed_reaching(group, victim, n):
    """The same while all read one another's vectors."""
    from ddp.direct import Way
    from ddp.reach import ReachSum
    from ddp.ways import Ways

    reached, plain = [], ReachSum.take

    def take(self, window, rank):
        reached.append(rank)
        plain(self, window, rank)

    Ways.choose = lambda self, call: Way.REACH
    ReachSum.take = take
    return {**killed(group, victim, "sharded-server", n), "reached": len(reached)}


def stopped(group, victim):
    """One is stopped (SIGSTOP): the others are told who is late, within their patience."""
    group.barrier()
    if group.rank == victim:
        os.kill(os.getpid(), signal.SIGSTOP)
    try:
        group.allreduce(np.ones(100), timeout_s=1.0)
    except DdpError as error:
        return [type(error).__name__, str(error)]
    return "no error"
