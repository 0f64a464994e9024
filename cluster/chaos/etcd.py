"""Debian's etcd, as a campaign harms and asks it: a system that is not ours, by the same judge.

Its processes are killed, paused and started again; its links and disks are out of reach. Clients
speak to its JSON gateway (POST /v3/kv/…), one connection each, and go to another member when theirs
does not let them in. What etcd says decides what is known: an answer was done; a connection that
was refused, or an error that is given before anything is proposed, was not; everything else, a
time-out of etcd's own among it, may have been.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import shutil
import signal
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cluster.chaos.catalogue import PAUSE, PROCESS
from cluster.chaos.stopping import stands_still
from cluster.chaos.system import Change, Forgotten, NoEffect, Pair, Refused, Unsure, View
from cluster.errors import NotInTime, Usage
from cluster.etcd import member_command
from cluster.misfortunes import Strobe
from cluster.process import Process
from cluster.topology import free_ports

TIMEOUT_S: Final = 4.0
HEALTHY_S: Final = 30.0
POLL_S: Final = 0.1
STATUS_S: Final = 0.5
ANSWER_BYTES_MAX: Final = 64 << 20

# gRPC codes of errors that come before anything is proposed: invalid argument, not found, already
# exists, resource exhausted, failed precondition, out of range, unimplemented.
DEFINITE: Final = frozenset((3, 5, 6, 8, 9, 11, 12))


class _Member:
    """One process of etcd's."""

    def __init__(self, name: str, client_port: int, peer_port: int) -> None:
        self.name = name
        self.port = client_port
        self.peer_url = f"http://127.0.0.1:{peer_port}"
        self.process: Process | None = None
        self.state = "stopped"
        self.lives = 0
        self.strobe: Strobe | None = None

    def full_speed(self) -> int:
        """Runs all of the time again; how often it was stopped."""
        strobe, self.strobe = self.strobe, None
        if strobe is None:
            return 0
        strobe.stop()
        return strobe.turns


