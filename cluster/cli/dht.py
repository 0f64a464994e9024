"""`ring dht …`: the Chord ring from the command line. Keys and values are text (UTF-8)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from cluster import render, topology
from cluster.cli.keys import Json, Key, Timeout, UnknownOutcome, as_bytes, as_text, ended
from cluster.cli.lab import laboratory
from cluster.errors import NotInTime, NotRunning, Unhealthy, Usage
from dht.client import (
    Conflict,
    Contact,
    DhtClient,
    DhtError,
    NodeView,
    NotReached,
    OutcomeUnknown,
    Refused,
    Unsure,
    View,
    brief,
    flaws,
    key_id,
)
from dht.client import Path as LookupPath

app = typer.Typer(no_args_is_help=True, help="A ring of peers: who owns a key, and what it holds.")

T = TypeVar("T")
MODES = ("iterative", "recursive", "walk")


def _run(use: Callable[[DhtClient], Awaitable[T]]) -> T:
    home = topology.home()
    if not topology.load(home).of_service("dht"):
        raise NotRunning("this cluster has no peers; start some with: ring up dht=5")

    async def go() -> T:
        async with DhtClient.connect(home / "cluster.toml") as client:
            try:
                return await use(client)
            except Unsure as error:
                raise UnknownOutcome(f"{error}: it may be there or not; see: ring status") from None
            except Conflict as error:
                raise Unhealthy(str(error)) from None

    return ended(
        go(),
        home,
        not_reached=NotReached,
        unknown=OutcomeUnknown,
        refused=Refused,
        error=DhtError,
        see="see: ring status",
    )


@app.command()
def put(
    key: Key,
    value: Annotated[str, typer.Argument(help="Text; with --file, a file's name.")],
    file: Annotated[bool, typer.Option("--file", help="The value is what a file holds.")] = False,
    expect: Annotated[
        int | None, typer.Option(help="Only if the key has this version; 0: if it is absent.")
    ] = None,
    ttl: Annotated[float, typer.Option(help="Seconds until it vanishes; 0: never.")] = 0.0,
    timeout: Timeout = 10.0,
    json: Json = False,
) -> None:
    """Set a key, and say who keeps it. Exit status 1 if it has another version than expected."""
    data = _read(value) if file else as_bytes(value)
    if not key:
        raise Usage("a key has one character at least")
    stored = _run(
        lambda client: client.put(as_bytes(key), data, expect=expect, ttl_s=ttl, timeout_s=timeout)
    )
    if json:
        render.as_json({"version": stored.version, "holders": stored.acks})
    else:
        render.say(f"✓ version {stored.version}, kept by {', '.join(stored.acks)}")
        render.say(f"try next   ring dht get {key}  ·  ring dht lookup {key} --trace")


def _read(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise Usage(f"{name} cannot be read: {error.strerror}") from None


@app.command()
def get(
    key: Key,
    out: Annotated[Path | None, typer.Option(help="Write the value to this file.")] = None,
    timeout: Timeout = 10.0,
    json: Json = False,
) -> None:
    """Print a key's value. Exit status 1 if it is absent, 3 if nobody can say."""
    found = _run(lambda client: client.get(as_bytes(key), timeout_s=timeout))
    if found is None:
        raise Unhealthy(f"{key!r} is absent")
    if not found.sure:
        render.say("not all replicas could be asked: a newer version may exist")
    if out is not None:
        out.write_bytes(found.value)
        render.say(f"✓ {len(found.value)} bytes in {out}")
    elif json:
        shown = {"key": key, "value": as_text(found.value), "version": found.version}
        render.as_json({**shown, "owner": repr(found.owner), "sure": found.sure})
    else:
        print(as_text(found.value))


@app.command("del")
def delete(
    key: Key,
    expect: Annotated[int | None, typer.Option(help="Only if the key has this version.")] = None,
    timeout: Timeout = 10.0,
    json: Json = False,
) -> None:
    """Remove a key."""
    stored = _run(lambda client: client.delete(as_bytes(key), expect=expect, timeout_s=timeout))
    if json:
        render.as_json({"holders": stored.acks})
    else:
        render.say(f"✓ deleted; {', '.join(stored.acks)} know it")


@app.command()
def lookup(
    key: Key,
    mode: Annotated[str, typer.Option(help="iterative | recursive | walk, which is O(N).")] = (
        "iterative"
    ),
    trace: Annotated[bool, typer.Option("--trace", help="Print every hop.")] = False,
    timeout: Timeout = 5.0,
    json: Json = False,
) -> None:
    """Who owns a key, and in how many hops that is found out."""
    if mode not in MODES:
        raise Usage(f"a look-up is one of {', '.join(MODES)}, not {mode!r}")
    path = _run(lambda client: client.lookup(as_bytes(key), mode=mode, timeout_s=timeout))
    if json:
        render.as_json(
            {
                "key": key,
                "id": f"{path.target:040x}",
                "owner": _shown(path.owner),
                "hops": [_shown(hop) for hop in path.hops],
                "timeouts": [_shown(hop) for hop in path.timeouts],
                "seconds": round(path.seconds, 6),
            }
        )
        return
    if trace:
        _show_trace(path)
    print(f"{path.owner.name}\t{path.owner.id:040x}")
    silent = f", {len(path.timeouts)} did not answer" if path.timeouts else ""
    render.say(f"{len(path.hops)} hops{silent}, {1000 * path.seconds:.1f} ms")


