"""What the gateway of etcd answers, and what is known then: done, not done, or neither."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from cluster.chaos.etcd import EtcdClient
from cluster.chaos.system import Refused, Unsure

HEAD = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CREATED = {"result": {"header": {"revision": "3"}, "created": True}}
CHANGED = {
    "result": {
        "events": [{"kv": {"key": "dy8x", "value": "MQ==", "mod_revision": "4", "version": "1"}}]
    }
}


def chunk(body: dict) -> str:
    text = json.dumps(body)
    return f"{len(text):x}\r\n{text}\r\n"


@contextlib.asynccontextmanager
async def gateway(*answers: str):
    """A port at which each connection gets the next of these answers, and the last ever after."""
    waiting = list(answers)

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write((waiting.pop(0) if len(waiting) > 1 else waiting[0]).encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def first_change(*answers: str):
    async with gateway(*answers) as port, asyncio.timeout(20):
        watch = EtcdClient([port]).watch("w/", 1)
        async with contextlib.aclosing(watch) as batches:
            return await anext(batches)


async def test_a_watch_is_told_of_changes():
    (change,) = await first_change(HEAD + chunk(CREATED) + chunk(CHANGED))
    assert (change.revision, change.key, change.value) == (4, "w/1", "1")


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + chunk({"error": {"grpc_code": 14, "message": "no leader"}}),
        HEAD + chunk({"neither": "one"}),
        HEAD + "0\r\n\r\n",
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}",
    ],
    ids=["an error", "nonsense", "nothing", "no stream"],
)
async def test_a_watch_that_is_answered_with_an_error_is_taken_up_again(answer):
    (change,) = await first_change(answer, HEAD + chunk(CHANGED))
    assert change.revision == 4


async def test_a_watch_that_can_never_be_is_refused():
    with pytest.raises(Refused, match="no such thing"):
        await first_change(HEAD + chunk({"error": {"grpc_code": 3, "message": "no such thing"}}))


def single(body: dict, status: str = "200 OK") -> str:
    text = json.dumps(body)
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\n\r\n{text}"


@pytest.mark.parametrize(
    ("answer", "known"),
    [
        (single({"error": {"grpc_code": 5, "message": "no lease"}}), Refused),
        (single({"error": {"grpc_code": 14, "message": "no leader"}}), Unsure),
        (single({"error": "no lease", "code": 5}, "404 Not Found"), Refused),
        (single({"error": "time-out", "code": 14}, "503 Service Unavailable"), Unsure),
        (single({"result": {"TTL": "0"}}), Refused),
        (single({"neither": "one"}), Unsure),
    ],
)
async def test_a_lease_that_is_not_kept_alive_says_what_is_known(answer, known):
    async with gateway(answer) as port:
        client = EtcdClient([port])
        with pytest.raises(known):
            await client.keep_alive(7)
        client.close()


async def test_a_lease_that_is_kept_alive():
    async with gateway(single({"result": {"TTL": "3"}})) as port:
        client = EtcdClient([port])
        await client.keep_alive(7)
        client.close()
