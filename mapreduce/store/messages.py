"""What is asked of a chunk server.

    chunk.write     WritePiece -> when it is taken; not yet on the disk for certain
    chunk.finish    FinishChunk -> when it is on the disk under its name
    chunk.read      ReadPiece -> bytes that match their checksums
    chunk.verify    WhichChunk -> whether all of it is here and good
    chunk.clone     WhichChunk -> when it is here too, and the metadata says so

Refusals are Failed with a reason: "absent", "stale" (another version), "damaged", "disk-full",
"out-of-order" (a piece that does not follow the one before).
"""

from __future__ import annotations

from netstack.rpc.schema import message


@message
class WritePiece:
    """A piece of a chunk that is being written; pieces come in order and begin at whole blocks."""

    chunk: str
    version: int
    offset: int
    data: bytes


@message
class FinishChunk:
    """All pieces were written; the chunk has `length` bytes."""

    chunk: str
    version: int
    length: int


@message
class ReadPiece:
    """Bytes of a chunk."""

    chunk: str
    version: int
    offset: int
    length: int


@message
class WhichChunk:
    """A chunk that this server has, or is to have."""

    chunk: str
    version: int
    length: int
