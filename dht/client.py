"""The client of the ring: put, get, delete, look up; one round trip once an owner is known.

    async with DhtClient.connect(".ring/cluster.toml") as client:
        stored = await client.put(b"greeting", b"hello")      # stored.acks: who holds it
        found = await client.get(b"greeting")                 # None: it is absent, for certain
        await client.put(b"greeting", b"hi", expect=found.version)
        path = await client.lookup(b"greeting")               # the hops

A read ends in one of three ways: Found, None for *absent* (all who may hold the key said so), or
Unsure (somebody who may hold it could not be asked). A write names who keeps it. Errors and what
they leave open: results.py.

Values over 128 KiB are cut into chunks under keys of their own; the key itself holds the list, so
a reader sees the old value or the new one. A client that dies in the middle leaves chunks behind
that nothing refers to; they expire.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path as File
from typing import Any, Final

import msgpack

from dht.chord import wire
from dht.chord.oracle import Ring, View, flaws, owner
from dht.chord.ring import Contact, brief, contact_of, key_id
from dht.connected import connected
from dht.results import (
    Conflict,
    Damaged,
    DhtError,
    Found,
    Full,
    KeyView,
    NodeView,
    NotReached,
    OutcomeUnknown,
    Path,
    Refused,
    Stored,
    Unsure,
)
from dht.seeker import ATTEMPT_S, PAUSE_S, READ_S, Seeker
from netstack.rpc.errors import (
    BadRequest,
    DeadlineExceeded,
    Failed,
    Forbidden,
    Indefinite,
    RpcError,
    Unavailable,
)

__all__ = [
    "Conflict",
    "Contact",
    "Damaged",
    "DhtClient",
    "DhtError",
    "Found",
    "Full",
    "KeyView",
    "NodeView",
    "NotReached",
    "OutcomeUnknown",
    "Path",
    "Refused",
    "Ring",
    "Stored",
    "Unsure",
    "View",
    "brief",
    "contact_of",
    "flaws",
    "key_id",
    "owner",
]

CHUNK_BYTES: Final = 128 * 1024
VALUE_BYTES_MAX: Final = 64 * 1024 * 1024
CHUNKS_AT_ONCE: Final = 8

# The first byte of a stored value: whether it is the value, or the list of its chunks.
WHOLE, CUT = b"\0", b"\1"
CHUNK_KEY: Final = b"\0chunk/"

# Chunks of a value that was never finished are forgotten then; those of a finished one are kept.
ORPHAN_S: Final = 3600.0


class DhtClient(Seeker):
    """One client of the ring."""

    def __repr__(self) -> str:
        return f"<DhtClient {self.ranges!r}>"

    @classmethod
    def connect(
        cls, config: File | str, *, identity: str = "cli"
    ) -> AbstractAsyncContextManager[DhtClient]:
        """A client of the cluster whose file is `config`, under one of its identities.

        Raises ConfigError or KeystoreError. Does not wait for the cluster: the first call does.
        """
        return connected(cls, File(config), identity)

    # -- keys

    async def put(
        self,
        key: bytes,
        value: bytes,
        *,
        expect: int | None = None,
        ttl_s: float = 0.0,
        timeout_s: float = 10.0,
    ) -> Stored:
        """Set a key. `expect`: only if it has this version (0: if it is absent), else Conflict.

        ttl_s: seconds until it vanishes; 0: never.
        """
        if len(value) <= CHUNK_BYTES:
            return await self._write(key, WHOLE + value, expect, ttl_s, timeout_s)
        if len(value) > VALUE_BYTES_MAX:
            raise Refused(f"{len(value)} bytes are too many; {VALUE_BYTES_MAX} are the most")
        return await self._put_large(key, value, expect, ttl_s, timeout_s)

    async def get(self, key: bytes, *, timeout_s: float = 10.0) -> Found | None:
        """What the key holds; None: it is absent. Raises Unsure if that cannot be said."""
        for _ in range(3):
            found = await self._read(key, timeout_s)
            if found is None or found.value[:1] == WHOLE:
                break
            with contextlib.suppress(Damaged):
                value = await self._gather(found.value, timeout_s)
                return Found(value, found.version, found.owner, found.sure)
            # Written anew while we read, perhaps: then its list is another now.
        else:
            raise Damaged("a part of the value is missing")
        if found is None:
            return None
        return Found(found.value[1:], found.version, found.owner, found.sure)

    async def delete(
        self, key: bytes, *, expect: int | None = None, timeout_s: float = 10.0
    ) -> Stored:
        """Remove a key; the answer says who knows it."""
        old = await self._read(key, timeout_s)
        stored = await self._write(key, None, expect, 0.0, timeout_s)
        await self._drop_chunks(old, timeout_s)
        return stored

    async def lookup(self, key: bytes, *, mode: str = "iterative", timeout_s: float = 5.0) -> Path:
        """Who owns a key and how that is found: `iterative`, `recursive`, or `walk`, O(N)."""
        target = key_id(key)
        if mode == "recursive":
            return await self.find_recursively(target, timeout_s=timeout_s)
        if mode not in ("iterative", "walk"):
            raise Refused(f"a look-up is iterative, recursive or a walk, not {mode!r}")
        return await self.find(target, walk=mode == "walk", timeout_s=timeout_s)

    # -- the ring

    async def nodes(self, *, timeout_s: float = 2.0) -> list[NodeView]:
        """What every identifier of every peer that answers sees."""

        async def ask(to: Contact) -> list[NodeView]:
            try:
                rows = await self._call(to, "dht.nodes", None, timeout_s)
                return [_node_view(row) for row in rows]
            except (RpcError, KeyError, TypeError):
                return []

        answers = await asyncio.gather(*(ask(to) for to in self._start))
        return sorted((v for views in answers for v in views), key=lambda v: v.contact.id)

    async def keys(self, *, timeout_s: float = 5.0) -> list[KeyView]:
        """All records of all peers that answer."""

        async def ask(to: Contact) -> list[KeyView]:
            found: list[KeyView] = []
            after = b""
            with contextlib.suppress(RpcError):
                while True:
                    page, more = await self._call(to, "dht.keys", [after], timeout_s)
                    found += [KeyView(k, v, size, to.name, owned) for k, v, size, owned in page]
                    if not more:
                        break
                    after = page[-1][0]
            return found

        answers = await asyncio.gather(*(ask(to) for to in self._start))
        return sorted((v for views in answers for v in views), key=lambda v: (v.key, v.holder))

    # -- one record

    async def _write(
        self, key: bytes, value: bytes | None, expect: int | None, ttl_s: float, timeout_s: float
    ) -> Stored:
        body = [key, value, expect, ttl_s]
        at, answer = await self._at_owner(
            key, "dht.put", body, timeout_s, write=True, again=expect is None
        )
        version, holders, low = answer
        self.ranges.learn(wire.read_id(low), at)
        return Stored(version, tuple(holders), at)

    async def _read(self, key: bytes, timeout_s: float) -> Found | None:
        at, answer = await self._at_owner(key, "dht.get", [key], timeout_s)
        value, version, low, sure = answer
        self.ranges.learn(wire.read_id(low), at)
        return None if value is None else Found(value, version, at, sure)

    async def _at_owner(
        self,
        key: bytes,
        method: str,
        body: list[Any],
        timeout_s: float,
        *,
        write: bool = False,
        again: bool = True,
    ) -> tuple[Contact, Any]:
        """(owner, its answer), however often the ring changes meanwhile.

        write: it may have been done when no answer came. again: then it is asked for once more.
        """
        target, deadline = key_id(key), self._now() + timeout_s
        pause_s, maybe = PAUSE_S[0], ""
        attempt_s = ATTEMPT_S if write else READ_S
        hint: Contact | None = None
        why: object = "no owner was reached in time"
        unsure = False
        while (left_s := deadline - self._now()) > 0:
            try:
                at = hint or await self.owner_of(target, deadline)
                limit_s = min(left_s, attempt_s)
                return at, await self._ask(at, method, [at.vnode, *body], limit_s, write)
            except NotReached as error:
                why = error
                break
            except Failed as error:
                why, unsure = error, error.reason == "unsure"
                before, hint = hint, None
                if error.reason == "not-owner":
                    hint = self.misdirected(at, error)
                    hint = None if hint in (at, before) else hint
                elif not unsure:
                    if maybe:
                        raise OutcomeUnknown(f"{maybe}; then: {error}") from None
                    raise _refused(error) from None
            except (BadRequest, Forbidden) as error:
                raise Refused(str(error)) from None
            except RpcError as error:
                why, hint = error, None
                self.ranges.forget_process(at.name)
                attempt_s = _longer(attempt_s, error)
                if write and isinstance(error, Indefinite):
                    maybe = str(error)
                    if not again:
                        break
            if hint is None:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, PAUSE_S[1])
        if maybe:
            raise OutcomeUnknown(f"it may have been written: {maybe}")
        raise (Unsure if unsure else NotReached)(str(why))

    async def _ask(
        self, at: Contact, method: str, body: list[Any], limit_s: float, write: bool
    ) -> Any:
        if self._is_mute(at):
            raise Unavailable(f"{at.name} does not answer, and nobody else owns the key yet")
        return await self._call(at, method, body, limit_s, once=write)

    # -- large values

    async def _put_large(
        self, key: bytes, value: bytes, expect: int | None, ttl_s: float, timeout_s: float
    ) -> Stored:
        """Chunks first, then the list of them: nobody sees half a value."""
        old = await self._read(key, timeout_s)
        name = self._runtime.entropy(16)
        parts = [value[i : i + CHUNK_BYTES] for i in range(0, len(value), CHUNK_BYTES)]

        async def put(i: int, lasts_s: float) -> None:
            await self._write(_chunk(name, i), parts[i], None, lasts_s, timeout_s)

        await _some_at_once(partial(put, i, ORPHAN_S) for i in range(len(parts)))
        digest = hashlib.sha256(value).digest()
        listed: bytes = CUT + msgpack.packb([name, len(parts), len(value), digest])
        stored = await self._write(key, listed, expect, ttl_s, timeout_s)
        # They belong to somebody now: they last as long as the value does.
        await _some_at_once(partial(put, i, ttl_s) for i in range(len(parts)))
        await self._drop_chunks(old, timeout_s)
        return stored

    async def _gather(self, listed: bytes, timeout_s: float) -> bytes:
        """The value whose list of chunks this is; raises Damaged."""
        name, count, size, digest = _read_list(listed)
        parts: list[bytes] = [b""] * count

        async def get(i: int) -> None:
            found = await self._read(_chunk(name, i), timeout_s)
            parts[i] = found.value if found is not None else b""

        await _some_at_once(partial(get, i) for i in range(count))
        value = b"".join(parts)
        if len(value) != size or hashlib.sha256(value).digest() != digest:
            raise Damaged("a part of the value is missing or wrong")
        return value

    async def _drop_chunks(self, old: Found | None, timeout_s: float) -> None:
        """Those of a value that is gone; whoever reads it still starts over."""
        if old is None or old.value[:1] != CUT:
            return
        name, count, _, _ = _read_list(old.value)

        async def drop(i: int) -> None:
            await self._write(_chunk(name, i), None, None, 0.0, timeout_s)

        with contextlib.suppress(DhtError):  # they cost room, nothing else
            await _some_at_once(partial(drop, i) for i in range(count))


def _longer(attempt_s: float, error: RpcError) -> float:
    """How long to wait for the next owner: this one may have been slow, and not dead."""
    ran_out = isinstance(error, DeadlineExceeded)
    return min(2 * attempt_s, ATTEMPT_S) if ran_out else attempt_s


async def _some_at_once(calls: Iterable[Callable[[], Awaitable[Any]]]) -> None:
    """All of them, a few at a time; the first error ends it."""
    waiting = iter(calls)

    async def work() -> None:
        for call in waiting:
            await call()

    await asyncio.gather(*(work() for _ in range(CHUNKS_AT_ONCE)))


def _chunk(name: bytes, number: int) -> bytes:
    return CHUNK_KEY + name + number.to_bytes(4, "big")


def _read_list(listed: bytes) -> tuple[bytes, int, int, bytes]:
    try:
        name, count, size, digest = msgpack.unpackb(listed[1:])
    except ValueError:
        raise Damaged("the list of a value's parts cannot be read") from None
    if type(count) is not int or not 0 < count <= VALUE_BYTES_MAX // CHUNK_BYTES + 1:
        raise Damaged("the list of a value's parts makes no sense")
    return name, count, size, digest


def _refused(error: Failed) -> DhtError:
    if error.reason == "conflict":
        version = error.details if type(error.details) is int else 0
        return Conflict(error.message, version)
    if error.reason in ("full", "disk-full"):
        return Full(error.message)
    return Refused(error.message)


def _node_view(row: dict[str, Any]) -> NodeView:
    return NodeView(
        wire.read_contact(row["contact"]),
        row["state"],
        None if row["pred"] is None else wire.read_contact(row["pred"]),
        tuple(wire.read_contacts(row["succ"])),
        row["fingers"],
        row["keys"],
        row["settled"],
        row["serving"],
    )
