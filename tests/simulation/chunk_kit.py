"""A simulated chunk store: raft nodes, chunk servers, and a client on a node of its own."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from mr_sim_kit import InlinePool

from mapreduce.store.client import ChunkStore
from mapreduce.store.server import ChunkService
from mapreduce.store.settings import ChunkSettings
from mapreduce.worker import WorkerService
from netstack.rpc.node import RpcNode
from netstack.runtime.config import ClusterConfig, NodeConfig
from netstack.runtime.simulation.world import EPOCH, World
from raftd.client import RaftClient
from raftd.server import RaftService
from security.identity import Authority

RAFT = ("n1", "n2", "n3")
KIB = 1024

# Small and quick: what takes minutes on disks takes a virtual second here.
SETTINGS = {
    "chunk_bytes": 128 * KIB,
    "lease_s": 2,
    "scan_ms": 300,
    "garbage_s": 3,
    "scrub_s": 5,
    "power_cut": True,
}


class Chunks:
    """The nodes of a store in a world; `servers` chunk servers c1, c2, …

    home: a folder, in which case they are MapReduce workers.
    """

    def __init__(
        self, world: World, servers: int = 4, home: Path | None = None, **settings
    ) -> None:
        self.world = world
        self._kind = "mapreduce" if home else "chunks"
        self.names = tuple(f"c{i}" for i in range(1, servers + 1))
        self.services: dict[str, ChunkService | WorkerService] = {}
        self.settings = {**SETTINGS, **settings}
        nodes = [NodeConfig(n, "raft", "127.0.0.1", 7400 + int(n[1:])) for n in RAFT]
        nodes += [NodeConfig(n, self._kind, "127.0.0.1", 7500 + int(n[1:])) for n in self.names]
        tables = {"chunks": self.settings, "raft": {"power_cut": True, "bootstrap": list(RAFT)}}
        self.config = ClusterConfig(
            "sim", "sim", "AESGCM", 7400, tuple(nodes), tables, home or Path()
        )
        entropy = random.Random("chunks").randbytes
        authority = Authority.create("sim", now=EPOCH, entropy=entropy)
        roles = {node.name: node.service for node in nodes} | {"client": "client"}
        self._identities = {
            name: authority.issue(name, role, now=EPOCH, entropy=entropy)
            for name, role in roles.items()
        }
        for node in nodes:
            world.add_node(node.name, self._start)
            world.restart(node.name)

    async def _start(self, runtime) -> None:
        service = self._server() if runtime.node in self.names else RaftService()
        if runtime.node in self.names:
            self.services[runtime.node] = service
        await service.start(runtime, self._identities[runtime.node], self.config)

    def _server(self) -> ChunkService | WorkerService:
        if self._kind == "chunks":
            return ChunkService()
        return WorkerService(lambda *_: InlinePool(random.Random(1)))

    async def client(self, name: str = "client") -> ChunkStore:
        """A client, once all chunk servers live."""
        made = asyncio.get_running_loop().create_future()

        async def start(runtime) -> None:
            node = RpcNode(runtime, self._identities["client"], service="client")
            await node.start(("127.0.0.1", 0))
            raft = RaftClient(node, {n.name: n.address for n in self.config.of_service("raft")})
            table = ChunkSettings.from_table(self.settings)
            made.set_result(ChunkStore(node, raft, table))

        self.world.add_node(name, start)
        self.world.restart(name)
        store = await made
        await self.until(lambda s: len(s) == len(self.names), store)
        return store

    async def until(self, condition, store: ChunkStore) -> None:
        """Wait until the living servers are as they should be."""
        for _ in range(600):
            if condition(await store.links.servers(fresh=True)):
                return
            await asyncio.sleep(0.2)
        raise AssertionError(f"the living did not become so: {await store.links.servers()}")

    # -- the disks, as the judge sees them

    def held(self, name: str):
        """The chunks of a server that runs."""
        return self.services[name].chunks.files

    def flip(self, name: str, chunk: str, offset: int) -> None:
        """One bit of a chunk's data, on the platter."""
        path = f"chunks/{chunk.replace('/', '-')}"
        self.world.nodes[name].storage._files[path].data[offset] ^= 0x40

    def good_holders(self, record) -> list[str]:
        """Who has the chunk on its disk, whole and unharmed, whether it runs or not."""
        from mapreduce.store.chunk_files import ChunkFiles
        from mapreduce.store.errors import Damaged
        from netstack.runtime.disk import Disk

        found = []
        for name in self.names:
            storage = self.world.nodes[name].storage
            path = f"chunks/{record.chunk.replace('/', '-')}"
            if path not in storage._files:
                continue
            files = ChunkFiles(Disk(storage, lambda s: None))
            try:
                sums = files._read_sums(path)
                files.held[record.chunk] = sums
                if (sums.version, sums.length) == (record.version, record.length):
                    list(files.verify(record.chunk, record.version))
                    found.append(name)
            except Damaged:
                continue
        return found

    async def healed(self, store: ChunkStore, patience_s: float = 120.0) -> None:
        """Wait until every chunk has its replicas, good, on servers that live, and no others."""
        deadline = self.world.now + patience_s
        while True:
            records = await store.metadata.chunks()
            live = await store.links.servers(fresh=True)
            wrong = [
                (record, self.good_holders(record))
                for record in records
                if not (
                    len(record.nodes) == record.replicas
                    and set(record.nodes) <= set(live)
                    and set(record.nodes) <= set(self.good_holders(record))
                )
            ]
            if not wrong:
                return
            assert self.world.now < deadline, f"not healed: {wrong[:3]}"
            await asyncio.sleep(0.5)


def run(scenario, *, seed: int = 5, servers: int = 4, **settings):
    """Run `scenario(chunks)` in a world of its own."""
    world = World(seed=seed)

    async def begin():
        return await scenario(Chunks(world, servers, **settings))

    try:
        return world.run(begin())
    finally:
        world.close()
