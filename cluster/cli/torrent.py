"""`ring torrent …`: a file from everybody who has a part of it.

    ring torrent track                         a tracker
    ring torrent create BIG --tracker URL      a .torrent of a file or folder
    ring torrent seed BIG.torrent              give it
    ring torrent get BIG.torrent --to inbox    fetch it, and give meanwhile

Each role is a process of its own (`python -m dht.torrent`) in the foreground: it ends with this
command, however that ends. The cluster need not run, but for `--ring`: then peers find one another
in its Chord ring, with or without a tracker. Ordinary BitTorrent clients may take part.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster import render, topology
from cluster.cli.lab import laboratory
from cluster.control import running
from cluster.errors import Conflict, NotInTime, NotRunning, RingError, Usage
from netstack.runtime.parent import die_with

app = typer.Typer(no_args_is_help=True, help="BitTorrent: share files among many, on this machine.")

Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, one object a line.")]
Source = Annotated[str, typer.Argument(help="A .torrent, its http:// URL, or a magnet link.")]
Port = Annotated[int, typer.Option(help="To listen on; 0: a free one.", min=0, max=65_535)]
Peers = Annotated[list[str] | None, typer.Option("--peer", help="Call it: PORT. Several may be.")]
Limit = Annotated[float, typer.Option(help="KB/s given to all peers together; 0: no limit.")]
Ring = Annotated[bool, typer.Option("--ring", help="Find peers in this cluster's ring, too.")]
Over = Annotated[str, typer.Option(help="tcp, or netstack: encrypted, among our own peers.")]

ERRORS: dict[int, type[RingError]] = {2: Usage, 4: NotInTime, 5: Conflict}

Says = dict[str, Any]


@contextmanager
def _role(arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A role's process; SIGTERM and SIGINT are passed on, and it is waited for."""
    home = topology.home() / "torrent"
    child = subprocess.Popen(
        [sys.executable, "-m", "dht.torrent", "--home", str(home), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=partial(die_with, os.getpid(), signal.SIGTERM),  # asked to end, not killed
    )
    before = {
        number: signal.signal(number, lambda number, _: child.send_signal(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield child
    finally:
        if child.poll() is None:
            child.terminate()
        child.wait()
        for pipe in (child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(arguments: list[str], show: Callable[[Says], None], *, json_: bool) -> None:
    """Run a role to its end; each of its lines goes to `show`, or to stdout. Raises RingError."""
    with _role(arguments) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        for line in child.stdout:
            if json_:
                print(line, end="", flush=True)
            else:
                show(json.loads(line))
        why = child.stderr.read().strip().removeprefix("torrent: ")
        status = child.wait()
    if status < 0:
        name = signal.Signals(-status).name
        raise RingError(f"its process was ended by {name}; the same command goes on from there")
    if status:
        error = ERRORS.get(status, RingError)
        raise error(why or "stopped before all was there; the same command goes on from here")


def _flags(**options: Any) -> list[str]:
    """`--name value` for each that is set."""
    flags: list[str] = []
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            if one is True:
                flags.append(f"--{name.replace('_', '-')}")
            elif one not in (None, False, "", 0, 0.0):
                flags += [f"--{name.replace('_', '-')}", str(one)]
    return flags


def _bytes(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return ""


@app.command()
def create(
    path: Annotated[Path, typer.Argument(help="A file or a folder.")],
    out: Annotated[Path | None, typer.Option(help="The .torrent; PATH.torrent here.")] = None,
    tracker: Annotated[list[str] | None, typer.Option(help="URL; several are tiers.")] = None,
    piece_length: Annotated[int, typer.Option(help="Bytes; 0: by the content.")] = 0,
    private: Annotated[bool, typer.Option(help="Peers come from the tracker only.")] = False,
    comment: Annotated[str, typer.Option(help="For people.")] = "",
    json: Json = False,
) -> None:
    """Make a .torrent."""

    def show(says: Says) -> None:
        if says["event"] == "created":
            _describe(says)
            folder = path.resolve().parent
            where = "" if folder == Path.cwd() else f" --from {folder}"
            way = "" if says["trackers"] else " --ring"
            render.say(f"✓ {says['file']}")
            render.say(f"try next   ring torrent seed {says['file']}{where}{way}")

    flags = _flags(out=out, tracker=tracker, piece_length=piece_length, private=private)
    _run(["create", str(path), *flags, *_flags(comment=comment)], show, json_=json)


@app.command()
def info(
    torrent: Annotated[Path, typer.Argument(help="A .torrent.")],
    scrape: Annotated[bool, typer.Option("--scrape", help="Ask its trackers, too.")] = False,
    json: Json = False,
) -> None:
    """What a .torrent says, and who its trackers say is there."""
    _run(["info", str(torrent), *_flags(scrape=scrape)], _describe, json_=json)


def _describe(says: Says) -> None:
    rows = [
        ("name", says["name"]),
        ("info-hash", says["info_hash"]),
        ("size", f"{_bytes(says['bytes'])} in {_files(len(says['files']))}"),
        ("pieces", f"{says['pieces']} of {says['piece_length'] >> 10} KiB"),
        ("trackers", " | ".join(", ".join(tier) for tier in says["trackers"]) or "none"),
        ("private", "yes" if says["private"] else "no"),
        ("magnet", says["magnet"]),
    ]
    for found in says.get("swarm", ()):
        counts = "{seeds} seeds, {leeches} peers, {completed} completed"
        rows.append((found["url"], found["trouble"] or counts.format(**found)))
    render.table(("", ""), rows)


def _files(count: int) -> str:
    return "one file" if count == 1 else f"{count} files"


@app.command()
def track(
    port: Annotated[int, typer.Option(help="TCP and UDP.", min=0, max=65_535)] = 6969,
    interval: Annotated[int, typer.Option(help="Seconds between two calls of a peer.")] = 60,
    json: Json = False,
) -> None:
    """Run a tracker: who has what; over HTTP and UDP."""

    def show(says: Says) -> None:
        if says["event"] == "ready":
            render.say(f"✓ tracker at {says['http']} and {says['udp']}")
            render.say(f"try next   ring torrent create FILE --tracker {says['http']}")
        elif says["event"] == "end":
            render.say(f"✓ stopped after {says['announces']} calls")

    _run(["tracker", *_flags(interval=interval), "--port", str(port)], show, json_=json)


@app.command()
def web(
    folder: Annotated[Path, typer.Argument(help="With .torrent files.")],
    port: Annotated[int, typer.Option(help="TCP.", min=0, max=65_535)] = 6980,
    json: Json = False,
) -> None:
    """Run the web server from which people get .torrent files."""

    def show(says: Says) -> None:
        if says["event"] == "ready":
            render.say(f"✓ {says['http']} serves the .torrent files of {folder}")
            render.say(f"try next   ring torrent get {says['http']}NAME.torrent")

    _run(["web", str(folder), "--port", str(port)], show, json_=json)


@app.command()
def seed(
    torrent: Annotated[str, typer.Argument(help="A .torrent.")],
    from_: Annotated[Path, typer.Option("--from", help="The folder its content is in.")] = Path(),
    port: Port = 0,
    peer: Peers = None,
    upload_limit: Limit = 0,
    over: Over = "tcp",
    ring: Ring = False,
    json: Json = False,
) -> None:
    """Give what is complete, until stopped."""
    flags = _flags(peer=peer, upload_limit=upload_limit * 1000, over=_over(over), port=port)
    flags += _flags(ring=_ring(ring))

    with _bar(json) as bar:

        def show(says: Says) -> None:
            if says["event"] == "ready":
                render.say(f"✓ seeding {says['name']} at {says['address']}")
                way = " --ring" if ring else ""
                render.say(f"try next   ring torrent get {torrent}{way} --to inbox")
            elif says["event"] == "end":
                render.say(f"✓ stopped; {_bytes(says['uploaded'])} given")
            bar(says)

        _run(["seed", torrent, "--from", str(from_), *flags], show, json_=json)


@app.command()
def get(
    torrent: Source,
    to: Annotated[Path, typer.Option(help="The folder.")] = Path(),
    strategy: Annotated[
        str, typer.Option(help="random, rarest, strict, parallel or sequential.")
    ] = "rarest",
    stay: Annotated[float, typer.Option(help="Seconds to seed for afterwards.")] = 0.0,
    seed: Annotated[bool, typer.Option("--seed", help="Seed afterwards until stopped.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds until it gives up; 0: never.")] = 0.0,
    port: Port = 0,
    peer: Peers = None,
    upload_limit: Limit = 0,
    over: Over = "tcp",
    ring: Ring = False,
    json: Json = False,
) -> None:
    """Fetch, and give meanwhile; started again, it goes on from where it was."""
    flags = _flags(peer=peer, upload_limit=upload_limit * 1000, over=_over(over), port=port)
    flags += _flags(strategy=strategy, stay=stay, seed=seed, timeout=timeout, ring=_ring(ring))

    with _bar(json) as bar:

        def show(says: Says) -> None:
            if says["event"] == "ready" and says["resumed"]:
                render.say(f"✓ {says['resumed']} of {says['pieces']} pieces are here already")
            elif says["event"] == "complete":
                got = _bytes(says["downloaded"])
                render.say(f"✓ {to / says['name']} is complete; {got} fetched")
                if seed or stay:
                    render.say("seeding; Ctrl-C ends it")
            elif says["event"] == "end" and "why" in says:
                render.say(f"{says['have']} of {says['pieces']} pieces: {says['why']}")
            bar(says)

        _run(["get", torrent, "--to", str(to), *flags], show, json_=json)


def _over(name: str) -> str:
    if name not in ("tcp", "netstack"):
        raise Usage(f"--over is tcp or netstack, not {name!r}")
    return name


def _ring(wanted: bool) -> str:
    """The file of the cluster whose ring is asked; raises NotRunning, ConfigError."""
    if not wanted:
        return ""
    home = topology.home()
    if not topology.load(home).of_service("dht"):
        raise NotRunning("this cluster has no peers of a ring; start some with: ring up dht=5")
    if not running(home):
        raise NotRunning(f"no cluster is running in {home}; start one with: ring up dht=5")
    return str(home / "cluster.toml")


@contextmanager
def _bar(json_: bool) -> Iterator[Callable[[Says], None]]:
    """A progress bar on a terminal; nothing in a pipe."""
    if json_ or not sys.stderr.isatty():
        yield lambda says: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    with Progress(
        TextColumn("{task.fields[name]}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[about]}"),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        task = progress.add_task("", total=1, name="", about="")

        def show(says: Says) -> None:
            progress.update(
                task,
                total=says["pieces"] or 1,
                completed=says["have"],
                name=says["name"] or says["info_hash"][:8],
                about=about(says),
            )

        yield show


def about(says: Says) -> str:
    """One line about a peer: pieces, rates, peers."""
    return (
        f"{says['have']}/{says['pieces']} pieces  "
        f"↓ {_bytes(says['down_rate'])}/s  ↑ {_bytes(says['up_rate'])}/s  "
        f"{_count(says['peers'], 'peer')}, {_count(says['seeds'], 'seed')}"
        + (f"  {says['trouble']}" if says["trouble"] else "")
    )


def _count(number: int, of: str) -> str:
    return f"{number} {of}" if number == 1 else f"{number} {of}s"


@app.command()
def status(json: Json = False) -> None:
    """The roles that run here."""

    def show(says: Says) -> None:
        if not says["roles"]:
            render.say("nothing runs; try   ring torrent track")
            return
        rows = [
            (
                role["role"],
                role["address"],
                role["pid"],
                role.get("name", "-"),
                f"{role['have']}/{role['pieces']}" if "have" in role else "-",
                role.get("peers", "-"),
                f"{_bytes(role['down_rate'])}/s" if "down_rate" in role else "-",
                f"{_bytes(role['up_rate'])}/s" if "up_rate" in role else "-",
                role["trouble"] or "-",
            )
            for role in says["roles"]
        ]
        columns = ("ROLE", "ADDRESS", "PID", "NAME", "PIECES", "PEERS", "DOWN", "UP", "TROUBLE")
        render.table(columns, rows, right=("PID", "PIECES", "PEERS", "DOWN", "UP"))

    _run(["status"], show, json_=json)


app.command("lab")(
    laboratory(
        "torrent",
        "cluster.lab.torrent_strategies",
        "A slow seed dies early: the ways to choose pieces, compared; a minute or two.",
    )
)
