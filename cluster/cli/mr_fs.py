"""`ring mr fs …`: files in the chunk store, from the command line.

A path in the store is `ring://logs/monday` here as everywhere else; `logs/monday` will do, since
here it is clear which side is meant.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from cluster import render, topology
from cluster.control import running
from cluster.errors import Conflict, NotInTime, NotRunning, Unhealthy, Usage
from netstack.runtime.config import ConfigError

if TYPE_CHECKING:
    from mapreduce.store.client import ChunkStore

app = typer.Typer(no_args_is_help=True, help="Files in the replicated chunk store.")

T = TypeVar("T")
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]

SCHEME = "ring://"


def _in_store(path: str) -> str:
    """A path as the store's own calls take it; a slash at its end stays."""
    return path.removeprefix(SCHEME)


Remote = Annotated[
    str,
    typer.Argument(parser=_in_store, metavar="PATH", help="In the store: logs/a, ring://logs/a."),
]

# How much of a local file is read at a time.
READ_BYTES = 4 * 1024 * 1024


def _run(use: Callable[[ChunkStore], Awaitable[T]]) -> T:
    import mapreduce.store.client as store

    home = topology.home()
    topology.load(home)

    async def go() -> T:
        async with store.ChunkStore.connect(home / "cluster.toml") as chunks:
            return await use(chunks)

    try:
        return asyncio.run(go())
    except (store.FileExists, store.FolderNotEmpty) as error:
        raise Conflict(str(error)) from None
    except (
        store.NoSuchFile,
        store.NotAFile,
        store.NotAFolder,
        store.BadPath,
        ConfigError,
    ) as error:
        raise Usage(str(error)) from None
    except store.MetadataDown as error:
        if not running(home):
            raise NotRunning(f"no cluster is running in {home}; start one with: ring up") from None
        raise NotInTime(f"{error}; see: ring status") from None
    except store.StoreError as error:
        raise Unhealthy(str(error)) from None


@app.command()
def put(
    local: Annotated[list[Path], typer.Argument(help="Files and folders; - is stdin.")],
    path: Remote,
    replicas: Annotated[int | None, typer.Option(help="On so many servers.")] = None,
    chunk_bytes: Annotated[
        int | None, typer.Option(help="Size of a chunk; a multiple of 65536.")
    ] = None,
    json: Json = False,
) -> None:
    """Copy local files into the store. `ring mr fs put a.log b.log logs/`."""
    began = time.monotonic()

    async def go(store: ChunkStore) -> list[tuple[str, int]]:
        targets = await _targets(store, local, path)
        done = []
        with _Progress("put", sum(s.stat().st_size for s, _ in targets if s != Path("-"))) as bar:
            for source, target in targets:
                writer = await store.create(target, chunk_bytes=chunk_bytes, replicas=replicas)
                try:
                    for piece in _pieces(source):
                        await writer.append(piece)
                        bar.advance(len(piece))
                    entry = await writer.seal()
                except BaseException:
                    await writer.abandon()
                    raise
                done.append((target, entry.size))
        return done

    done = _run(go)
    total = sum(count for _, count in done)
    took = time.monotonic() - began
    if json:
        render.as_json([{"path": target, "bytes": count} for target, count in done])
        return
    render.say(f"✓ {len(done)} files, {total:,} bytes ({total / took / 1e6:.1f} MB/s)")
    if done:
        render.say(f"try next   ring mr fs stat {SCHEME}{done[0][0].strip('/')}")


async def _targets(store: ChunkStore, local: list[Path], path: str) -> list[tuple[Path, str]]:
    """Which local file becomes which path; as `cp` decides it."""
    from mapreduce.store.client import NoSuchFile

    try:
        into = (await store.stat(path)).is_folder
    except NoSuchFile:
        into = path.endswith("/") or len(local) > 1
    found = []
    for source in local:
        if source != Path("-") and not source.exists():
            raise Usage(f"there is no {source}")
        if source == Path("-") and into:
            raise Usage("what comes from stdin needs a name: ring mr fs put - logs/today")
        target = f"{path.rstrip('/')}/{source.name}" if into else path
        if source.is_dir():
            files = sorted(file for file in source.rglob("*") if file.is_file())
            found += [(file, f"{target}/{file.relative_to(source).as_posix()}") for file in files]
        else:
            found.append((source, target))
    return found


def _pieces(source: Path) -> Any:
    if source == Path("-"):
        yield from iter(lambda: sys.stdin.buffer.read(READ_BYTES), b"")
        return
    with source.open("rb") as file:
        yield from iter(lambda: file.read(READ_BYTES), b"")


