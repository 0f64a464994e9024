"""Figures of experiments, by matplotlib: `pip install 'ringleader[figures]'`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import Usage

if TYPE_CHECKING:
    from cluster.lab.outcome import Curve, Outcome, Panel

WIDTH_IN = 9.0
PANEL_IN = 4.2


def draw(outcome: Outcome, path: Path) -> None:
    """Write the figure of an experiment to `path` (.svg or .png); raises Usage."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise Usage(
            "figures need matplotlib: pip install 'ringleader[figures]'; or add --no-figures"
        ) from None
    mpl.use("Agg")
    # The same data give the same file.
    mpl.rcParams["svg.hashsalt"] = outcome.name
    from matplotlib import pyplot

    count = len(outcome.panels)
    figure, axes = pyplot.subplots(
        count, 1, figsize=(WIDTH_IN, PANEL_IN * count), squeeze=False, layout="constrained"
    )
    for panel, (axis,) in zip(outcome.panels, axes, strict=True):
        _draw_panel(panel, axis)
    figure.suptitle(_wrapped(outcome.sentence), fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"Date": None} if path.suffix == ".svg" else None
    figure.savefig(path, dpi=110, metadata=metadata)
    pyplot.close(figure)


def _draw_panel(panel: Panel, axis: Any) -> None:
    for curve in panel.curves:
        _draw_curve(curve, axis)
    axis.set_xlabel(panel.x)
    axis.set_ylabel(panel.y)
    if panel.log_x:
        axis.set_xscale("log")
    if panel.log_y:
        axis.set_yscale("log")
    if panel.square:
        most = max(max(x, y) for curve in panel.curves for x, y in curve.points)
        axis.set(xlim=(0, most), ylim=(0, most), aspect="equal")
    elif not panel.log_y:
        axis.set_ylim(bottom=0)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8)


def _draw_curve(curve: Curve, axis: Any) -> None:
    if curve.dots:
        form: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 4}
    elif curve.dashed:
        form = {"linestyle": "--", "color": "grey", "linewidth": 1}
    else:
        form = {"linewidth": 1.2}
    axis.plot(*zip(*curve.points, strict=True), label=curve.label, **form)


def _wrapped(sentence: str, width: int = 100) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(sentence, width))
