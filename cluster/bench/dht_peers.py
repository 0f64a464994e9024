"""The other side of `ring bench dht`: PyPI's kademlia, as its documentation has it used.

All its servers run in one process, each on its own port, bootstrapped to the first; k = 20 and
alpha = 3 are its defaults.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

Call = Callable[[bytes], Awaitable[object]]


async def serve_kademlia(count: int) -> int:
    """Start `count` servers that know each other; returns a port to bootstrap from."""
    from kademlia.network import Server

    servers = [Server() for _ in range(count)]
    for server in servers:
        await server.listen(0, interface="127.0.0.1")
    ports = [server.transport.get_extra_info("sockname")[1] for server in servers]
    for server in servers[1:]:
        await server.bootstrap([("127.0.0.1", ports[0])])
    # Once more, now that all are there.
    for server in servers:
        await server.bootstrap([("127.0.0.1", port) for port in ports[:3]])
    _running.extend(servers)
    return int(ports[0])


_running: list[Any] = []  # for as long as the process lives


async def kademlia_client(port: int, value: bytes) -> tuple[Call, Call]:
    """(put, get) of a node of that network which keeps nothing itself."""
    from kademlia.network import Server

    server = Server(storage=_Nothing())
    await server.listen(0, interface="127.0.0.1")
    await server.bootstrap([("127.0.0.1", port)])
    _running.append(server)

    async def put(key: bytes) -> object:
        return await server.set(key, value)

    async def get(key: bytes) -> object:
        return await server.get(key)

    return put, get


class _Nothing:
    """A storage that keeps nothing: what is read comes from the network."""

    def __setitem__(self, key: bytes, value: object) -> None:
        return

    def __getitem__(self, key: bytes) -> object:
        raise KeyError(key)

    def get(self, key: bytes, default: object = None) -> object:
        return default

    def iter_older_than(self, seconds_old: float) -> Iterator[tuple[bytes, object]]:
        return iter(())

    def __iter__(self) -> Iterator[tuple[bytes, object]]:
        return iter(())
