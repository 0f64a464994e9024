"""Majorities, and majorities of two configurations at once. Plain arithmetic, no state."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping


def majority(count: int) -> int:
    """How many of `count` are more than half."""
    return count // 2 + 1


def committed_index(voters: Collection[str], match: Callable[[str], int]) -> int:
    """The highest index that a majority of `voters` holds; nobody at all holds everything."""
    if not voters:
        return 1 << 62
    held = sorted((match(name) for name in voters), reverse=True)
    return held[majority(len(held)) - 1]


def joint_committed_index(
    voters: Collection[str], outgoing: Collection[str], match: Callable[[str], int]
) -> int:
    """In joint consensus both majorities must hold it (§6)."""
    return min(committed_index(voters, match), committed_index(outgoing, match))


def has_majority(voters: Collection[str], members: Collection[str]) -> bool:
    """Whether `members` contains a majority of `voters`."""
    if not voters:
        return True
    return sum(name in members for name in voters) >= majority(len(voters))


def has_joint_majority(
    voters: Collection[str], outgoing: Collection[str], members: Collection[str]
) -> bool:
    """Whether `members` contains a majority of both configurations."""
    return has_majority(voters, members) and has_majority(outgoing, members)


def vote_is_lost(
    voters: Collection[str], outgoing: Collection[str], votes: Mapping[str, bool]
) -> bool:
    """Whether so many have refused that the candidate cannot win any more."""
    possible = [name for name in (*voters, *outgoing) if votes.get(name, True)]
    return not has_joint_majority(voters, outgoing, possible)
