"""As much HTTP/1.1 as trackers and .torrent files need: GET, both ends, bounded in all directions.

A server answers from a function, one request a connection. A caller has HEAD_S to send its head of
HEAD_MAX bytes, and there are CALLERS_MAX of them: who sends a byte a minute keeps nobody else out.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin, urlsplit

from dht.torrent.addresses import Address, is_ours
from dht.torrent.errors import TrackerError

HEAD_MAX: Final = 16 << 10
HEAD_S: Final = 5.0
CALLERS_MAX: Final = 512
GET_S: Final = 15.0
BODY_MAX: Final = 32 << 20
REDIRECTS_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server says."""

    status: int
    body: bytes
    kind: str = "text/plain"


Handler = Callable[[str, str, str], Answer]
"""(path, query, host of the caller) -> Answer."""

REASONS: Final = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}


class HttpServer:
    """Answers GET."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._callers: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<HttpServer callers={len(self._callers)}>"

    async def start(self, address: Address) -> Address:
        """Take the port; where it listens. Raises OSError."""
        self._server = await asyncio.start_server(self._accept, *address, limit=HEAD_MAX)
        host, port = self._server.sockets[0].getsockname()[:2]
        return host, port

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._callers) >= CALLERS_MAX:
            writer.transport.abort()
            return
        self._callers.add(task)
        try:
            async with asyncio.timeout(HEAD_S):
                head = await reader.readuntil(b"\r\n\r\n")
                answer = self._answer(head, writer.get_extra_info("peername")[0])
                writer.write(_response(answer))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.transport.abort()
        except asyncio.CancelledError:
            writer.transport.abort()  # the server is closed
        finally:
            self._callers.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _answer(self, head: bytes, host: str) -> Answer:
        words = head.split(b"\r\n", 1)[0].split()
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return Answer(400, b"that is no request\n")
        if words[0] != b"GET":
            return Answer(405, b"only GET\n")
        path, _, query = words[1].decode("latin-1").partition("?")
        return self._handler(path, query, host)

    async def close(self) -> None:
        """End it."""
        if self._server is not None:
            self._server.close()
        for task in list(self._callers):
            task.cancel()
        if self._callers:
            await asyncio.wait(self._callers)


def _response(answer: Answer) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status} {REASONS.get(answer.status, 'Answer')}\r\n"
        f"Content-Type: {answer.kind}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + answer.body


async def get(url: str, timeout_s: float = GET_S) -> bytes:
    """The body at a URL on this machine; raises TrackerError."""
    whom = url.partition("?")[0]  # a query is no reading for people
    try:
        async with asyncio.timeout(timeout_s):
            for _ in range(REDIRECTS_MAX + 1):
                status, fields, body = await _get_one(url)
                if status in (301, 302, 303, 307, 308) and "location" in fields:
                    url = urljoin(url, fields["location"])
                    continue
                if status != 200:
                    raise TrackerError(f"{whom}: HTTP status {status}")
                return body
    except TimeoutError:
        raise TrackerError(f"{whom}: no answer within {timeout_s:g} s") from None
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise TrackerError(f"{whom}: {why}") from None
    raise TrackerError(f"{whom}: more than {REDIRECTS_MAX} redirects")


async def _get_one(url: str) -> tuple[int, dict[str, str], bytes]:
    parts = urlsplit(url)
    address = where(url)
    target = parts.path or "/"
    if parts.query:
        target += f"?{parts.query}"
    reader, writer = await asyncio.open_connection(*address, limit=HEAD_MAX)
    try:
        writer.write(
            f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            "User-Agent: ringleader\r\nConnection: close\r\n\r\n".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        words = head[0].split(None, 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdecimal():
            raise TrackerError(f"{url}: that is not HTTP")
        fields = {
            name.strip().lower(): value.strip()
            for name, colon, value in (line.partition(":") for line in head[1:])
            if colon
        }
        return int(words[1]), fields, await _body(reader, fields)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _body(reader: asyncio.StreamReader, fields: dict[str, str]) -> bytes:
    if fields.get("transfer-encoding", "").lower() == "chunked":
        parts: list[bytes] = []
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            if size + sum(map(len, parts)) > BODY_MAX:
                raise TrackerError("the answer is too long")
            parts.append((await reader.readexactly(size + 2))[:-2])
        return b"".join(parts)
    if "content-length" in fields:
        size = int(fields["content-length"])
        if not 0 <= size <= BODY_MAX:
            raise TrackerError("the answer is too long")
        return await reader.readexactly(size)
    body = b""
    while part := await reader.read(1 << 16):
        body += part
        if len(body) > BODY_MAX:
            raise TrackerError("the answer is too long")
    return body


def where(url: str) -> Address:
    """The address that a URL of a tracker or web server names; raises TrackerError."""
    parts = urlsplit(url)
    host = {"localhost": "127.0.0.1"}.get(parts.hostname or "", parts.hostname or "")
    try:
        port = parts.port or (80 if parts.scheme == "http" else 0)
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "udp"):
        raise TrackerError(f"{url}: only http:// and udp:// are spoken here")
    if not is_ours((host, port)):
        raise TrackerError(f"{url}: not on this machine (127.0.0.0/8)")
    return host, port
