"""A node of the store with a bug in it: `python -m planted_raftd --node n1 --config FILE`.

Stands where `python -m raftd` does. Which bug it is, $RING_BUG says: a name of daemon_bugs.ZOO.
"""

from __future__ import annotations

import os
import sys

from daemon_bugs import plant

from netstack.runtime.daemon import main
from raftd.server import SERVICE, RaftService

if __name__ == "__main__":
    plant(os.environ["RING_BUG"])
    main(SERVICE, RaftService, sys.argv[1:])
