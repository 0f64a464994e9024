"""A daemon that does what it is told: stands in for a real one where only its process matters.

`nodes/NAME/orders` has a word for each start, the last one for all that follow:

    serve       ready, until SIGTERM             crash       ready, then ends with status 1
    mute        lives, and is never ready        exit N      ends with status N at once
    stubborn    ready, and deaf to SIGTERM       slow        ready, and takes a moment to end
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path


def next_order(folder: Path) -> str:
    """The first word of the file, which is used up unless it is the last."""
    try:
        first, *rest = (folder / "orders").read_text().splitlines()
    except (FileNotFoundError, ValueError):
        return "serve"
    if rest:
        (folder / "orders").write_text("\n".join(rest))
    return first


def main(node: str, config: Path) -> None:
    """Obey."""
    order, _, number = next_order(config.parent / "nodes" / node).partition(" ")
    print(f"{node} {order} {number}".strip())
    if order == "exit":
        sys.exit(int(number))
    deaf = order in ("stubborn", "mute")
    signal.signal(signal.SIGTERM, signal.SIG_IGN if deaf else lambda *_: end(order))
    if order != "mute":
        os.write(int(os.environ["RING_READY_FD"]), b"ready\n")
    if order == "crash":
        sys.exit(1)
    while True:
        signal.pause()


def end(order: str) -> None:
    """SIGTERM has come."""
    if order == "slow":
        time.sleep(0.2)
    sys.exit(0)


if __name__ == "__main__":
    _, _, name, _, file = sys.argv
    main(name, Path(file))
