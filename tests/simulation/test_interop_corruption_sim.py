"""The interop runner's handshakecorruption: fifty dials over a line that damages three tenths.

One of the first 51 bytes becomes another, so it is nearly always a header or a key that suffers:
ids, tokens, the kind of a packet, Noise's ephemeral key. What was damaged must be made up for, and
must never be taken for something else.
"""

from __future__ import annotations

import pytest
from interop_kit import CorruptRate, faults, fifty_connections


@pytest.mark.parametrize("seed", range(12))
def test_handshakecorruption_fifty_connections_with_three_tenths_damaged(seed):
    site = fifty_connections(faults(CorruptRate, 0.30, 3, seed=seed))
    assert 0.25 < site.wire.count("damaged") / len(site.wire.seen) < 0.35
