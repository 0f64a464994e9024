"""What may go wrong, as one small tree.

TorrentError
├── Malformed          bytes that are no bencode
├── BadTorrent         a .torrent or magnet link that must not be used, and why
├── ProtocolViolation  a peer broke the protocol: its connection is closed
├── TrackerError       a tracker answered with a failure, or not at all
└── StorageError       the disk, or what lies on it, is not as it must be
"""

from __future__ import annotations


class TorrentError(Exception):
    """Base of all errors of this package."""


class Malformed(TorrentError):
    """Not bencode; `offset` is the byte where that shows."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(f"{message} (at byte {offset})")
        self.offset = offset


class BadTorrent(TorrentError):
    """A torrent that must not be used."""


class ProtocolViolation(TorrentError):
    """A peer did what no peer may do."""


class TrackerError(TorrentError):
    """A tracker said no, said nonsense, or said nothing in time."""


class StorageError(TorrentError):
    """Content can be neither read nor written."""
