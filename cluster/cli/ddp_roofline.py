"""`ring ddp roofline`: what one core can do at most, what training needs, and what lies between."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cluster import render
from cluster.bench.harness import Report, Row
from cluster.cli.ddp_children import lines_of
from cluster.errors import Unhealthy, Usage

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]

# No kernel is faster than its roof by more than two measurements of one thing may differ.
BAR = 1.1


def roofline(
    figure: Annotated[
        Path | None,
        typer.Option("--figure", help="Draw it there (.svg or .png)."),
    ] = None,
    json: Json = False,
) -> None:
    """Ceilings of this machine, and kernels under them; exit status 1 if one lies above."""
    render.say("measuring takes ten seconds; leave the machine alone meanwhile")
    (found,) = lines_of("ddp.roofline")
    report = as_report(found)
    if figure is not None:
        if figure.suffix not in (".svg", ".png"):
            raise Usage(f"a figure is .svg or .png, not {figure.name!r}")
        from cluster.cli.ddp_roofline_figure import draw

        draw(found, figure)
        render.say(f"figure {figure}")
    if json:
        render.as_json(report.to_json() | {"found": found})
    else:
        _show(found)
    if not report.holds:
        raise Unhealthy("above its roof: " + ", ".join(found["above"]))


def as_report(found: dict[str, Any]) -> Report:
    """Each kernel beside its roof, and the invariant as the one row with a bar."""
    rows = [
        Row(
            p["name"],
            "speed",
            "GFLOP/s",
            p["gflop_s"],
            "roof",
            p["roof"],
            note=f"{p['intensity']:.3g} flop/B, {p['bound']}",
        )
        for p in found["points"]
    ]
    worst = max(p["gflop_s"] / p["roof"] for p in found["points"])
    rows.append(Row("all under their roofs", "worst", "x", worst, bar=BAR))
    return Report("ddp roofline", rows)


def _show(found: dict[str, Any]) -> None:
    render.say(f"one core; {found['blas']}; best of {found['rounds']} rounds")
    peaks = ", ".join(f"{dtype} {speed:.0f} GFLOP/s" for dtype, speed in found["peaks"].items())
    render.say(f"peaks: {peaks}")
    rows = [[level, f"{size >> 10:,}", kernel, f"{speed:.1f}"]
            for kernel, level, size, speed in found["bandwidths"]]  # fmt: skip
    render.table(["LEVEL", "SET KiB", "STREAM", "GB/s"], rows, right=["SET KiB", "GB/s"])
    heads = ["KERNEL", "FLOP/B", "GFLOP/s", "ROOF", "OF ROOF", "BOUND BY"]
    points = [
        [
            p["name"],
            f"{p['intensity']:.3f}",
            f"{p['gflop_s']:.2f}",
            f"{p['roof']:.2f}",
            f"{p['gflop_s'] / p['roof']:.0%}",
            p["bound"],
        ]
        for p in found["points"]
    ]
    render.table(heads, points, right=heads[1:5])
    render.say(f"bus bandwidth of two ranks over {found['fabric']}: {found['bus_gb_s']:.2f} GB/s")
    heads = ["DIVISION", "FLOP/B SENT", "ATTAINABLE GFLOP/s", "BOUND BY"]
    divisions = [
        [d["name"], f"{d['intensity']:.1f}", f"{d['attainable']:.0f}", d["bound"]]
        for d in found["divisions"]
    ]
    render.table(heads, divisions, right=heads[1:3])
    lanes = [[lane["case"], lane["issued"], f"{lane['waste']:.1%}"] for lane in found["lanes"]]
    render.table(["LANES", "SLOTS", "WASTE"], lanes, right=["SLOTS", "WASTE"])
    messages = [
        [c["cores"], c["case"], c["snoop"], c["directory"], f"{c['snoop'] / c['directory']:.1f}"]
        for c in found["coherence"]
    ]
    heads = ["CORES", "COHERENCE", "SNOOP", "DIRECTORY", "RATIO"]
    render.table(heads, messages, right=["CORES", "SNOOP", "DIRECTORY", "RATIO"])
    render.say("next   ring ddp roofline --figure roofline.svg")
