"""The pauses of the garbage collector: how many objects a daemon's interpreter searches at once."""

from __future__ import annotations

import json
import subprocess
import sys

from netstack.runtime import daemon

# In a process of its own, since the collector's settings are the whole interpreter's.
PROGRAM = """
import gc, json
from typing import NamedTuple
from netstack.runtime import daemon

class Kept(NamedTuple):
    at: int

searched = []

def began(phase, info):
    if phase == "start":
        generations = range(info["generation"] + 1)
        searched.append(sum(len(gc.get_objects(generation)) for generation in generations))

daemon.tune_interpreter()
gc.callbacks.append(began)
kept = [Kept(i) for i in range(500_000)]
gc.callbacks.clear()
print(json.dumps(searched))
"""


def test_a_store_that_grows_is_never_searched_as_a_whole():
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, check=True, text=True
    )
    searched = json.loads(ran.stdout)
    assert len(searched) > 20  # it does collect
    assert max(searched) < 3.1 * daemon.YOUNG_OBJECTS, searched
