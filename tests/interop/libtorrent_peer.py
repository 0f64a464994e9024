"""libtorrent as a process: `seed TORRENT FOLDER PORT` or `get TORRENT|MAGNET FOLDER PORT`.

Set up for one machine: peers share an address, and nothing but plain TCP is spoken (or nothing but
uTP, with UTP=1). Prints `ready`, then `done SECONDS` when all is there; ends with its stdin.
"""

from __future__ import annotations

import os
import sys
import threading
import time

import libtorrent as lt

utp = os.environ.get("UTP") == "1"
verb, source, folder, port, *peers = sys.argv[1:]

session = lt.session(
    {
        "listen_interfaces": f"127.0.0.1:{port}",
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
        "ssrf_mitigation": False,
        "alert_mask": 0,
    }
)
if source.startswith("magnet:"):
    wanted = lt.parse_magnet_uri(source)
else:
    wanted = lt.add_torrent_params()
    wanted.ti = lt.torrent_info(source)
wanted.save_path = folder
if verb == "seed":
    wanted.flags |= lt.torrent_flags.seed_mode
handle = session.add_torrent(wanted)
gone = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), gone.set()), daemon=True).start()
print("ready", flush=True)
began = time.monotonic()
for peer in peers:
    handle.connect_peer(("127.0.0.1", int(peer)))
told = False
while not gone.is_set():
    if not told and handle.status().is_seeding and verb == "get":
        print("done", time.monotonic() - began, flush=True)
        told = True
    time.sleep(0.002 if verb == "get" and not told else 0.05)