class LiveEtcd:
    """Three or more members in a folder of their own."""

    name = "etcd"
    able = frozenset((PROCESS, PAUSE))
    # It stands for election after 1 to 2 s of silence, where ours does after 0.15 to 0.3; and once
    # a majority was gone, its members take several such times to find each other.
    patience = 2.0

    def __init__(self, folder: Path, nodes: int = 3) -> None:
        if shutil.which("etcd") is None:
            raise Usage("etcd is not installed; on Debian: apt-get install etcd-server")
        self._folder = folder
        ports = free_ports(2 * nodes, socket.SOCK_STREAM)
        self._members = {
            f"m{i}": _Member(f"m{i}", *ports[2 * i - 2 : 2 * i]) for i in range(1, nodes + 1)
        }
        self.nodes = tuple(self._members)
        self._turns = itertools.count()

    # -- from nothing to healthy, and back

    async def start(self) -> None:
        """See System."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for member in self._members.values():
            self._begin(member)
        deadline = asyncio.get_running_loop().time() + HEALTHY_S
        while any(view.health != "ok" for view in (await self.look()).values()):
            if asyncio.get_running_loop().time() > deadline:
                raise NotInTime(f"etcd did not become healthy; see {self._folder}/*.log")
            await asyncio.sleep(POLL_S)

    def _begin(self, member: _Member) -> None:
        peers = {other.name: other.peer_url for other in self._members.values()}
        client = f"http://127.0.0.1:{member.port}"
        command = member_command(member.name, self._folder, client, peers)
        member.process = Process.spawn(command, self._folder / f"{member.name}.log", {})
        member.state, member.lives = "running", member.lives + 1

    async def stop(self) -> None:
        """See System."""
        for member in self._members.values():
            self._end(member)

    def _end(self, member: _Member) -> None:
        member.full_speed()
        process, member.process = member.process, None
        if process is not None:
            process.signal(signal.SIGKILL)
            process.reap()
            process.close()
        member.state = "killed"

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[EtcdClient]:
        """See System."""
        ports = [member.port for member in self._members.values()]
        first = next(self._turns) % len(ports)
        client = EtcdClient(ports[first:] + ports[:first])
        try:
            yield client
        finally:
            client.close()

    # -- what is seen

    async def look(self) -> dict[str, View]:
        """See System."""
        views = await asyncio.gather(*(self._view(member) for member in self._members.values()))
        return {view.name: view for view in views}

    async def _view(self, member: _Member) -> View:
        if member.state != "running":
            health = "silent" if member.state == "paused" else "down"
            return View(member.name, member.state, health=health, lives=member.lives)
        client = EtcdClient([member.port], STATUS_S)
        try:
            status = await client.post("/v3/maintenance/status", {})
        except (Refused, Unsure):
            return View(member.name, "running", health="silent", lives=member.lives)
        finally:
            client.close()
        leader, own = status.get("leader", "0"), status["header"]["member_id"]
        return View(
            member.name,
            "running",
            "leader" if leader == own else "follower",
            int(status.get("raftTerm", 0)),
            "ok" if leader != "0" else "no leader",
            member.lives,
        )

    def address(self, node: str) -> str:
        """See System."""
        return f"127.0.0.1:{self._members[node].port}"

    # -- what is done to it

    async def kill(self, node: str) -> str:
        """See System."""
        member = self._members[node]
        if member.process is None:
            raise NoEffect(f"{node} has no process")
        pid = member.process.pid
        self._end(member)
        return f"{node}: process {pid} is gone"

    async def revive(self, node: str) -> str:
        """See System."""
        member = self._members[node]
        if member.process is None:
            self._begin(member)
        return member.state

    async def pause(self, node: str) -> str:
        """See System."""
        member = self._members[node]
        if member.process is None:
            raise NoEffect(f"{node} has no process")
        member.process.signal(signal.SIGSTOP)
        member.state = "paused"
        return await stands_still(node, member.process.pid)

    async def resume(self, node: str) -> str:
        """See System."""
        member = self._members[node]
        if member.process is not None and member.state == "paused":
            member.process.signal(signal.SIGCONT)
            member.state = "running"
        return f"{node} goes on"

    async def slow(self, node: str, share: float) -> str:
        """See System."""
        member = self._members[node]
        turns = member.full_speed()
        if share < 1 and member.process is not None:
            member.strobe = Strobe(member.process.signal, share)
        return f"{node} was stopped {turns} times" if turns else ""

    async def lose(self, node: str) -> str:
        """Not in `able`."""
        raise Refused("the machine of a member of etcd cannot be lost")

    async def faults(self, node: str, change: dict[str, Any]) -> dict[str, Any]:
        """Not in `able`."""
        raise Refused("links, disks and clocks of etcd are out of reach")

    async def damage(self, node: str, how: str, seed: int) -> str:
        """Not in `able`."""
        raise Refused("files of etcd are not damaged")

    async def leave(self, nodes: Sequence[str]) -> str:
        """Not in `able`."""
        raise Refused("members of etcd stay")

    async def replace(self, node: str) -> str:
        """Not in `able`."""
        raise Refused("members of etcd are not replaced")


class EtcdClient:
    """Requests over one HTTP/1.1 connection. Implements chaos.system.Client.

    Args:
        ports: of the members, in the order in which they are tried.
        timeout_s: for one request, all tries included.
    """

    def __init__(self, ports: Sequence[int], timeout_s: float = TIMEOUT_S) -> None:
        self._ports = list(ports)
        self._timeout_s = timeout_s
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    def close(self) -> None:
        """Hang up."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    # -- keys

    async def get(self, key: str) -> Pair | None:
        """See Client."""
        return (await self.read([key]))[key] if key else None

    async def put(self, key: str, value: str) -> int:
        """See Client."""
        return _revision(await self.post("/v3/kv/put", {"key": _b64(key), "value": _b64(value)}))

    async def delete(self, key: str) -> tuple[bool, int]:
        """See Client."""
        answer = await self.post("/v3/kv/deleterange", {"key": _b64(key)})
        return int(answer.get("deleted", 0)) > 0, _revision(answer)

    async def swap(self, key: str, old: str | None, new: str) -> tuple[bool, int]:
        """See Client."""
        compare = {"key": _b64(key), "result": "EQUAL", "target": "VALUE", "value": _b64(old or "")}
        if old is None:
            compare = {"key": _b64(key), "result": "EQUAL", "target": "VERSION", "version": "0"}
        return await self._txn([compare], {key: new})

    async def read(self, keys: Sequence[str]) -> dict[str, Pair | None]:
        """See Client."""
        reads = [{"requestRange": {"key": _b64(key)}} for key in keys]
        answer = await self.post("/v3/kv/txn", {"success": reads})
        found: dict[str, Pair | None] = dict.fromkeys(keys)
        for key, part in zip(keys, answer["responses"], strict=True):
            for pair in part["response_range"].get("kvs", ()):
                found[key] = _pair(pair)
        return found

    async def commit(self, guards: Mapping[str, int], puts: Mapping[str, str]) -> tuple[bool, int]:
        """See Client."""
        compares = [
            {"key": _b64(key), "result": "EQUAL", "target": "MOD", "mod_revision": str(mod)}
            for key, mod in guards.items()
        ]
        return await self._txn(compares, puts)

    async def range(self, prefix: str) -> dict[str, Pair]:
        """See Client."""
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        answer = await self.post("/v3/kv/range", {"key": _b64(prefix), "range_end": _b64(end)})
        pairs = answer.get("kvs", ())
        return {base64.b64decode(pair["key"]).decode(): _pair(pair) for pair in pairs}

    async def _txn(
        self, compares: list[dict[str, str]], puts: Mapping[str, str]
    ) -> tuple[bool, int]:
        then = [{"requestPut": {"key": _b64(k), "value": _b64(v)}} for k, v in puts.items()]
        answer = await self.post("/v3/kv/txn", {"compare": compares, "success": then})
        return bool(answer.get("succeeded", False)), _revision(answer)

    # -- leases and watches

    async def grant(self, ttl_s: int) -> int:
        """See Client."""
        return int((await self.post("/v3/lease/grant", {"TTL": str(ttl_s)}))["ID"])

    async def keep_alive(self, lease: int) -> None:
        """See Client."""
        answer = _result(await self.post("/v3/lease/keepalive", {"ID": str(lease)}))
        if int(answer.get("TTL", 0)) <= 0:
            raise Refused("the lease has run out")

    async def revoke(self, lease: int) -> None:
        """See Client."""
        await self.post("/v3/lease/revoke", {"ID": str(lease)})

    async def claim(self, key: str, value: str, lease: int) -> int | None:
        """See Client."""
        compare = {"key": _b64(key), "result": "EQUAL", "target": "VERSION", "version": "0"}
        put = {"key": _b64(key), "value": _b64(value), "lease": str(lease)}
        body = {"compare": [compare], "success": [{"requestPut": put}]}
        answer = await self.post("/v3/kv/txn", body)
        return _revision(answer) if answer.get("succeeded") else None

    async def watch(self, prefix: str, revision: int) -> AsyncGenerator[list[Change]]:
        """See Client; a stream that ends is taken up again with the next member."""
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        while True:
            wanted = {"key": _b64(prefix), "range_end": _b64(end), "start_revision": str(revision)}
            stream = EtcdClient(self._ports, self._timeout_s)
            try:
                async with contextlib.aclosing(stream.stream("/v3/watch", wanted)) as answers:
                    async for answer in answers:
                        if compacted := int(answer.get("compact_revision", 0)):
                            raise Forgotten(compacted + 1)
                        for batch in _by_revision(answer.get("events", ())):
                            revision = batch[0].revision + 1
                            yield batch
            except (OSError, EOFError, ValueError, Unsure):
                self._ports.append(self._ports.pop(0))
                await asyncio.sleep(POLL_S)
            finally:
                stream.close()

    async def compact(self, revision: int) -> None:
        """See Client."""
        await self.post("/v3/kv/compaction", {"revision": str(revision)})

    async def stream(
        self, path: str, create: dict[str, Any]
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The answers to one streaming request.

        Ends with OSError, EOFError or ValueError, or, where an error is the answer, with Refused
        or Unsure.
        """
        reader, writer = await self._connected()
        text = json.dumps({"create_request": create}).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: etcd\r\nContent-Length: {len(text)}\r\n\r\n"
        writer.write(head.encode() + text)
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass  # the head of the response
        while size := int(await reader.readuntil(b"\r\n"), 16):
            yield _result(json.loads(await reader.readexactly(size)))
            await reader.readexactly(2)

    # -- HTTP

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """One request; raises Refused or Unsure."""
        sent = False
        try:
            async with asyncio.timeout(self._timeout_s):
                reader, writer = await self._connected()
                text = json.dumps(body).encode()
                head = f"POST {path} HTTP/1.1\r\nHost: etcd\r\nContent-Length: {len(text)}\r\n\r\n"
                sent = True
                writer.write(head.encode() + text)
                return _told(*await _answer(reader))
        except (OSError, EOFError, TimeoutError, ValueError, asyncio.LimitOverrunError) as error:
            self._elsewhere()
            reason = f"{type(error).__name__}: {error}"
            raise Unsure(reason) if sent else Refused(reason) from None
        except (Refused, Unsure):
            self._elsewhere()
            raise
        except asyncio.CancelledError:
            self.close()
            raise

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The connection, to the first member that lets us in."""
        if self._reader is None or self._writer is None or self._reader.at_eof():
            self.close()
            for _ in self._ports:
                with contextlib.suppress(OSError):
                    self._reader, self._writer = await asyncio.open_connection(
                        "127.0.0.1", self._ports[0], limit=ANSWER_BYTES_MAX
                    )
                    return self._reader, self._writer
                self._elsewhere()
            raise ConnectionRefusedError("no member lets us in")
        return self._reader, self._writer

    def _elsewhere(self) -> None:
        """The next request goes to the next member."""
        self.close()
        self._ports.append(self._ports.pop(0))


async def _answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, Any]]:
    """Status and body of one response; raises OSError, EOFError or ValueError."""
    status = int((await reader.readuntil(b"\r\n")).split()[1])
    length: int | None = None
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    if length is not None:
        return status, json.loads(await reader.readexactly(length))
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readexactly(2)
    return status, json.loads(body)


