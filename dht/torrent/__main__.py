"""`python -m dht.torrent`: make a .torrent, and run one role in the foreground.

    create PATH --tracker URL      info TORRENT       status
    tracker                        web FOLDER
    seed TORRENT --from FOLDER     get TORRENT|URL|MAGNET --to FOLDER

stdout has JSON, one object a line; stderr has sentences.

    exit status   0 done, or ended by SIGTERM or SIGINT     2 bad flag, bad torrent, unreadable file
                  4 not complete: stopped, or --timeout     5 port taken
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from dht.torrent import roles
from dht.torrent.addresses import parse_address
from dht.torrent.creation import create
from dht.torrent.errors import TorrentError
from dht.torrent.magnet import Magnet
from dht.torrent.metainfo import PIECE_LENGTH_MAX, make_torrent, parse
from dht.torrent.strategies import DEFAULT, STRATEGIES
from dht.torrent.tracker import INTERVAL_S

FOREVER = -1.0

T = TypeVar("T")


def main(arguments: list[str]) -> int:
    """Run one command; returns the exit status."""
    options = _parse(arguments)
    try:
        status: int = options.run(options)
        return status
    except roles.PortTaken as error:
        return _fail(error, roles.CONFLICT)
    except TorrentError as error:
        return _fail(error, roles.USAGE)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", roles.USAGE)


def _fail(error: object, status: int) -> int:
    print(f"torrent: {error}", file=sys.stderr, flush=True)
    return status


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dht.torrent", description="BitTorrent on this machine."
    )
    home = Path(os.environ.get("RING_HOME", ".ring")) / "torrent"
    parser.add_argument("--home", type=Path, default=home, help="event logs (%(default)s)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("create", help="make a .torrent of a file or folder")
    command.set_defaults(run=_create)
    command.add_argument("path", type=Path)
    command.add_argument("--out", type=Path, help="the .torrent (PATH.torrent)")
    command.add_argument("--tracker", action="append", default=[], help="its URL; several: tiers")
    command.add_argument("--piece-length", type=_piece_length, help="bytes (by the content)")
    command.add_argument("--private", action="store_true", help="peers from the tracker only")
    command.add_argument("--comment", default="")

    command = commands.add_parser("info", help="what a .torrent says")
    command.set_defaults(run=_info)
    command.add_argument("torrent", type=Path)
    command.add_argument("--scrape", action="store_true", help="ask its trackers who is there")

    command = commands.add_parser("status", help="the roles that run here")
    command.set_defaults(run=_status)

    command = commands.add_parser("tracker", help="run a tracker: HTTP, and UDP on the same port")
    command.set_defaults(run=_tracker)
    command.add_argument("--port", type=_port, default=6969)
    command.add_argument("--interval", type=int, default=INTERVAL_S, help="s between calls")

    command = commands.add_parser("web", help="run a web server for .torrent files")
    command.set_defaults(run=_web)
    command.add_argument("folder", type=Path)
    command.add_argument("--port", type=_port, default=6980)

    peer = argparse.ArgumentParser(add_help=False)
    peer.add_argument("torrent", help="a .torrent; for get, also its URL or a magnet link")
    peer.add_argument("--port", type=_port, default=0, help="to listen on (a free one)")
    peer.add_argument("--peer", action="append", default=[], help="PORT, or 127.0.0.1:PORT")
    peer.add_argument("--upload-limit", type=float, default=0.0, help="bytes a second (none)")
    peer.add_argument("--over", choices=("tcp", "netstack"), default="tcp")
    peer.add_argument(
        "--ring", type=Path, metavar="FILE", help="find peers in the ring of this cluster.toml, too"
    )

    command = commands.add_parser("seed", parents=[peer], help="give what is complete")
    command.set_defaults(run=_seed)
    command.add_argument("--from", dest="folder", type=Path, default=Path(), help="its folder")

    command = commands.add_parser("get", parents=[peer], help="fetch, and give meanwhile")
    command.set_defaults(run=_get)
    command.add_argument("--to", dest="folder", type=Path, default=Path(), help="the folder")
    command.add_argument("--strategy", choices=sorted(STRATEGIES), default=DEFAULT)
    command.add_argument("--stay", type=float, default=0.0, help="s to seed for afterwards")
    command.add_argument("--seed", action="store_true", help="seed afterwards until stopped")
    command.add_argument("--timeout", type=float, default=0.0, help="s until it gives up (never)")
    return parser.parse_args(arguments)


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port < 1 << 16:
        raise argparse.ArgumentTypeError(f"a port is 0 to 65535, not {port}")
    return port


def _piece_length(text: str) -> int:
    length = int(text)
    if not 1 << 14 <= length <= PIECE_LENGTH_MAX:
        raise argparse.ArgumentTypeError(f"a piece has 16384 to {PIECE_LENGTH_MAX} bytes")
    return length


def _print(says: dict[str, Any]) -> None:
    print(json.dumps(says), flush=True)


def _create(options: argparse.Namespace) -> int:
    def tell(done: int, total: int) -> None:
        if done >> 26 != (done - length) >> 26:  # each 64 MiB
            _print({"event": "status", "done": done, "total": total})

    length = options.piece_length or 1 << 18
    info = create(
        options.path, piece_length=options.piece_length, private=options.private, tell=tell
    )
    data = make_torrent(info, options.tracker, options.comment)
    out = options.out or Path(f"{options.path.resolve().name}.torrent")
    out.write_bytes(data)
    _print({"event": "created", "file": str(out), **_describe(data)})
    return roles.OK


def _info(options: argparse.Namespace) -> int:
    data = options.torrent.read_bytes()
    says = _describe(data)
    if options.scrape:
        says["swarm"] = _run(roles.scrape(options.home, parse(data)))
    _print({"event": "info", **says})
    return roles.OK


def _describe(data: bytes) -> dict[str, Any]:
    info = parse(data)
    trackers = tuple(url for tier in info.tiers for url in tier)
    return {
        "name": info.name,
        "info_hash": info.info_hash.hex(),
        "bytes": info.length,
        "pieces": info.piece_count,
        "piece_length": info.piece_length,
        "private": info.private,
        "comment": info.comment,
        "trackers": [list(tier) for tier in info.tiers],
        "files": [{"path": "/".join(f.path), "bytes": f.length} for f in info.files if not f.pad],
        "magnet": str(Magnet(info.info_hash, info.name, trackers)),
    }


def _status(options: argparse.Namespace) -> int:
    found = []
    for file in sorted((options.home / "run").glob("*.json")):
        with contextlib.suppress(OSError, ValueError):
            says = json.loads(file.read_text())
            if _runs(says["pid"]):
                found.append(says)
            else:
                file.unlink(missing_ok=True)  # it was killed
    _print({"event": "status", "roles": found})
    return roles.OK


def _runs(pid: int) -> bool:
    try:
        return b"dht.torrent" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _run(work: Coroutine[Any, Any, T]) -> T:
    return uvloop.run(work)


def _tracker(options: argparse.Namespace) -> int:
    return _run(roles.tracker(options.home, options.port, options.interval))


def _web(options: argparse.Namespace) -> int:
    if not options.folder.is_dir():
        return _fail(f"{options.folder} is no folder", roles.USAGE)
    return _run(roles.web(options.home, options.folder, options.port))


def _seed(options: argparse.Namespace) -> int:
    return _run(_peer(options, writes=False, stay_s=FOREVER, timeout_s=0.0))


def _get(options: argparse.Namespace) -> int:
    stay_s = FOREVER if options.seed else max(0.0, options.stay)
    return _run(_peer(options, writes=True, stay_s=stay_s, timeout_s=options.timeout))


async def _peer(
    options: argparse.Namespace, *, writes: bool, stay_s: float, timeout_s: float
) -> int:
    peers = tuple(parse_address(text) for text in options.peer)
    wanted = await roles.source(options.torrent)
    wanted = replace(
        wanted,
        folder=options.folder,
        peers=wanted.peers + peers,
        strategy=options.strategy if writes else DEFAULT,
        upload_limit=options.upload_limit,
        writes=writes,
    )
    return await roles.run_peer(
        options.home,
        wanted,
        port=options.port,
        netstack=options.over == "netstack",
        ring=options.ring,
        stay_s=stay_s,
        timeout_s=timeout_s,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
