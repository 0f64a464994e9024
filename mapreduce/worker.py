"""The worker's daemon: the core on a socket, children that run the user's code, files to fetch.

    mr.orders   notify   the master's Orders
    mr.fetch    stream   {path, offset, length} -> pieces of a map's output, for a sibling's reduce

Where the cluster has raft nodes the worker is a chunk server too (store/chunk_server.py): chunk.*
on the same socket, replicas in `nodes/NAME/data`. So tasks can run where their input lies.

Intermediate data lies in `nodes/NAME/scratch`, a folder a life. It is not synced: a worker that
dies loses it, and its maps run again. Nothing in it is served but what lies in that folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final

from mapreduce.attempt import FULL
from mapreduce.messages import MASTER_SERVICE, WORKER_SERVICE, Failure, Orders, Result
from mapreduce.pool import Pool, ProcessPool
from mapreduce.ring_urls import environment
from mapreduce.store.chunk_server import ChunkServer
from mapreduce.store.settings import ChunkSettings
from mapreduce.worker_core import Fetch, Forget, Kill, Launch, WorkerCore
from netstack.rpc import frames
from netstack.rpc.admin import offer_admin
from netstack.rpc.client import RpcClient
from netstack.rpc.connection import RpcConnection
from netstack.rpc.errors import Failed, RpcError
from netstack.rpc.node import RpcNode
from netstack.rpc.schema import decode, encode, message
from netstack.rpc.service import Call
from netstack.runtime.config import ClusterConfig, ConfigError
from netstack.runtime.endpoint import Address
from netstack.runtime.runtime import Runtime
from netstack.transport.config import TransportConfig
from raftd.client import RaftClient
from security.identity import Identity

# A sign of life, and of how far everything is.
BEAT_S: Final = 0.2

# A piece of a segment on the wire. The receiver holds 256 of them at the most.
PIECE_BYTES: Final = 256 * 1024

# Without a piece for so long, a segment counts as not to be had.
FETCH_S: Final = 2.0

SLOTS: Final = 1

# A file system in memory.
MEMORY: Final = Path("/dev/shm")


@message
class Segment:
    """Bytes of a file in the scratch folder of the worker that is asked."""

    path: str
    offset: int
    length: int


MakePool = Callable[[Path, int, bool, dict[str, str]], Pool]


def _process_pool(folder: Path, slots: int, warm: bool, variables: dict[str, str]) -> Pool:
    return ProcessPool(folder, slots, variables, warm=warm)


class WorkerService:
    """One worker.

    Args:
        make_pool: (folder, slots, warm, environment) -> Pool; the simulation has its own.
    """

    def __init__(self, make_pool: MakePool = _process_pool) -> None:
        self.core: WorkerCore
        self.node: RpcNode
        self.pool: Pool
        self.chunks: ChunkServer | None = None
        self._make_pool = make_pool
        self._runtime: Runtime
        self._addresses: dict[str, Address] = {}
        self._masters: list[str] = []
        self._clients: dict[str, RpcClient] = {}
        self._news = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._fetches: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._bytes_fetched = 0
        self._raft: RaftClient

    def __repr__(self) -> str:
        return f"<WorkerService {self.core!r}>"

    async def start(self, runtime: Runtime, identity: Identity, config: ClusterConfig) -> None:
        """Empty the scratch folder, bind, fork children, and begin to beat."""
        self._runtime = runtime
        slots, warm = _settings(config)
        incarnation = runtime.entropy(8).hex()
        root = config.home / "nodes" / runtime.node / "scratch"
        shutil.rmtree(root, ignore_errors=True)
        scratch = root / incarnation
        scratch.mkdir(parents=True)
        self._roots = [scratch, _memory(config, runtime.node) / incarnation]
        self._roots[1].mkdir(parents=True, exist_ok=True)
        self.core = WorkerCore(runtime.node, incarnation, slots, *map(str, self._roots))
        self.node = RpcNode(
            runtime, identity, service=WORKER_SERVICE, config=TransportConfig(suite=config.suite)
        )
        service = self.node.service
        service.add("mr.orders", self._orders, notify=True, allow={MASTER_SERVICE})
        service.add("mr.fetch", self._serve, request=Segment, allow={WORKER_SERVICE})
        offer_admin(self.node, self)
        await self._start_node(config)
        self._files = runtime.executor("segments")
        self._addresses = {n.name: n.address for n in config.of_service(WORKER_SERVICE)}
        for node in config.of_service(MASTER_SERVICE):
            self.node.link(node.name, node.address, MASTER_SERVICE).on_up.append(self._news.set)
            self._masters.append(node.name)
        variables = environment(config.home / "cluster.toml", runtime.node) if self.chunks else {}
        self.pool = self._make_pool(scratch, slots, warm, variables)
        await self.pool.start()
        runtime.spawn(self._beats(), "beats")

    async def _start_node(self, config: ClusterConfig) -> None:
        """Bind; with raft nodes, this one's disk holds chunks, beside what runs here."""
        address = config.node(self._runtime.node).address
        members = {node.name: node.address for node in config.of_service("raft")}
        if not members:
            await self.node.start(address)
            return
        settings = ChunkSettings.of(config)
        self._raft = RaftClient(self.node, members)
        self.chunks = ChunkServer(
            self._runtime, self.node, self._raft, settings, service=WORKER_SERVICE
        )
        self.chunks.offer(self.node)
        await self.node.start(address)
        await self.chunks.start(address)

    # -- what others ask

    def _orders(self, body: Any, connection: RpcConnection) -> None:
        self.core.receive(decode(Orders, body), self._now())
        self._go()

    async def _serve(self, segment: Segment, call: Call) -> AsyncIterator[bytes]:
        path = Path(segment.path)
        mine = any(path.is_relative_to(root) for root in self._roots)
        if not mine or ".." in path.parts:
            raise Failed("no-segment", "it is not in this life's scratch folder")
        position, end = segment.offset, segment.offset + segment.length
        while position < end:
            count = min(PIECE_BYTES, end - position)
            try:
                data = await self._in_thread(partial(_read_at, path, position, count))
            except OSError as error:
                raise Failed("no-segment", str(error)) from None
            if not data:
                raise Failed("no-segment", f"{path.name} ends early")
            position += len(data)
            yield data

    # -- what the core wants

    def _now(self) -> float:
        return self._runtime.clock.now()

    def _go(self) -> None:
        for output in self.core.take_outputs():
            if isinstance(output, Launch):
                self._runtime.spawn(self._run(output), f"attempt {output.mission.start.attempt}")
            elif isinstance(output, Kill):
                self.pool.kill(output.attempt, output.why)
            elif isinstance(output, Fetch):
                key = (output.attempt, output.source.version)
                task = self._runtime.spawn(self._fetch(output), f"fetch {key}")
                self._fetches[key] = task
                task.add_done_callback(partial(self._fetch_over, key))
            elif isinstance(output, Forget):
                for root in self._roots:
                    folder = root / output.job_id
                    self._files.submit(partial(shutil.rmtree, folder, True), _whatever)
        self._arm()
        self._news.set()

    def _fetch_over(self, key: tuple[str, int], _: asyncio.Task[None]) -> None:
        self._fetches.pop(key, None)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self.core.next_deadline()
        if deadline is not None:
            self._timer = self._runtime.call_at(deadline, self._due)

    def _due(self) -> None:
        self._timer = None
        self.core.on_deadline(self._now())
        self._go()

    async def _run(self, launch: Launch) -> None:
        Path(launch.mission.folder).parent.mkdir(exist_ok=True)
        result = await self.pool.run(launch.mission)
        shutil.rmtree(launch.mission.folder, ignore_errors=True)
        self.core.ended(result, self._now())
        self._go()

    async def _fetch(self, fetch: Fetch) -> None:
        """Copy the runs of one part, one behind the other, into one file."""
        source = fetch.source
        runs = source.runs[fetch.part]
        path = Path(fetch.path)
        local: list[list[Any]] = []
        try:
            path.parent.mkdir(exist_ok=True)
            position = 0
            with _created(path) as file:
                for offset, length, count in runs:
                    await self._copy(source.worker, Segment(source.path, offset, length), file)
                    local.append([fetch.path, position, length, count, source.index])
                    position += length
        except (RpcError, OSError) as error:
            if isinstance(error, OSError) and error.errno in FULL:
                # The disk is this worker's: whoever has the map's output is not to blame.
                self._full(fetch.attempt, error)
                return
            self._runtime.events.emit(
                "mr.fetch_failed", worker=source.worker, map=source.index, error=str(error)[:200]
            )
            self.core.not_fetched(fetch.attempt, source, self._now())
        else:
            self._bytes_fetched += position
            self.core.fetched(fetch.attempt, source, local, self._now())
        self._go()

    def _full(self, attempt: str, error: OSError) -> None:
        """A reduce cannot gather its input here."""
        held = self.core.held.get(attempt)
        if held is not None:
            start, failure = held.start, Failure("disk", f"{type(error).__name__}: {error}")
            result = Result(attempt, start.job_id, start.kind, start.index, failure=failure)
            self.core.ended(result, self._now())
            self._go()

    async def _copy(self, worker: str, segment: Segment, file: BinaryIO) -> None:
        """One run; raises RpcError, OSError."""
        if worker not in self._addresses:
            raise Failed("no-worker", f"there is no worker {worker}")
        client = self._clients.get(worker)
        if client is None:
            address = self._addresses[worker]
            client = self._clients[worker] = self.node.client(address, WORKER_SERVICE, worker)
        left = segment.length
        async with contextlib.aclosing(
            client.stream("mr.fetch", encode(segment), timeout_s=FETCH_S)
        ) as pieces:
            async for piece in pieces:
                left -= len(piece)
                await self._in_thread(partial(file.write, piece))
        if left:
            raise Failed("no-segment", f"{left} bytes of it did not come")

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def ended(result: Any, error: BaseException | None) -> None:
            if not done.done():
                done.set_exception(error) if error else done.set_result(result)

        self._files.submit(work, ended)
        return await done

    async def _beats(self) -> None:
        """Say how it goes: now and then, and whenever there is news."""
        while True:
            self._look_at_children()
            beat = frames.notify("mr.beat", encode(self.core.beat()))
            for name in self._masters:
                link = self.node._links.get(name)
                if link is not None:
                    link.notify(beat)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    await self._news.wait()
            self._news.clear()

    def _look_at_children(self) -> None:
        for attempt in list(self.core.held):
            numbers, status = self.pool.progress(attempt)
            self.core.moved(attempt, numbers, status, self._now())
        outputs = self.core.take_outputs()
        for output in outputs:
            if isinstance(output, Kill):
                self.pool.kill(output.attempt, output.why)

    # -- for the operator

    def status(self) -> dict[str, Any]:
        """See netstack.runtime.daemon.Service."""
        links = [self.node._links[name] for name in self._masters]
        connected = any(link.up for link in links)
        running = sum(held.phase == "running" for held in self.core.held.values())
        chunks = self.chunks.status() if self.chunks is not None else {"trouble": ""}
        return {
            **chunks,
            "role": "worker",
            "slots": self.core.slots,
            "running": running,
            "done": self.core.done,
            "fetched_mb": round(self._bytes_fetched / 1e6, 1),
            "trouble": chunks["trouble"] if connected or not links else "no master",
        }

    def metrics(self) -> dict[str, float]:
        """See netstack.runtime.daemon.Service."""
        chunks = self.chunks.metrics() if self.chunks is not None else {}
        return {
            **chunks,
            "ring_mr_attempts_total": float(self.core.done),
            "ring_mr_fetched_bytes_total": float(self._bytes_fetched),
            "ring_mr_running": float(len(self.core.held)),
        }

    def trust(self, identity: Identity) -> None:
        """See netstack.runtime.daemon.Service."""
        self.node.trust(identity)

    async def drain(self) -> None:
        """Nothing to finish: what runs here is run again elsewhere."""

    async def stop(self) -> None:
        """End the children, release socket and files."""
        if self._timer is not None:
            self._timer.cancel()
        await self.pool.stop()
        if self.chunks is not None:
            await self.chunks.stop()
            self._raft.close()
        await self.node.close()
        self._files.close()
        for root in self._roots:
            shutil.rmtree(root.parent, ignore_errors=True)


