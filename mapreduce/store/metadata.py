"""The metadata's changes: each is one transaction of the replicated store, safe to repeat.

A transaction compares what its author has read and does nothing if that is no longer so; then it
is read and tried again. So two writers of one path, a rename and a removal, or two healers can
meet in any order, and each change happens once or not at all.

- A file appears under its path when it is sealed, whole. The transaction wants its writer's lease
  to be alive, so that nobody seals what was given up for lost.
- Whoever puts a name into a folder writes the folder's entry too; whoever removes a folder wants
  that entry unchanged since it found nothing in it.
- A chunk's record is changed by comparing all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from mapreduce.store import model
from mapreduce.store.errors import (
    FileExists,
    FolderNotEmpty,
    MetadataDown,
    NoSuchFile,
    NotAFile,
    NotAFolder,
    StoreError,
    Unclear,
    WriterLost,
)
from mapreduce.store.model import ChunkRecord, Entry, OpenFile, ServerRecord
from raftd.client import DELETE, PUT, KeyValue, NotReached, OutcomeUnknown, RaftClient, Refused

# How long a change may take: an election, and then some.
TIMEOUT_S: Final = 20.0

# A change that others were faster at is tried again so often.
TRIES_MAX: Final = 50

Op = list[Any]


class Metadata:
    """What is known of files, chunks and servers.

    Args:
        raft: a session with the replicated store.
        now: unix time, for when files were made.
    """

    def __init__(self, raft: RaftClient, now: Callable[[], float]) -> None:
        self._raft = raft
        self._now = now

    def __repr__(self) -> str:
        return f"<Metadata {self._raft!r}>"

    # -- reading

    async def entry(self, path: str) -> Entry:
        """A clean path's; raises NoSuchFile."""
        if not path:
            return Entry("", 0, 0, 0, 0.0)
        pair = await self._get(model.entry_key(path))
        if pair is None:
            raise NoSuchFile(f"there is no {path!r}")
        return Entry.unpack(pair.value)

    async def children(self, folder: str) -> list[tuple[str, Entry]]:
        """(name, entry) of all that is in a clean path; raises NoSuchFile, NotAFolder."""
        if not (await self.entry(folder)).is_folder:
            raise NotAFolder(f"{folder!r} is a file")
        prefix = model.children_prefix(folder)
        return [
            (pair.key[len(prefix) :].decode("utf-8", "surrogateescape"), Entry.unpack(pair.value))
            for pair in await self._range(prefix)
        ]

    async def chunks(self, file: str = "") -> list[ChunkRecord]:
        """The chunks of a file in order, or of all."""
        prefix = model.CHUNKS + (f"{file}/".encode() if file else b"")
        return [ChunkRecord.unpack(pair.key, pair.value) for pair in await self._range(prefix)]

    async def chunk(self, chunk: str) -> ChunkRecord | None:
        """One chunk's record as it is now."""
        pair = await self._get(model.chunk_key(chunk))
        return ChunkRecord.unpack(pair.key, pair.value) if pair is not None else None

    async def servers(self) -> dict[str, ServerRecord]:
        """Those that live."""
        pairs = await self._range(model.SERVERS)
        records = [ServerRecord.unpack(pair.key, pair.value) for pair in pairs]
        return {record.name: record for record in records}

    # -- the life of a file

    async def begin(self, file: str, path: str, lease: int) -> None:
        """A new file wants to be `path`; its writer lives as long as `lease`."""
        record = OpenFile(path, self._now())
        await self._txn(
            [["version", "=", _open(file), 0]],
            [_put(_open(file), record.pack()), _put(_writer(file), b"", lease)],
        )

    async def allocate(self, record: ChunkRecord, before: ChunkRecord | None) -> None:
        """A chunk is to be written to the nodes of `record`; raises WriterLost."""
        key = model.chunk_key(record.chunk)
        alive = ["version", ">", _writer(model.file_of(record.chunk)), 0]
        if not await self._txn([alive, _is(key, before)], [_put(key, record.pack())]):
            raise WriterLost(f"the lease of the writer of {record.chunk} ran out")

    async def replace(self, before: ChunkRecord, after: ChunkRecord) -> bool:
        """Change a record if it still is what it was."""
        key = model.chunk_key(before.chunk)
        return await self._txn([_is(key, before)], [_put(key, after.pack())])

    async def seal(self, path: str, entry: Entry, *, replace: bool) -> None:
        """Give an open file its name.

        Raises FileExists, NotAFile, NotAFolder, WriterLost.
        """
        writer, opened = _writer(entry.file), _open(entry.file)
        for _ in range(TRIES_MAX):
            old = await self._get(model.entry_key(path))
            if old is not None and not replace:
                raise FileExists(f"there is a {path!r} already")
            compares, then = await self._link(path, entry, old)
            compares.append(["version", ">", writer, 0])
            then += [_delete(opened), _delete(writer)]
            if await self._txn(compares, then):
                return
            if await self._get(writer) is None:
                raise WriterLost(f"the lease of the writer of {path!r} ran out")
        raise Unclear(f"too many others are changing {path!r}")

    async def abandon(self, file: str, *, still_written: bool) -> bool:
        """Give up an open file and its chunks; False if it was sealed, or its writer lives."""
        compares: list[Op] = [["version", ">", _open(file), 0]]
        if not still_written:
            compares.append(["version", "=", _writer(file), 0])
        then = [_delete(_open(file)), _delete_chunks(file)]
        if still_written:
            then.append(_delete(_writer(file)))
        return await self._txn(compares, then)

    async def abandoned(self) -> list[str]:
        """Open files whose writers are silent for longer than their leases."""
        opened = {_file_id(pair.key) for pair in await self._range(model.OPEN)}
        # Read after: a file that began in between is not in the first list.
        writers = {_file_id(pair.key) for pair in await self._range(model.WRITERS)}
        return sorted(opened - writers)

    # -- names

    async def make_folder(self, path: str, *, exist_ok: bool) -> None:
        """A folder, and those above it; raises FileExists, NotAFolder."""
        for _ in range(TRIES_MAX):
            old = await self._get(model.entry_key(path))
            if old is not None:
                if not exist_ok or not Entry.unpack(old.value).is_folder:
                    raise FileExists(f"there is a {path!r} already")
                return
            compares, then = await self._link(path, Entry("", 0, 0, 0, self._now()), None)
            if await self._txn(compares, then):
                return
        raise Unclear(f"too many others are changing {path!r}")

    async def remove(self, path: str) -> None:
        """A file; its chunks become garbage. Raises NoSuchFile, NotAFile."""
        for _ in range(TRIES_MAX):
            old = await self._get(model.entry_key(path))
            entry = _file(path, old)
            then = [_delete(model.entry_key(path)), _delete_chunks(entry.file)]
            if await self._txn([_unchanged(model.entry_key(path), old)], then):
                return
        raise Unclear(f"too many others are changing {path!r}")

    async def remove_folder(self, path: str) -> None:
        """An empty folder; raises NoSuchFile, NotAFolder, FolderNotEmpty."""
        key = model.entry_key(path)
        for _ in range(TRIES_MAX):
            old = await self._get(key)
            if old is None:
                raise NoSuchFile(f"there is no {path!r}")
            if not Entry.unpack(old.value).is_folder:
                raise NotAFolder(f"{path!r} is a file")
            if await self._range(model.children_prefix(path), limit=1):
                raise FolderNotEmpty(f"there is something in {path!r}")
            if await self._txn([_unchanged(key, old)], [_delete(key)]):
                return
        raise Unclear(f"too many others are changing {path!r}")

    async def rename(self, old_path: str, new_path: str) -> None:
        """A file, whole or not at all; one of the new name is replaced.

        Raises NoSuchFile, NotAFile, NotAFolder.
        """
        old_key = model.entry_key(old_path)
        for _ in range(TRIES_MAX):
            old = await self._get(old_key)
            entry = _file(old_path, old)
            if old_path == new_path:
                return
            target = await self._get(model.entry_key(new_path))
            compares, then = await self._link(new_path, entry, target)
            compares.append(_unchanged(old_key, old))
            if await self._txn(compares, [*then, _delete(old_key)]):
                return
        raise Unclear(f"too many others are changing {old_path!r}")

    async def _link(
        self, path: str, entry: Entry, old: KeyValue | None
    ) -> tuple[list[Op], list[Op]]:
        """What to compare and do so that `path` becomes `entry`, in folders that exist then."""
        key = model.entry_key(path)
        compares, then = [_unchanged(key, old)], [_put(key, entry.pack())]
        if old is not None:
            replaced = Entry.unpack(old.value)
            if replaced.is_folder:
                raise NotAFile(f"{path!r} is a folder")
            if replaced.file != entry.file:
                then.append(_delete_chunks(replaced.file))
        for folder in model.ancestors(path):
            folder_key = model.entry_key(folder)
            above = await self._get(folder_key)
            if above is None:
                compares.append(["version", "=", folder_key, 0])
                then.append(_put(folder_key, Entry("", 0, 0, 0, self._now()).pack()))
                continue
            if not Entry.unpack(above.value).is_folder:
                raise NotAFolder(f"{folder!r} is a file")
            # Written as it is: whoever has just found the folder empty must look again.
            compares.append(["create", "=", folder_key, above.create])
            then.append(_put(folder_key, above.value))
            break
        return compares, then

    # -- leases

    async def lease(self, seconds: int) -> int:
        """A new one."""
        return int(await self._ask(self._raft.lease_grant(seconds, timeout_s=TIMEOUT_S)))

    async def keep(self, lease: int) -> bool:
        """Give it its full time again; False if it has run out. Raises MetadataDown."""
        try:
            await self._raft.lease_keep_alive(lease, timeout_s=2.0)
        except Refused:
            return False
        except (NotReached, OutcomeUnknown) as error:
            raise MetadataDown(str(error)) from None
        return True

    async def end(self, lease: int) -> None:
        """All that is under it goes."""
        await self._ask(self._raft.lease_revoke(lease, timeout_s=TIMEOUT_S))

    async def announce(self, server: ServerRecord, lease: int) -> bool:
        """A server lives; False if its lease has run out."""
        key = model.SERVERS + server.name.encode()
        try:
            await self._ask(self._raft.put(key, server.pack(), lease=lease, timeout_s=TIMEOUT_S))
        except StoreError as error:
            if isinstance(error.__cause__, Refused):
                return False
            raise
        return True

    async def become_healer(self, name: str, lease: int) -> bool:
        """Whether `name` is the one that heals; it is, if nobody else is."""
        pair = await self._get(model.HEALER)
        if pair is None:
            then = [_put(model.HEALER, name.encode(), lease)]
            return await self._txn([["version", "=", model.HEALER, 0]], then)
        return pair.value == name.encode()

    # -- the replicated store's errors become ours

    async def _get(self, key: bytes) -> KeyValue | None:
        pair: KeyValue | None = await self._ask(self._raft.get(key, timeout_s=TIMEOUT_S))
        return pair

    async def _range(self, prefix: bytes, limit: int = 0) -> list[KeyValue]:
        found = await self._ask(
            self._raft.range(prefix, prefix=True, limit=limit, timeout_s=TIMEOUT_S)
        )
        pairs: list[KeyValue] = found.pairs
        return pairs

    async def _txn(self, compares: Sequence[Op], then: Sequence[Op]) -> bool:
        result = await self._ask(self._raft.txn(compares, then, timeout_s=TIMEOUT_S))
        return bool(result.succeeded)

    async def _ask(self, call: Any) -> Any:
        try:
            return await call
        except NotReached as error:
            raise MetadataDown(f"the metadata was not reached: {error}") from error
        except OutcomeUnknown as error:
            raise Unclear(f"the metadata did not answer: {error}") from error
        except Refused as error:
            raise StoreError(f"the metadata refused: {error}") from error


def _file(path: str, pair: KeyValue | None) -> Entry:
    if pair is None:
        raise NoSuchFile(f"there is no {path!r}")
    entry = Entry.unpack(pair.value)
    if entry.is_folder:
        raise NotAFile(f"{path!r} is a folder")
    return entry


def _open(file: str) -> bytes:
    return model.OPEN + file.encode()


def _writer(file: str) -> bytes:
    return model.WRITERS + file.encode()


def _file_id(key: bytes) -> str:
    return key.rpartition(b"/")[2].decode()


def _put(key: bytes, value: bytes, lease: int = 0) -> Op:
    return [PUT, key, value, lease, False]


def _delete(key: bytes) -> Op:
    return [DELETE, key, b"", False]


def _delete_chunks(file: str) -> Op:
    prefix = model.CHUNKS + file.encode()
    return [DELETE, prefix + b"/", prefix + b"0", False]  # "0" comes right after "/"


def _unchanged(key: bytes, pair: KeyValue | None) -> Op:
    if pair is None:
        return ["version", "=", key, 0]
    return ["mod", "=", key, pair.mod]


def _is(key: bytes, record: ChunkRecord | None) -> Op:
    if record is None:
        return ["version", "=", key, 0]
    return ["value", "=", key, record.pack()]
