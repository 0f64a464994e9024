"""For all tests: what is judged are the sources as they stand.

Planted bugs are subclasses, and fakes stand in for methods; neither works on a compiled twin
(`make fast`). With RING_PURE=0 the twins are judged: that is how `make test` runs the tests of
real processes.
"""

from __future__ import annotations

import os

os.environ.setdefault("RING_PURE", "1")