def _told(status: int, body: dict[str, Any]) -> dict[str, Any]:
    if status == 200 and "error" not in body:
        return body
    error = body.get("error", body)
    # Of a stream the error is a map of its own; of a single answer, a text beside its code.
    code = error.get("grpc_code", error.get("code")) if isinstance(error, dict) else None
    raise Refused(str(error)) if body.get("code", code) in DEFINITE else Unsure(str(error))


def _result(answer: dict[str, Any]) -> dict[str, Any]:
    """What one answer of a stream holds; raises Refused or Unsure."""
    result = _told(200, answer).get("result")
    if not isinstance(result, dict):
        raise Unsure(f"an answer without a result: {answer}")
    return result


def _by_revision(events: Sequence[dict[str, Any]]) -> Iterator[list[Change]]:
    """The changes of one answer, a list a revision."""
    changes = [
        Change(
            int(event["kv"]["mod_revision"]),
            base64.b64decode(event["kv"]["key"]).decode(),
            None if event.get("type") == "DELETE" else _pair(event["kv"]).value,
        )
        for event in events
    ]
    for _, batch in itertools.groupby(changes, key=lambda change: change.revision):
        yield list(batch)


def _revision(answer: dict[str, Any]) -> int:
    return int(answer["header"]["revision"])


def _pair(pair: dict[str, str]) -> Pair:
    value = base64.b64decode(pair.get("value", "")).decode()
    return Pair(value, int(pair["mod_revision"]), int(pair["version"]))


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
