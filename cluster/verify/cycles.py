"""Which transaction must come before which, and where that leads in a circle (Adya 1999).

    ww   b appended to what a had appended          T1 < T2: T2 wrote over T1
    wr   b read what a had appended                 T1 < T2: T2 saw T1
    rw   a did not read what b appended then        T1 < T2: T1 did not see T2
    rt   a had its answer before b was asked        T1 < T2: in real time

In a serial order there are no circles. The kinds of edges in a circle say how wrong it is:

    G0         ww alone                     not even read uncommitted
    G1c        ww and wr                    not read committed
    G-single   one rw                       not snapshot isolation: a read skew
    G2         several rw                   not serializable: a write skew

and with rt among them, `-realtime`: serializable perhaps, but not strictly so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

WW, WR, RW, RT = "ww", "wr", "rw", "rt"

RULES_OUT: Final = {
    "G0": "read uncommitted",
    "G1c": "read committed",
    "G-single": "snapshot isolation",
    "G2": "serializable",
}
REALTIME: Final = "-realtime"


@dataclass(slots=True)
class Graph:
    """Edges between numbered nodes, each with its kinds and, for the first of each, its reason."""

    edges: dict[int, dict[int, dict[str, str]]] = field(default_factory=dict)

    def add(self, before: int, after: int, kind: str, because: str) -> None:
        """`before` comes before `after`."""
        if before != after:
            self.edges.setdefault(before, {}).setdefault(after, {}).setdefault(kind, because)

    def successors(self, node: int, kinds: Iterable[str]) -> list[int]:
        """Where edges of these kinds lead."""
        wanted = set(kinds)
        return [to for to, found in self.edges.get(node, {}).items() if wanted & found.keys()]


@dataclass(frozen=True, slots=True)
class Cycle:
    """A circle: its nodes in order, and of each edge the kind and the reason."""

    kind: str
    nodes: Sequence[int]
    edges: Sequence[tuple[str, str]]

    @property
    def sentence(self) -> str:
        """In words, as a proof by contradiction."""
        lines = []
        last = len(self.nodes) - 1
        for i, (_, because) in enumerate(self.edges):
            before, after = f"T{self.nodes[i]}", f"T{self.nodes[(i + 1) % len(self.nodes)]}"
            however = "However, " if i == last else ""
            lines.append(f"{however}{before} < {after}, because {because}")
        return "; ".join(lines) + ": a contradiction"


def cycles(graph: Graph) -> list[Cycle]:
    """A circle of the worst kind that there is in each knot of the graph."""
    found = []
    for knot in _knots(graph, (WW, WR, RW, RT)):
        cycle = _worst(graph, knot)
        if cycle is not None:
            found.append(cycle)
    return found


def _worst(graph: Graph, knot: set[int]) -> Cycle | None:
    """The worst circle in a strongly connected part."""
    for suffix, extra in (("", ()), (REALTIME, (RT,))):
        for kind, kinds in (("G0", (WW, *extra)), ("G1c", (WW, WR, *extra))):
            nodes = _shortest(graph, knot, kinds)
            if nodes:
                return _cycle(graph, kind + suffix, nodes, kinds)
        kinds = (WW, WR, *extra)
        nodes = _with_one_rw(graph, knot, kinds)
        if nodes:
            return _cycle(graph, "G-single" + suffix, nodes, (*kinds, RW))
        nodes = _shortest(graph, knot, (*kinds, RW))
        if nodes:
            return _cycle(graph, "G2" + suffix, nodes, (*kinds, RW))
    return None


def _shortest(graph: Graph, knot: set[int], kinds: Sequence[str]) -> list[int]:
    """The shortest circle of these kinds within the knot; [] if there is none."""
    best: list[int] = []
    for part in _knots(graph, kinds, within=knot):
        for start in part:
            path = _path(graph, start, start, part, kinds)
            if path and (not best or len(path) < len(best)):
                best = path
            if len(best) == 2:
                return best
    return best


def _with_one_rw(graph: Graph, knot: set[int], kinds: Sequence[str]) -> list[int]:
    """An rw edge, and a way back by the other kinds."""
    for before in sorted(knot):
        for after in graph.successors(before, (RW,)):
            if after in knot:
                path = _path(graph, after, before, knot, kinds)
                if path:
                    return [before, *path]
    return []


def _path(graph: Graph, start: int, end: int, within: set[int], kinds: Sequence[str]) -> list[int]:
    """Nodes from `start` up to, and without, `end`, by the fewest edges; [] if none leads there."""
    came_from: dict[int, int] = {}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        for to in graph.successors(node, kinds):
            if to == end:
                path = [node]
                while path[-1] != start:
                    path.append(came_from[path[-1]])
                return path[::-1]
            if to in within and to not in came_from and to != start:
                came_from[to] = node
                queue.append(to)
    return []


def _cycle(graph: Graph, kind: str, nodes: list[int], kinds: Sequence[str]) -> Cycle:
    edges = []
    for i, node in enumerate(nodes):
        found = graph.edges[node][nodes[(i + 1) % len(nodes)]]
        first = next(k for k in kinds if k in found)
        edges.append((first, found[first]))
    return Cycle(kind, nodes, edges)


def _knots(graph: Graph, kinds: Sequence[str], within: set[int] | None = None) -> list[set[int]]:
    """Strongly connected parts of more than one node (Tarjan 1972, without recursion)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    knots = []
    nodes = list(graph.edges) if within is None else sorted(within)
    for root in nodes:
        if root in index:
            continue
        work = [(root, iter(graph.successors(root, kinds)))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, successors = work[-1]
            for to in successors:
                if within is not None and to not in within:
                    continue
                if to not in index:
                    index[to] = low[to] = len(index)
                    stack.append(to)
                    on_stack.add(to)
                    work.append((to, iter(graph.successors(to, kinds))))
                    break
                if to in on_stack:
                    low[node] = min(low[node], index[to])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    knot = set()
                    while node not in knot:
                        member = stack.pop()
                        on_stack.discard(member)
                        knot.add(member)
                    if len(knot) > 1:
                        knots.append(knot)
    return knots
