"""Addresses of this machine: the tunnel leads nowhere else."""

from __future__ import annotations

import ipaddress

from netstack.runtime.endpoint import Address

HOST = "127.0.0.1"


def loopback(text: str) -> Address:
    """`8000`, `localhost:8000` or `127.0.0.1:8000`; raises ValueError with one plain sentence."""
    host, colon, port = text.rpartition(":")
    if not colon or host == "localhost":
        host = HOST
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
        raise ValueError(f"{text!r} is not an address; write a port, or 127.0.0.1:PORT")
    try:
        is_ours = ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        is_ours = False
    if not is_ours:
        raise ValueError(f"{host} is not this machine: a tunnel joins 127.x.x.x addresses only")
    return host, int(port)