@app.command()
def get(
    path: Remote,
    local: Annotated[Path, typer.Argument(help="A file or folder; - is stdout.")] = Path("-"),
) -> None:
    """Copy a file or a folder out of the store; to stdout by default."""

    async def go(store: ChunkStore) -> int:
        entry = await store.stat(path)
        if entry.is_folder and local == Path("-"):
            raise Usage(f"{path!r} is a folder; say where to: ring mr fs get {path} FOLDER")
        files = [item async for item in _walk(store, path)] if entry.is_folder else []
        pairs = [
            (name, local / name.removeprefix(path.strip("/")).lstrip("/")) for name, _ in files
        ]
        if not entry.is_folder:
            pairs = [(path, local / Path(path).name if local.is_dir() else local)]
        total = sum(found.size for _, found in files) or entry.size
        with _Progress("get", total) as bar:
            for name, target in pairs:
                await _fetch(store, name, target, bar)
        return len(pairs)

    count = _run(go)
    if local != Path("-"):
        render.say(f"✓ {count} files in {local}")


async def _walk(store: ChunkStore, folder: str) -> Any:
    folder = folder.strip("/")
    for name, entry in await store.list(folder):
        path = f"{folder}/{name}" if folder else name
        if entry.is_folder:
            async for found in _walk(store, path):
                yield found
        else:
            yield path, entry


async def _fetch(store: ChunkStore, path: str, local: Path, bar: _Progress) -> None:
    if local == Path("-"):
        async for piece in store.stream(path):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    local.parent.mkdir(parents=True, exist_ok=True)
    partial = local.with_name(local.name + ".part")
    try:
        with partial.open("wb") as file:
            async for piece in store.stream(path):
                file.write(piece)
                bar.advance(len(piece))
        partial.rename(local)
    finally:
        partial.unlink(missing_ok=True)


@app.command()
def ls(path: Remote = "", json: Json = False) -> None:
    """What is in a folder: size, replicas, name; folders end in a slash."""

    async def go(store: ChunkStore) -> list[tuple[str, Any]]:
        entry = await store.stat(path)
        if entry.is_folder:
            return await store.list(path)
        return [(path.rpartition("/")[2], entry)]

    found = _run(go)
    if json:
        render.as_json(
            [
                {"name": n, "folder": e.is_folder, "bytes": e.size, "replicas": e.replicas}
                for n, e in found
            ]
        )
        return
    for name, entry in found:
        if entry.is_folder:
            print(f"{'-':>14} {'-':>2} {name}/")
        else:
            print(f"{entry.size:>14} {entry.replicas:>2} {name}")


@app.command()
def rm(
    paths: Annotated[
        list[str], typer.Argument(parser=_in_store, metavar="PATH…", help="In the store.")
    ],
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Folders too.")] = False,
) -> None:
    """Remove files. Their chunks are deleted a while later."""

    async def go(store: ChunkStore) -> int:
        count = 0
        for path in paths:
            entry = await store.stat(path)
            if not entry.is_folder:
                await store.remove(path)
                count += 1
            elif recursive:
                count += await _remove_tree(store, path.strip("/"))
            else:
                raise Usage(f"{path!r} is a folder; to remove all of it: ring mr fs rm -r {path}")
        return count

    render.say(f"✓ removed {_run(go)} files")


async def _remove_tree(store: ChunkStore, folder: str) -> int:
    count = 0
    for name, entry in await store.list(folder):
        path = f"{folder}/{name}" if folder else name
        if entry.is_folder:
            count += await _remove_tree(store, path)
        else:
            await store.remove(path)
            count += 1
    await store.remove_folder(folder)
    return count


@app.command()
def stat(path: Remote, json: Json = False) -> None:
    """A file's size, and on which servers each of its chunks is. Exit 1 if one is nowhere."""

    async def go(store: ChunkStore) -> tuple[Any, list[Any]]:
        entry = await store.stat(path)
        return entry, [] if entry.is_folder else await store.locate(path)

    entry, ranges = _run(go)
    if entry.is_folder:
        raise Usage(f"{path!r} is a folder; look into it with: ring mr fs ls {path}")
    short = sum(len(found.nodes) < entry.replicas for found in ranges)
    if json:
        chunks = [found._asdict() for found in ranges]
        render.as_json(
            {
                "path": path,
                "bytes": entry.size,
                "chunk_bytes": entry.chunk_bytes,
                "replicas": entry.replicas,
                "under_replicated": short,
                "chunks": chunks,
            }
        )
    else:
        rows = [(f.offset, f.length, " ".join(f.nodes) or "nowhere") for f in ranges]
        render.table(("OFFSET", "BYTES", "SERVERS"), rows, right=("OFFSET", "BYTES"))
        state = f"{short} chunks have fewer now" if short else "all of them live"
        render.say(f"{entry.size:,} bytes, {entry.replicas} replicas a chunk: {state}")
    if any(not found.nodes for found in ranges):
        raise typer.Exit(1)


class _Progress:
    """A bar on a terminal, nothing elsewhere."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total = what, total
        self._bar: Any = None

    def __enter__(self) -> _Progress:
        if sys.stderr.isatty() and self._total:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

            columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(self._what, total=self._total)
        return self

    def advance(self, count: int) -> None:
        """So many more bytes are done."""
        if self._bar is not None:
            self._bar.advance(self._task, count)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
