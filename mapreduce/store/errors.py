"""How the chunk store says no.

StoreError
├── NoSuchFile, FileExists, NotAFile, NotAFolder, FolderNotEmpty, BadPath     the namespace
├── NoRoom             too few chunk servers live, or too few have room; nothing was sealed
├── ChunkLost          no server that is listed for a chunk can give it now
├── WriterLost         the writer was silent for longer than its lease: its file is gone
├── MetadataDown       the replicated store was not reached; nothing was changed
└── Unclear            it was asked and did not answer in time: the change may have been made

Damaged                a block on this disk does not match its checksum (never leaves a server)
"""

from __future__ import annotations


class StoreError(Exception):
    """Base of what a caller may meet; definite, but for Unclear."""


class NoSuchFile(StoreError, FileNotFoundError):
    """There is nothing of that name."""


class FileExists(StoreError, FileExistsError):
    """There is something of that name, and it was not to be replaced."""


class NotAFile(StoreError, IsADirectoryError):
    """It is a folder."""


class NotAFolder(StoreError, NotADirectoryError):
    """It is a file."""


class FolderNotEmpty(StoreError, OSError):
    """Something is in it."""


class BadPath(StoreError, ValueError):
    """The name cannot be one."""


class NoRoom(StoreError, OSError):
    """Too few chunk servers live, or have room."""


class ChunkLost(StoreError, OSError):
    """No listed replica of a chunk could be read."""


class WriterLost(StoreError, OSError):
    """The writer's lease ran out before it sealed."""


class MetadataDown(StoreError, OSError):
    """The metadata could not be reached; nothing was changed."""


class Unclear(StoreError, OSError):
    """The change may have been made."""


class Damaged(Exception):
    """What is on the disk is not what was written."""
