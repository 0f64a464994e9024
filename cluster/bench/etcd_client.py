"""The load of `ring bench raft`, put on an etcd member by a Python program, with grpcio.

What h2load shows is what etcd can do (etcd_peer.py); this is what a program in our clients'
language gets of it: the same keys and values, the same closed loops over one connection, in one
process.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import random
import sys
from collections.abc import Callable
from typing import Any

from cluster.bench.closed_loop import closed_loop
from cluster.bench.etcd_peer import put_message, range_message
from cluster.bench.harness import Load

KEYS = 10_000
VALUE = b"v" * 256


def missing() -> str:
    """What is not installed, with the command that installs it; empty if it is."""
    return "" if importlib.util.find_spec("grpc") else "pip install grpcio"


async def load(port: int, operation: str, clients: int, seconds: float) -> Load:
    """Closed loops on the member whose clients' port this is."""
    import grpc

    dice = random.Random(1)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        # Without serialisers: the messages are prepared, and their answers counted, not read.
        put = channel.unary_unary("/etcdserverpb.KV/Put")
        fetch = channel.unary_unary("/etcdserverpb.KV/Range")

        def key() -> bytes:
            return b"key-%d" % dice.randrange(KEYS)

        calls: dict[str, Callable[[int], Any]] = {
            "put": lambda _: put(put_message(key(), VALUE)),
            "get": lambda _: fetch(range_message(key())),
        }
        return await closed_loop(calls[operation], clients, seconds)


def main(arguments: list[str]) -> None:
    """Entry of the client's process."""
    port, operation, clients, seconds = arguments
    taken = asyncio.run(load(int(port), operation, int(clients), float(seconds)))
    json.dump([taken.operations, taken.seconds, list(taken.latencies_s)], sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
