"""`python -m raftd --node n1 --config .ring/cluster.toml`: one node in the foreground."""

from __future__ import annotations

import sys

from netstack.runtime.daemon import main
from raftd.server import SERVICE, RaftService

if __name__ == "__main__":
    main(SERVICE, RaftService, sys.argv[1:])
