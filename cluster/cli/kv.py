"""`ring kv …`: the replicated store from the command line. Keys and values are text (UTF-8)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import typer

from cluster import render, topology
from cluster.cli.keys import Json, Key, Timeout, as_bytes, as_text, ended
from cluster.errors import Unhealthy, Usage
from raftd.client import (
    DELETE,
    PUT,
    RANGE,
    ClientError,
    KeyValue,
    NotReached,
    OutcomeUnknown,
    RaftClient,
    Refused,
)

app = typer.Typer(no_args_is_help=True, help="Keys and values in the replicated store.")
lease_app = typer.Typer(no_args_is_help=True, help="Leases: keys that vanish when nobody cares.")
app.add_typer(lease_app, name="lease")


T = TypeVar("T")


def _run(use: Callable[[RaftClient], Awaitable[T]]) -> T:
    home = topology.home()
    topology.load(home)

    async def go() -> T:
        async with RaftClient.connect(home / "cluster.toml") as client:
            return await use(client)

    return ended(
        go(),
        home,
        not_reached=NotReached,
        unknown=OutcomeUnknown,
        refused=Refused,
        error=ClientError,
        see="is a majority running? see: ring status",
    )


def _shown(pair: KeyValue) -> dict[str, Any]:
    shown = pair._asdict()
    shown["key"], shown["value"] = as_text(pair.key), as_text(pair.value)
    return shown


@app.command()
def put(
    key: Key,
    value: Annotated[str, typer.Argument()],
    lease: Annotated[int, typer.Option(help="Let it vanish with this lease.")] = 0,
    timeout: Timeout = 10.0,
    json: Json = False,
) -> None:
    """Set a key."""
    result = _run(
        lambda client: client.put(as_bytes(key), as_bytes(value), lease=lease, timeout_s=timeout)
    )
    if json:
        render.as_json({"revision": result.revision})
    else:
        render.say(f"✓ revision {result.revision}")


@app.command()
def get(key: Key, timeout: Timeout = 10.0, json: Json = False) -> None:
    """Print a key's value. Exit status 1 if there is none."""
    pair = _run(lambda client: client.get(as_bytes(key), timeout_s=timeout))
    if pair is None:
        raise Unhealthy(f"there is no key {key!r}")
    if json:
        render.as_json(_shown(pair))
    else:
        print(as_text(pair.value))


@app.command("range")
def range_(
    key: Key,
    end: Annotated[str, typer.Argument(help="Up to, not including, this key.")] = "",
    prefix: Annotated[bool, typer.Option("--prefix", help="All keys that begin so.")] = False,
    revision: Annotated[int, typer.Option(help="As of an earlier revision.")] = 0,
    limit: Annotated[int, typer.Option(help="At most this many.")] = 0,
    json: Json = False,
) -> None:
    """List keys and values in order."""
    found = _run(
        lambda client: client.range(
            as_bytes(key), as_bytes(end), prefix=prefix, revision=revision, limit=limit
        )
    )
    if json:
        pairs = [_shown(pair) for pair in found.pairs]
        render.as_json({"revision": found.revision, "count": found.count, "pairs": pairs})
        return
    for pair in found.pairs:
        print(f"{as_text(pair.key)}\t{as_text(pair.value)}")
    if found.more:
        render.say(f"{found.count - len(found.pairs)} more; raise --limit to see them")


@app.command("del")
def delete(
    key: Key,
    end: Annotated[str, typer.Argument(help="Up to, not including, this key.")] = "",
    prefix: Annotated[bool, typer.Option("--prefix", help="All keys that begin so.")] = False,
    json: Json = False,
) -> None:
    """Delete a key, a range, or a prefix."""
    result = _run(lambda client: client.delete(as_bytes(key), as_bytes(end), prefix=prefix))
    if json:
        render.as_json({"revision": result.revision, "deleted": result.deleted})
    else:
        render.say(f"✓ deleted {result.deleted}")


