"""`raft://`: torch's rendezvous over raftd, which outlives kill -9 of any one node.

    dist.init_process_group("ring", init_method="raft:///home/me/.ring/cluster.toml?run=digits",
                            rank=rank, world_size=size)
    raft://?run=digits                         the cluster in $RING_HOME, or ./.ring

TCPStore lives in rank 0 and dies with it; this one lives where the cluster keeps all that must not
be lost. Any backend can meet so. For "ring" it has another use: ranks take certificates of the
cluster's own authority instead of a key out of the store.

Keys are `ddp/torch/RUN/…`, each under the lease of the process that wrote it last: they vanish
LEASE_S after it has ended, and then the name of the run can be used again. What `add` does is
reported for certain or raised as unknown; everything else is tried until the time-out.

torch knows the scheme after `import ddp.torch_backend`, or once the distribution is installed.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import torch.distributed as dist

from ddp.errors import BadCall
from raftd.client import PUT, ClientError, NotReached, SyncRaftClient

T = TypeVar("T")

SCHEME: Final = "raft"
PREFIX: Final = "ddp/torch/"

# Keys outlive their process by so much: long enough for a process that is starved for a while.
LEASE_S: Final = 10
KEEP_S: Final = 2.0

# Between two looks at a key that is not there yet.
LOOK_S: Final = 0.02

# What a store waits that was told nothing; torch tells it the group's time-out.
TIMEOUT_S: Final = 300.0


class RaftStore(dist.Store):  # type: ignore[misc]
    """torch's key-value store. Values are bytes; a counter is its decimal digits, as in TCPStore.

    Args:
        config: the cluster's file.
        run: whose keys they are.
    """

    def __init__(self, config: Path, run: str) -> None:
        super().__init__()
        if not run or "/" in run:
            raise BadCall(f"a run needs a name without slashes, not {run!r}")
        self.home, self.run = config.parent, run
        self._client = SyncRaftClient(config)
        self._prefix = f"{PREFIX}{run}/"
        self._timeout_s = TIMEOUT_S
        self._lease = 0
        self._closed = threading.Event()
        self._keeping = threading.Thread(target=self._keep, daemon=True, name="raft:// lease")
        self._lease = self._insist(lambda: self._client.lease_grant(LEASE_S))
        self._keeping.start()

    def __repr__(self) -> str:
        return f"<RaftStore {self.run} in {self.home}>"

    # -- torch.distributed.Store

    def set_timeout(self, timeout: timedelta) -> None:
        """How long the others may wait."""
        self._timeout_s = timeout.total_seconds()

    def set(self, key: str, value: str | bytes) -> None:
        """Write."""
        data = value.encode() if isinstance(value, str) else bytes(value)
        self._insist(lambda: self._client.put(self._key(key), data, lease=self._lease))

    def get(self, key: str) -> bytes:
        """Read; waits for it."""
        self.wait([key])
        found = self._read(key)
        if found is None:
            raise dist.DistStoreError(f"{key} of {self!r} is gone again")
        return found

    def add(self, key: str, value: int) -> int:
        """Add to a counter, which begins at 0; the sum. Raises OutcomeUnknown."""
        while True:
            before = self._read(key)
            total = int(before or b"0") + int(value)
            if self._swap(key, before, str(total).encode()):
                return total

    def compare_set(self, key: str, expected: str | bytes, desired: str | bytes) -> bytes:
        """Write `desired` where `expected` is (nothing: ""); what is there after that."""
        old, new = (v.encode() if isinstance(v, str) else bytes(v) for v in (expected, desired))
        while True:
            found = self._read(key)
            if (found or b"") != old:
                return old if found is None else found
            if self._swap(key, found, new):
                return new

    def check(self, keys: list[str]) -> bool:
        """Whether all are there."""
        return all(self._read(key) is not None for key in keys)

    def wait(self, keys: list[str], timeout: timedelta | None = None) -> None:
        """Until all are there; raises DistStoreError."""
        within_s = self._timeout_s if timeout is None else timeout.total_seconds()
        deadline = time.monotonic() + within_s
        left = list(keys)
        while left := [key for key in left if self._read(key) is None]:
            if time.monotonic() > deadline:
                names = ", ".join(left)
                raise dist.DistStoreError(f"nobody has set {names} of {self!r} in {within_s:g} s")
            time.sleep(LOOK_S)

    def delete_key(self, key: str) -> bool:
        """Whether it was there."""
        return bool(self._insist(lambda: self._client.delete(self._key(key))).deleted)

    def num_keys(self) -> int:
        """How many there are."""
        found = self._insist(lambda: self._client.range(self._prefix.encode(), prefix=True))
        return len(found.pairs)

    # The names by which torch's C++ looks for them.
    deleteKey = delete_key
    getNumKeys = num_keys

    def close(self) -> None:
        """Take back one's own keys. Without it they go by themselves."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._keeping.join()
        with contextlib.suppress(ClientError):
            self._client.lease_revoke(self._lease, timeout_s=1.0)
        self._client.close()

    # -- inside

    def _key(self, key: str) -> bytes:
        return (self._prefix + key).encode()

    def _read(self, key: str) -> bytes | None:
        found = self._insist(lambda: self._client.get(self._key(key)))
        return None if found is None else found.value

    def _swap(self, key: str, before: bytes | None, after: bytes) -> bool:
        name = self._key(key)
        compare = ["version", "=", name, 0] if before is None else ["value", "=", name, before]
        put = [PUT, name, after, self._lease, False]
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                return self._client.txn([compare], [put]).succeeded
            except NotReached:
                if time.monotonic() > deadline:
                    raise

    def _insist(self, call: Callable[[], T]) -> T:
        """What may be done twice is tried until the time-out."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                return call()
            except ClientError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(LOOK_S)

    def _keep(self) -> None:
        while not self._closed.wait(KEEP_S):
            with contextlib.suppress(ClientError):
                self._client.lease_keep_alive(self._lease)


def rendezvous(
    url: str, timeout: timedelta = timedelta(seconds=TIMEOUT_S), **_: Any
) -> Iterator[tuple[RaftStore, int, int]]:
    """torch's handler of `raft://`; rank and size are the call's, or torchrun's. Raises BadCall."""
    parts = urlsplit(url)
    asked = dict(parse_qsl(parts.query))
    home = Path(os.environ.get("RING_HOME", ".ring"))
    config = Path(unquote(parts.path)) if parts.path else home / "cluster.toml"
    try:
        rank = int(asked.get("rank", os.environ.get("RANK", "")))
        size = int(asked.get("world_size", os.environ.get("WORLD_SIZE", "")))
    except ValueError:
        raise BadCall(f"{url}: rank and world_size are missing") from None
    store = RaftStore(config, asked.get("run", ""))
    store.set_timeout(timeout)
    yield store, rank, size


def beneath(store: Any) -> Any:
    """The store that others put their prefixes before."""
    while isinstance(store, dist.PrefixStore):
        store = store.underlying_store
    return store
