"""`python -m mapreduce.graph --node g1 --config .ring/cluster.toml`: one worker of graphs."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        from mapreduce.graph.child import main as child

        child(int(sys.argv[2]), int(sys.argv[3]))
    else:
        from mapreduce.graph.wire import SERVICE
        from mapreduce.graph.worker import GraphService
        from netstack.runtime.daemon import main

        main(SERVICE, GraphService, sys.argv[1:])
