"""`python -m ddp.roofline`: measures all of it and prints one JSON object.

`ring ddp roofline` shows it.
"""

from __future__ import annotations

import json
from typing import Any


def everything() -> dict[str, Any]:
    """Ceilings, points, divisions, lane-slots and messages."""
    from ddp.roofline import ceilings, coherence, communication, divergence
    from ddp.roofline.survey import survey

    roofline, points, rounds = survey()
    bus, fabric = communication.bus_bandwidth()
    peak = roofline.peak("float64")
    return {
        "blas": ceilings.blas(),
        "caches": ceilings.caches(),
        "rounds": rounds,
        "peaks": {dtype: roofline.peak(dtype) for dtype in ("float32", "float64")},
        "bandwidths": [[b.kernel, b.level, b.set_bytes, b.gb_s] for b in roofline.bandwidths],
        "points": [
            {
                "name": p.name,
                "dtype": p.dtype,
                "intensity": p.intensity,
                "gflop_s": p.gflop_s,
                "roof": roofline.roof(p),
                "bound": roofline.bound(p),
            }
            for p in points
        ],
        "above": [point.name for point in roofline.above(points)],
        "bus_gb_s": bus,
        "fabric": fabric,
        "divisions": [
            {
                "name": d.name,
                "intensity": d.intensity,
                "attainable": d.attainable(peak, bus),
                "bound": d.bound(peak, bus),
            }
            for d in communication.divisions()
        ],
        "lanes": [
            {"case": name, "issued": s.issued, "useful": s.useful, "waste": s.waste}
            for name, s in divergence.cases()
        ],
        "coherence": [
            {"cores": cores, "case": name, "snoop": snoop, "directory": directory}
            for cores in (2, 8, 64)
            for name, snoop, directory in coherence.compare(cores)
        ],
    }


if __name__ == "__main__":
    print(json.dumps(everything()))
