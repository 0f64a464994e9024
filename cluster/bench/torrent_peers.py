"""The processes of `ring bench torrent`: one peer each, ours or libtorrent's.

    python -m cluster.bench.torrent_peers KIND seed|get TORRENT FOLDER PORT [SEED_PORT [LIMIT]]

Each prints `ready`, and a leecher, once a line on its stdin says go, `done SECONDS` when it has all
of it, verified and written. Then it serves the others until its stdin ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

KINDS: Final = ("ours tcp", "ours netstack", "libtorrent tcp", "libtorrent utp")
HOST: Final = "127.0.0.1"


async def _ours(
    kind: str, verb: str, data: bytes, folder: Path, port: int, seeds: list[int], limit: float
) -> None:
    from dht.torrent.link import TcpNet
    from dht.torrent.metainfo import parse
    from dht.torrent.netlink import over_netstack
    from dht.torrent.peer import Peer, Wanted
    from netstack.runtime.runtime import RealRuntime

    sys.setswitchinterval(0.0005)
    info = parse(data)
    home = Path(os.environ["BENCH_HOME"])
    with tempfile.TemporaryDirectory(prefix="ring-bench-") as state:
        runtime = RealRuntime("bench", Path(state))
        over = over_netstack(runtime, home) if kind == "ours netstack" else TcpNet
        wanted = Wanted(info.info_hash, folder, info, writes=verb == "get", upload_limit=limit)
        peer = Peer(runtime, wanted, over)
        await peer.start((HOST, port))
        print("ready", flush=True)
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        lines: asyncio.Queue[str] = asyncio.Queue()

        def read() -> None:
            for line in sys.stdin:
                loop.call_soon_threadsafe(lines.put_nowait, line)
            loop.call_soon_threadsafe(gone.set)

        threading.Thread(target=read, daemon=True).start()
        if verb == "get":
            others = [int(word) for word in (await lines.get()).split()[1:]]
            began = time.perf_counter()
            peer.session.learn((HOST, other) for other in [*seeds, *others])
            await peer.session.complete.wait()
            print("done", time.perf_counter() - began, flush=True)
        await gone.wait()
        await peer.close()
        runtime.on_fatal = None
        await runtime.cancel_tasks()
        runtime.close()


def _libtorrent(
    kind: str, verb: str, torrent: str, folder: str, port: int, seeds: list[int], limit: float
) -> None:
    import libtorrent as lt

    utp = kind == "libtorrent utp"
    session: Any = lt.session(
        {
            "listen_interfaces": f"{HOST}:{port}",
            "allow_multiple_connections_per_ip": True,
            "enable_outgoing_utp": utp,
            "enable_incoming_utp": utp,
            "enable_outgoing_tcp": not utp,
            "enable_incoming_tcp": not utp,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
            "enable_dht": False,
            "in_enc_policy": int(lt.enc_policy.pe_disabled),
            "out_enc_policy": int(lt.enc_policy.pe_disabled),
            "upload_rate_limit": int(limit),
            "rate_limit_ip_overhead": False,
            # As for a fast link: see libtorrent's manual, "high performance seed".
            "send_buffer_watermark": 3 << 20,
            "send_buffer_low_watermark": 1 << 20,
            "send_buffer_watermark_factor": 150,
            "max_out_request_queue": 1500,
            "max_allowed_in_request_queue": 2000,
            "alert_mask": 0,
        }
    )
    if limit:
        # Peers on this machine are else in a class without limits.
        session.set_peer_class_filter(lt.ip_filter())
    wanted = lt.add_torrent_params()
    wanted.ti = lt.torrent_info(torrent)
    wanted.save_path = folder
    if verb == "seed":
        wanted.flags |= lt.torrent_flags.seed_mode
    handle = session.add_torrent(wanted)
    while handle.status().state in (lt.torrent_status.checking_files,
                                    lt.torrent_status.checking_resume_data):  # fmt: skip
        time.sleep(0.01)
    print("ready", flush=True)
    if verb == "get":
        others = [int(word) for word in sys.stdin.readline().split()[1:]]
        began = time.perf_counter()
        for other in [*seeds, *others]:
            handle.connect_peer((HOST, other))
        while not handle.status().is_seeding:
            time.sleep(0.002)
        print("done", time.perf_counter() - began, flush=True)
    sys.stdin.read()


def main(arguments: list[str]) -> None:
    """Entry of the child processes."""
    kind, verb, torrent, folder, port, *rest = arguments
    seeds = [int(rest[0])] if rest and int(rest[0]) else []
    limit = float(rest[1]) if len(rest) > 1 else 0.0
    if kind.startswith("libtorrent"):
        _libtorrent(kind, verb, torrent, folder, int(port), seeds, limit)
        return
    import uvloop

    uvloop.run(_ours(kind, verb, Path(torrent).read_bytes(), Path(folder), int(port), seeds, limit))


if __name__ == "__main__":
    main(sys.argv[1:])
