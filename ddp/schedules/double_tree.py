"""Double binary tree: half of the vector each (Sanders, Speck and Träff, 2009; NCCL 2.4).

    rounds            bytes sent, max / mean   peak fan-in   time
    2·floor(log2 P)   ≤ 2N / 2N(P-1)/P         2             ≈ 2·log2(P)α + 2Nβ + a root term

In one tree half of the ranks only send up while the others add: so a second tree is laid over the
same ranks in which those who were leaves are inside. No rank is interior in both trees, for any
P: with P even each is a leaf in exactly one, with P odd one rank (rank 0) is a leaf in both.

The tree is in-order over 1..P: with b the lowest set bit of v, its children are v - b/2 and v +
b/2 (or the nearest below that exists), and its parent (v - b) | 2b. This is NCCL's without its
extra root 0, which for odd P would be interior in both. The second is the first mirrored (P even)
or moved on by one (P odd). Children are added in the order left, self, right, which is the order
of ranks in the tree.

With `segments` > 1 each half goes in so many parts, one behind the other, up and down at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from ddp.schedules.schedule import Action, Schedule, Transfer, side_by_side


@dataclass(frozen=True)
class Tree:
    """One binary tree over the ranks."""

    parent: tuple[int | None, ...]  # by rank
    children: tuple[tuple[int, ...], ...]  # by rank, left first

    def depth(self, rank: int) -> int:
        """Edges between `rank` and the root."""
        count = 0
        above = self.parent[rank]
        while above is not None:
            count, above = count + 1, self.parent[above]
        return count

    @property
    def height(self) -> int:
        """The largest depth."""
        level, count = [self.parent.index(None)], -1
        while level:
            level = [child for rank in level for child in self.children[rank]]
            count += 1
        return count


def in_order_tree(size: int) -> Tree:
    """The first tree; vertex v is rank v - 1."""
    parents: list[int | None] = []
    children: list[tuple[int, ...]] = []
    for v in range(1, size + 1):
        b = v & -v
        above = (v - b) | 2 * b
        if above > size:
            above = v - b
        parents.append(above - 1 if above else None)
        half = right = b // 2
        while right and v + right > size:
            right //= 2
        below = ([v - half] if half else []) + ([v + right] if right else [])
        children.append(tuple(child - 1 for child in below))
    return Tree(tuple(parents), tuple(children))


def both_trees(size: int) -> tuple[Tree, Tree]:
    """The two trees of `size` ranks."""
    first = in_order_tree(size)
    if size % 2 == 0:
        there = [size - 1 - rank for rank in range(size)]
    else:
        there = [(rank + 1) % size for rank in range(size)]
    parents: list[int | None] = [None] * size
    children: list[tuple[int, ...]] = [()] * size
    for rank in range(size):
        above = first.parent[rank]
        parents[there[rank]] = None if above is None else there[above]
        children[there[rank]] = tuple(there[child] for child in first.children[rank])
    return first, Tree(tuple(parents), tuple(children))


def double_tree(size: int, segments: int = 1) -> Schedule:
    """Both trees at once; the first takes chunks [0, segments), the second the rest."""
    trees = both_trees(size) if size > 1 else ()
    parts = [_up_and_down(tree, number * segments, segments) for number, tree in enumerate(trees)]
    return Schedule("double-tree", size, 2 * segments, side_by_side(*parts))


def _up_and_down(tree: Tree, first: int, segments: int) -> list[list[Transfer]]:
    height = tree.height
    rounds: list[list[Transfer]] = [[] for _ in range(2 * height + segments - 1)]
    for rank, children in enumerate(tree.children):
        depth = tree.depth(rank)
        for chunk in range(segments):
            lo = first + chunk
            for child in children:
                up = Transfer(child, rank, lo, lo + 1, Action.REDUCE)
                rounds[height - depth - 1 + chunk].append(up)
                down = Transfer(rank, child, lo, lo + 1, Action.COPY)
                rounds[height + depth + chunk].append(down)
    return rounds
