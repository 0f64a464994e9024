"""`python -m ddp --node r1 --config .ring/cluster.toml`: one worker in the foreground."""

from __future__ import annotations

import sys

from ddp.server import WorkerService
from ddp.switchboard import SERVICE
from netstack.runtime.daemon import main

if __name__ == "__main__":
    main(SERVICE, WorkerService, sys.argv[1:])
