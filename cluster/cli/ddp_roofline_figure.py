"""The figure of `ring ddp roofline`, by matplotlib: `pip install 'ringleader[figures]'`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster.errors import Usage


def draw(found: dict[str, Any], path: Path) -> None:
    """Two planes: operations a byte moved, on one core; operations a byte sent, over ranks."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise Usage("figures need matplotlib: pip install 'ringleader[figures]'") from None
    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (core, cluster) = pyplot.subplots(1, 2, figsize=(13, 5.2), layout="constrained")
    _core(found, core)
    _cluster(found, cluster)
    for axis in (core, cluster):
        axis.set(xscale="log", yscale="log", ylabel="GFLOP/s")
        axis.grid(alpha=0.25, which="both")
        axis.legend(fontsize=8, loc="lower right")
    figure.suptitle(f"{found['blas']}", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _core(found: dict[str, Any], axis: Any) -> None:
    best: dict[str, float] = {}
    for _, level, _, speed in found["bandwidths"]:
        best[level] = max(speed, best.get(level, 0.0))
    left, right = 0.02, 300.0
    for level, speed in best.items():
        peak = found["peaks"]["float64"]
        ridge = peak / speed
        axis.plot([left, ridge], [left * speed, peak], label=f"{level} {speed:.0f} GB/s")
    for dtype, peak in found["peaks"].items():
        form = {"linestyle": "--", "color": "grey", "linewidth": 1}
        axis.plot([left, right], [peak, peak], label=f"{dtype} {peak:.0f} GFLOP/s", **form)
    for point in found["points"]:
        at = point["intensity"], point["gflop_s"]
        axis.plot(*at, "o", color="black", markersize=4)
        axis.annotate(point["name"], at, fontsize=6, xytext=(3, -7), textcoords="offset points")
    axis.set(xlabel="flop / byte moved", title="one core")


def _cluster(found: dict[str, Any], axis: Any) -> None:
    bus, peak = found["bus_gb_s"], 4 * found["peaks"]["float64"]
    left, right = 1.0, 3000.0
    ridge = peak / (4 * bus)
    axis.plot([left, ridge], [left * 4 * bus, peak], label=f"4 ranks x {bus:.2f} GB/s")
    form = {"linestyle": "--", "color": "grey", "linewidth": 1}
    axis.plot([left, right], [peak, peak], label=f"4 ranks {peak:.0f} GFLOP/s", **form)
    for number, division in enumerate(found["divisions"]):
        at = division["intensity"], division["attainable"]
        axis.plot(*at, "o", color="black", markersize=4)
        # Those at the roof lie close together: each label hangs on a line of its own length.
        below = {"xytext": (4, -14 - 14 * number), "textcoords": "offset points"}
        arrow = {"arrowstyle": "-", "linewidth": 0.4, "alpha": 0.6}
        axis.annotate(division["name"], at, fontsize=7, arrowprops=arrow, **below)
    axis.set(xlabel="flop / byte sent", title="four ranks: attainable, from counts")
