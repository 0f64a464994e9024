"""What a node of the ring raises."""

from __future__ import annotations


class NotMember(Exception):
    """This node does not belong to the ring (yet, or any more): ask another."""


class BrokenNode(AssertionError):
    """An invariant of one node does not hold; the message tells how it came to that."""
