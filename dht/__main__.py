"""`python -m dht --node d1 --config .ring/cluster.toml`: one peer in the foreground."""

from __future__ import annotations

import sys

from dht.config import SERVICE
from dht.server import DhtService
from netstack.runtime.daemon import main

if __name__ == "__main__":
    main(SERVICE, DhtService, sys.argv[1:])
