"""The Chord ring of the running cluster as a directory of peers."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from dht.client import Conflict, DhtClient, DhtError, OutcomeUnknown
from dht.torrent.directory import RingDirectory
from dht.torrent.errors import TorrentError
from netstack.runtime.config import ConfigError
from security.errors import KeystoreError

# One read or write. The ring needs a second or two to close over a peer that was killed.
CALL_S: Final = 6.0


class ChordRing:
    """See `directory.Ring`."""

    def __init__(self, client: DhtClient) -> None:
        self._client = client

    def __repr__(self) -> str:
        return f"<ChordRing {self._client!r}>"

    async def get(self, key: bytes) -> tuple[bytes, int]:
        """See Ring."""
        try:
            found = await self._client.get(key, timeout_s=CALL_S)
        except DhtError as error:
            raise OSError(str(error)) from None
        return (b"", 0) if found is None else (found.value, found.version)

    async def put(self, key: bytes, value: bytes, version: int, life_s: float) -> bool:
        """See Ring."""
        try:
            await self._client.put(key, value, expect=version, ttl_s=life_s, timeout_s=CALL_S)
        except (Conflict, OutcomeUnknown):
            return False
        except DhtError as error:
            raise OSError(str(error)) from None
        return True


@contextlib.asynccontextmanager
async def directory(config: Path) -> AsyncIterator[RingDirectory]:
    """The ring of the cluster whose file is `config`; raises TorrentError if there is none."""
    try:
        async with DhtClient.connect(config) as client:
            yield RingDirectory(ChordRing(client))
    except (ConfigError, KeystoreError) as error:
        raise TorrentError(str(error)) from None
