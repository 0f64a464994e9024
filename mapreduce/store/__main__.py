"""`python -m mapreduce.store --node c1 --config .ring/cluster.toml`: one chunk server."""

from __future__ import annotations

import sys

from mapreduce.store.server import SERVICE, ChunkService
from netstack.runtime.daemon import main

if __name__ == "__main__":
    main(SERVICE, ChunkService, sys.argv[1:])
