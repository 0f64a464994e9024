"""Links over netstack: the same messages in an encrypted stream of our own transport on UDP.

Among our own peers only: an ordinary client speaks TCP or uTP. A peer listens on the UDP port that
it would have taken of TCP, so trackers and peer exchange name it as they name any other. Whoever
holds the folder of the authority (`trust`) may join: the transport proves both ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from dht.torrent.addresses import Address
from dht.torrent.errors import TorrentError
from dht.torrent.link import HIGH_WATER, Bytes, Ears
from netstack.presets.bytestream import ByteStream, StreamSocket
from netstack.runtime.endpoint import EndpointError
from netstack.runtime.runtime import Runtime
from netstack.transport.config import MAX_DATAGRAM, TransportConfig
from security import keystore
from security.errors import KeystoreError
from security.identity import Authority, Identity

SERVICE: Final = "torrent"
BACKLOG: Final = 64
# A read must fit what the connection's buffer has left: half of it, at the least.
READ: Final = 120 << 10

CONFIG: Final = TransportConfig(
    max_mtu=MAX_DATAGRAM,
    stream_window=4 << 20,
    connection_window=16 << 20,
    stream_buffer=4 << 20,
    idle_timeout_s=10.0,
    keep_alive_s=3.0,
)


class StreamLink:
    """One stream to a peer."""

    def __init__(self, ears: Ears, stream: ByteStream) -> None:
        self._ears = ears
        self._stream = stream
        self._key = -1
        self._queue: list[bytes] = []
        self._queued = 0
        self._full = False
        self._more = asyncio.Event()
        self._over = False

    def __repr__(self) -> str:
        return f"<StreamLink {self._key} queued={self._queued}>"

    async def run(self, address: Address, *, caller: bool) -> None:
        """Carry until it is over."""
        self._key = self._ears.opened(self, address, caller=caller)
        writer = asyncio.ensure_future(self._write())
        try:
            while data := await self._stream.read(READ):
                self._ears.buffer(self._key)[: len(data)] = data
                self._ears.received(self._key, len(data))
        except ConnectionError:
            pass
        finally:
            self._over = True
            writer.cancel()
            self._stream.close()
            self._ears.ended(self._key)

    async def _write(self) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                await self._more.wait()
                self._more.clear()
                while self._queue:
                    data, self._queue = b"".join(self._queue), []
                    await self._stream.write(data)
                    self._queued -= len(data)
                    if self._full and self._queued < HIGH_WATER // 4:
                        self._full = False
                        self._ears.held(self._key, False)

    def send(self, parts: Sequence[Bytes]) -> None:
        """See Link. The transport encrypts, so here the bytes are copied once."""
        data = b"".join(parts)
        self._queue.append(data)
        self._queued += len(data)
        self._more.set()
        if not self._full and self._queued > HIGH_WATER:
            self._full = True
            self._ears.held(self._key, True)

    def close(self) -> None:
        """See Link."""
        if not self._over:
            self._over = True
            self._stream.abort()


class NetstackNet:
    """Listens and dials by netstack."""

    def __init__(self, ears: Ears, runtime: Runtime, identity: Identity) -> None:
        self._ears = ears
        self._runtime = runtime
        self._socket = StreamSocket(
            runtime, identity, service=SERVICE, config=CONFIG, backlog=BACKLOG
        )

    async def start(self, address: Address) -> Address:
        """Take the UDP port; raises OSError."""
        try:
            await self._socket.start(address)
        except EndpointError as error:
            raise OSError(str(error)) from None
        self._runtime.spawn(self._accept(), "peers that call")
        return self._socket.address

    async def _accept(self) -> None:
        while True:
            stream = await self._socket.accept()
            link = StreamLink(self._ears, stream)
            self._runtime.spawn(link.run(stream.address, caller=False), "a peer's stream")

    async def dial(self, address: Address) -> None:
        """Connect; raises OSError."""
        stream = await self._socket.connect(address)
        link = StreamLink(self._ears, stream)
        self._runtime.spawn(link.run(address, caller=True), "a stream to a peer")

    async def close(self) -> None:
        """End all streams."""
        await self._socket.close()


def over_netstack(runtime: Runtime, home: Path) -> Callable[[Ears], NetstackNet]:
    """Makes the net, with an identity of the authority in `home`; raises TorrentError."""
    try:
        authority = keystore.load_authority(trust(home))
    except KeystoreError as error:
        raise TorrentError(str(error)) from None
    name = f"peer-{os.urandom(6).hex()}"
    identity = authority.issue(name, SERVICE, now=time.time(), entropy=os.urandom)
    return lambda ears: NetstackNet(ears, runtime, identity)


def trust(home: Path) -> Path:
    """The folder of the peers' authority, made if it is missing.

    Two processes may make it at once: the first to give it its name has made it.
    """
    folder = home / "trust"
    if not folder.exists():
        home.mkdir(parents=True, exist_ok=True)
        made = home / f"trust.new-{os.getpid()}"
        authority = Authority.create(os.urandom(8).hex(), now=time.time(), entropy=os.urandom)
        keystore.save_authority(made, authority)
        try:
            made.rename(folder)
        except OSError:
            shutil.rmtree(made)
    return folder
