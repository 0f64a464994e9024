"""A supervisor whose nodes of the store have a bug.

`python -m planted_supervisor --home FOLDER` stands where `python -m cluster.supervisor` does.
"""

from __future__ import annotations

from dataclasses import replace

from cluster.services import SERVICES
from cluster.supervisor import main

if __name__ == "__main__":
    SERVICES["raft"] = replace(SERVICES["raft"], module="planted_raftd")
    main()
