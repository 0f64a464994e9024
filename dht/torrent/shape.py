"""How content is cut: into pieces, which have hashes; and those into blocks, to ask for."""

from __future__ import annotations

from typing import Final

BLOCK: Final = 16_384  # bytes; peers close on requests for more


class Shape:
    """How many pieces there are and how long each is: what requests are held against."""

    def __init__(self, count: int, piece_length: int, length: int) -> None:
        self.count = count
        self.piece_length = piece_length
        self.length = length

    def __repr__(self) -> str:
        return f"<Shape {self.count} × {self.piece_length}>"

    def piece_size(self, piece: int) -> int:
        """Bytes of that piece."""
        return min(self.piece_length, self.length - piece * self.piece_length)

    def blocks(self, piece: int) -> int:
        """Requests that it takes."""
        return -(-self.piece_size(piece) // BLOCK)

    def block_size(self, piece: int, begin: int) -> int:
        """Bytes of the block there."""
        return min(BLOCK, self.piece_size(piece) - begin)