def _show_trace(path: LookupPath) -> None:
    size = 1 << 160
    rows = []
    for number, hop in enumerate(path.hops, 1):
        to_go = (path.target - hop.id) % size
        left = "owner" if hop == path.owner else f"{100 * to_go / size:.2f} %"
        rows.append((number, hop.name, hop.vnode, brief(hop.id), left))
    render.table(("HOP", "NODE", "VNODE", "ID", "CIRCLE TO GO"), rows, right=("HOP", "VNODE"))
    for hop in path.timeouts:
        render.say(f"{hop!r} did not answer")


def _shown(contact: Contact | None) -> dict[str, Any] | None:
    if contact is None:
        return None
    return {"name": contact.name, "vnode": contact.vnode, "id": f"{contact.id:040x}"}


@app.command()
def nodes(json: Json = False) -> None:
    """Every identifier of the ring in order. Exit status 1 unless the ring is ideal."""
    views = _run(lambda client: client.nodes())
    if not views:
        raise NotInTime("no peer answered; see: ring status")
    found = _flaws(views)
    if json:
        shown = [
            {
                **(_shown(view.contact) or {}),
                "state": view.state,
                "predecessor": _shown(view.pred),
                "successors": [_shown(c) for c in view.succ],
                "fingers": view.fingers,
                "keys": view.keys,
                "settled": view.settled,
            }
            for view in views
        ]
        render.as_json({"nodes": shown, "flaws": found})
    else:
        rows = [
            (
                brief(view.contact.id),
                f"{view.contact.name}/{view.contact.vnode}",
                view.state,
                "-" if view.pred is None else brief(view.pred.id),
                " ".join(brief(c.id) for c in view.succ[:3]) + (" …" if len(view.succ) > 3 else ""),
                view.fingers,
                view.keys,
                "yes" if view.settled else "no",
            )
            for view in views
        ]
        heads = ("ID", "NODE", "STATE", "PRED", "SUCCESSORS", "FINGERS", "KEYS", "SETTLED")
        render.table(heads, rows, right=("FINGERS", "KEYS"))
        for flaw in found[:10]:
            render.say(flaw)
        render.say("the ring is ideal" if not found else f"{len(found)} pointers are not ideal yet")
    if found:
        raise typer.Exit(1)


def _flaws(views: list[NodeView]) -> list[str]:
    members = [view for view in views if view.state == "member"]
    ring = {view.contact: View(view.pred, view.succ) for view in members}
    length = max((len(view.succ) for view in members), default=0)
    outside = [f"{v.contact!r} is no member: {v.state}" for v in views if v.state != "member"]
    return outside + flaws(ring, length)


@app.command()
def keys(
    copies: Annotated[bool, typer.Option("--copies", help="A row a copy.")] = False,
    json: Json = False,
) -> None:
    """All keys, where they lie on the circle, and who holds copies."""
    views = _run(lambda client: client.keys())
    by_key: dict[bytes, list[Any]] = {}
    for view in views:
        by_key.setdefault(view.key, []).append(view)
    shown = [
        {
            "key": as_text(key),
            "id": f"{key_id(key):040x}",
            "version": max(copy.version for copy in held),
            "bytes": max(held, key=lambda copy: copy.version).size,
            "owner": next((copy.holder for copy in held if copy.owned), None),
            "holders": [copy.holder for copy in held],
        }
        for key, held in sorted(by_key.items(), key=lambda pair: key_id(pair[0]))
        if not key.startswith(b"\0")
    ]
    if json:
        render.as_json(shown)
        return
    if copies:
        rows = [(as_text(v.key), brief(key_id(v.key)), v.holder, v.version, v.size) for v in views]
        render.table(("KEY", "ID", "NODE", "VERSION", "BYTES"), rows, right=("VERSION", "BYTES"))
        return
    table = [
        (k["key"], k["id"][:8], k["owner"] or "-", " ".join(k["holders"]), k["version"], k["bytes"])
        for k in shown
    ]
    heads = ("KEY", "ID", "OWNER", "COPIES", "VERSION", "BYTES")
    render.table(heads, table, right=("VERSION", "BYTES"))


app.command("lab")(
    laboratory(
        "dht",
        "cluster.lab.dht_experiments",
        "The published figures of Chord, taken from our core; exit status 1 if a claim fails.",
    )
)
