"""How a member of Debian's etcd is started; what is measured and judged beside our own store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def member_command(name: str, folder: Path, client: str, peers: Mapping[str, str]) -> list[str]:
    """The command line of one member.

    Args:
        folder: its data goes to `folder/name`.
        client: the URL on which clients reach it.
        peers: the URL of each member, by name, its own among them.
    """
    return [
        "etcd",
        f"--name={name}",
        f"--data-dir={folder / name}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peers[name]}",
        f"--initial-advertise-peer-urls={peers[name]}",
        f"--initial-cluster={','.join(f'{other}={url}' for other, url in peers.items())}",
        "--initial-cluster-state=new",  # ignored where there is data already
        "--log-level=error",
    ]
