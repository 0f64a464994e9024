"""Pictures of graphs, with the state of each task: DOT for graphviz, and SVG without it.

The SVG is laid out in layers: a task stands below all of its inputs, and in its layer near the
middle of those (the barycentre rule of Sugiyama's method, two sweeps).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from html import escape
from typing import Final

from mapreduce.graph.graphs import Graph, in_order

COLOURS: Final = {
    "done": "#8bc48a",
    "memory": "#8bc48a",
    "running": "#f0c75e",
    "ready": "#d9e4f5",
    "waiting": "#eeeeee",
    "released": "#eeeeee",
    "erred": "#e07a6b",
}
AGAIN: Final = "#c2185b"

# Pixels.
WIDE, HIGH, GAP_X, GAP_Y, MARGIN = 120, 30, 16, 44, 20
LABEL_LETTERS: Final = 17

# More than this nobody can look at.
DRAWN_MAX: Final = 2000


def to_dot(graph: Graph, states: Mapping[str, str], again: Collection[str] = ()) -> str:
    """For `dot -Tsvg`. Again: what was computed more than once, framed."""
    lines = ["digraph graph_ {", '  node [shape=box, style="filled,rounded", fontsize=10];']
    for name, task in graph.tasks.items():
        colour = COLOURS.get(states.get(name, "waiting"), "#ffffff")
        frame = f', color="{AGAIN}", penwidth=3' if name in again else ""
        label = _label(name, len(task.steps))
        lines.append(
            f'  "{_quoted(name)}" [label="{_quoted(label)}", fillcolor="{colour}"{frame}];'
        )
    for name, task in graph.tasks.items():
        lines += [f'  "{_quoted(needed)}" -> "{_quoted(name)}";' for needed in task.inputs]
    return "\n".join([*lines, "}", ""])


def to_svg(graph: Graph, states: Mapping[str, str], again: Collection[str] = ()) -> str:
    """A picture of its own; raises ValueError for a graph that nobody could look at."""
    if len(graph.tasks) > DRAWN_MAX:
        raise ValueError(f"{len(graph.tasks)} tasks are too many to draw; {DRAWN_MAX} will do")
    layers = _layers(graph)
    widest = max((len(layer) for layer in layers), default=1)
    width = 2 * MARGIN + widest * (WIDE + GAP_X) - GAP_X
    height = 2 * MARGIN + len(layers) * (HIGH + GAP_Y) - GAP_Y
    at: dict[str, tuple[float, float]] = {}
    for row, layer in enumerate(layers):
        left = (width - (len(layer) * (WIDE + GAP_X) - GAP_X)) / 2
        for column, name in enumerate(layer):
            at[name] = (left + column * (WIDE + GAP_X), MARGIN + row * (HIGH + GAP_Y))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for name, task in graph.tasks.items():
        parts += [_edge(at[needed], at[name]) for needed in task.inputs]
    for name, task in graph.tasks.items():
        parts.append(_box(name, len(task.steps), at[name], states.get(name, "waiting"), again))
    return "\n".join([*parts, "</svg>", ""])


def _layers(graph: Graph) -> list[list[str]]:
    depth: dict[str, int] = {}
    for name in in_order({name: task.inputs for name, task in graph.tasks.items()}):
        depth[name] = 1 + max((depth[n] for n in graph.tasks[name].inputs), default=-1)
    layers: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for name, level in depth.items():
        layers[level].append(name)
    neighbours: dict[str, list[str]] = {name: list(graph.tasks[name].inputs) for name in depth}
    for name in depth:
        for needed in graph.tasks[name].inputs:
            neighbours[needed].append(name)
    for sweep in (layers, layers[::-1]):
        place = {n: i / max(1, len(layer)) for layer in layers for i, n in enumerate(layer)}
        for layer in sweep:
            middle = {
                n: sum(place[k] for k in neighbours[n]) / len(neighbours[n])
                if neighbours[n]
                else place[n]
                for n in layer
            }
            layer.sort(key=lambda n: middle[n])
            place.update((n, i / max(1, len(layer))) for i, n in enumerate(layer))
    return layers


def _edge(source: tuple[float, float], target: tuple[float, float]) -> str:
    x1, y1 = source[0] + WIDE / 2, source[1] + HIGH
    x2, y2 = target[0] + WIDE / 2, target[1]
    bend = (y2 - y1) / 2
    return (
        f'<path d="M{x1:.1f} {y1:.1f} C{x1:.1f} {y1 + bend:.1f} {x2:.1f} {y2 - bend:.1f} '
        f'{x2:.1f} {y2:.1f}" fill="none" stroke="#999"/>'
    )


def _box(name: str, steps: int, at: tuple[float, float], state: str, again: Collection[str]) -> str:
    x, y = at
    frame = f'stroke="{AGAIN}" stroke-width="3"' if name in again else 'stroke="#666"'
    told = f"{name}: {state}" + (", computed again" if name in again else "")
    return (
        f'<g><title>{escape(told)}</title><rect x="{x:.1f}" y="{y:.1f}" width="{WIDE}" '
        f'height="{HIGH}" rx="6" fill="{COLOURS.get(state, "#ffffff")}" {frame}/>'
        f'<text x="{x + WIDE / 2:.1f}" y="{y + HIGH / 2 + 4:.1f}" text-anchor="middle">'
        f"{escape(_label(name, steps))}</text></g>"
    )


def _label(name: str, steps: int) -> str:
    short = name if len(name) <= LABEL_LETTERS else name[: LABEL_LETTERS - 1] + "…"
    return short if steps == 1 else f"{short} ×{steps}"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