def _read_at(path: Path, position: int, count: int) -> bytes:
    """Opened for each piece: a caller may go away in the middle, and nobody would close it."""
    with path.open("rb", buffering=0) as file:
        file.seek(position)
        return file.read(count)


def _created(path: Path) -> BinaryIO:
    """A new file. Not made by another thread: who waits for that may be cancelled meanwhile."""
    return path.open("wb")


def _memory(config: ClusterConfig, node: str) -> Path:
    """Where the data of direct shuffles lies: in memory, if this machine has such a folder."""
    if not MEMORY.is_dir():
        return config.home / "nodes" / node / "memory"
    folder = MEMORY / f"ring-{config.id}-{node}"
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _settings(config: ClusterConfig) -> tuple[int, bool]:
    """`slots` and `warm` of the table [mapreduce]: attempts at a time; whether to fork ahead."""
    settings = config.settings.get(WORKER_SERVICE, {})
    for key in settings:
        if key not in ("slots", "warm"):
            raise ConfigError(f"there is no {WORKER_SERVICE}.{key}; there are: slots, warm")
    slots, warm = settings.get("slots", SLOTS), settings.get("warm", True)
    if type(slots) is not int or not 1 <= slots <= 256:
        raise ConfigError(f"{WORKER_SERVICE}.slots must be 1 to 256, not {slots!r}")
    if type(warm) is not bool:
        raise ConfigError(f"{WORKER_SERVICE}.warm must be true or false, not {warm!r}")
    return slots, warm


def _whatever(result: Any, error: BaseException | None) -> None:
    """For work whose outcome is of no interest: what cannot be deleted lies there longer."""