@app.command()
def txn(
    compare: Annotated[
        list[str] | None, typer.Option("--if", help="value:KEY=TEXT, version:KEY=0, mod:KEY>7 …")
    ] = None,
    then: Annotated[
        list[str] | None, typer.Option(help="put KEY VALUE | del KEY | get KEY")
    ] = None,
    otherwise: Annotated[list[str] | None, typer.Option("--else", help="as --then")] = None,
    json: Json = False,
) -> None:
    """Compare, then do the one or the other, atomically. Exit status 1 if the comparison failed."""
    compares = [_compare(text) for text in compare or ()]
    branches = [[_op(text) for text in branch or ()] for branch in (then, otherwise)]
    result = _run(lambda client: client.txn(compares, *branches))
    if json:
        render.as_json(result._asdict())
    else:
        render.say(f"✓ {'then' if result.succeeded else 'else'}, revision {result.revision}")
    if not result.succeeded:
        raise typer.Exit(1)


def _compare(text: str) -> list[Any]:
    target, colon, rest = text.partition(":")
    for operator in ("!=", "=", "<", ">"):
        key, found, operand = rest.partition(operator)
        if colon and found:
            if target == "value":
                return [target, operator, as_bytes(key), as_bytes(operand)]
            if operand.isdecimal():
                return [target, operator, as_bytes(key), int(operand)]
    raise Usage(f"{text!r} is no comparison; write value:KEY=TEXT or version:KEY=NUMBER")


def _op(text: str) -> list[Any]:
    verb, _, rest = text.partition(" ")
    key, _, value = rest.partition(" ")
    if key and verb == "put":
        return [PUT, as_bytes(key), as_bytes(value), 0, False]
    if key and verb == "del":
        return [DELETE, as_bytes(key), b"", False]
    if key and verb == "get":
        return [RANGE, as_bytes(key), b"", 0, 0, False, False]
    raise Usage(f"{text!r} is no operation; write 'put KEY VALUE', 'del KEY' or 'get KEY'")


@app.command()
def watch(
    key: Key,
    prefix: Annotated[bool, typer.Option("--prefix", help="All keys that begin so.")] = False,
    revision: Annotated[int, typer.Option(help="From this revision on.")] = 0,
    count: Annotated[int, typer.Option(help="End after this many changes.")] = 0,
    json: Json = False,
) -> None:
    """Print changes as they happen, until interrupted."""

    async def follow(client: RaftClient) -> None:
        left = count
        async for batch in client.watch(as_bytes(key), prefix=prefix, revision=revision):
            for event in batch.events:
                pair = event.pair
                if json:
                    render.as_json({"revision": batch.revision, **_shown(pair)})
                elif pair.version:
                    changed = f"{as_text(pair.key)}\t{as_text(pair.value)}"
                    print(f"{batch.revision}\tput\t{changed}", flush=True)
                else:
                    print(f"{batch.revision}\tdel\t{as_text(pair.key)}", flush=True)
                left -= 1
                if left == 0:
                    return

    _run(follow)


@lease_app.command()
def grant(ttl: Annotated[int, typer.Argument(help="Seconds.", min=1)], json: Json = False) -> None:
    """A new lease; prints its id."""
    lease_id = _run(lambda client: client.lease_grant(ttl))
    if json:
        render.as_json({"id": lease_id, "ttl": ttl})
    else:
        print(lease_id)


@lease_app.command()
def keep(lease_id: Annotated[int, typer.Argument()]) -> None:
    """Give a lease its full time again."""
    ttl_s = _run(lambda client: client.lease_keep_alive(lease_id))
    render.say(f"✓ {ttl_s} s from now")


@lease_app.command()
def revoke(lease_id: Annotated[int, typer.Argument()]) -> None:
    """End a lease now, and its keys."""
    gone = _run(lambda client: client.lease_revoke(lease_id))
    render.say(f"✓ {gone} keys went with it")


@lease_app.command()
def ttl(lease_id: Annotated[int, typer.Argument()], json: Json = False) -> None:
    """How long a lease still lasts, and which keys hang on it."""
    total_s, left_s, keys = _run(lambda client: client.lease_ttl(lease_id))
    if json:
        render.as_json({"ttl": total_s, "remaining": left_s, "keys": [as_text(k) for k in keys]})
    else:
        print(f"{left_s:.1f} of {total_s} s left; keys: {', '.join(map(as_text, keys)) or 'none'}")
