"""The fuzz targets of the transport without coverage: a few hundred inputs, always the same ones.

`fuzz.py` is the long run. What it has found is in `regressions.txt`, a line each, for ever.
"""

from __future__ import annotations

import fuzz
import pytest

# Inputs of each target: about a second's worth.
RUNS = {"packet": 3000, "parameters": 3000, "tokens": 3000, "frames": 3000}
RUNS |= {"handshake": 200, "connection": 1500, "host": 120}


def test_every_target_is_tried():
    assert set(RUNS) == set(fuzz.TARGETS)


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_inputs_that_once_went_wrong(name):
    target = fuzz.make(name)
    for data in fuzz.regressions(name):
        target.run(data)


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_inputs_made_by_chance(name):
    fuzz.by_chance(fuzz.make(name), RUNS[name])
