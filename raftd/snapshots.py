"""A snapshot on its way in: chunks in order, assembled in memory (§7, figure 13)."""

from __future__ import annotations

from raftd.messages import InstallSnapshot


class IncomingSnapshot:
    """The chunks received so far of the newest snapshot offered."""

    def __init__(self) -> None:
        self._of = (0, 0)  # index, term of the leader that sends it
        self._data = bytearray()
        self.refused = 0  # the index of one that was too large to be taken

    def __repr__(self) -> str:
        return f"<IncomingSnapshot index={self._of[0]} bytes={len(self._data)}>"

    @property
    def offset(self) -> int:
        """The next byte wanted."""
        return len(self._data)

    def receive(self, chunk: InstallSnapshot) -> bytes | None:
        """Take a chunk; returns the whole when it is complete. Other chunks are asked for again."""
        self.refused = 0
        of = (chunk.index, chunk.term)
        if of != self._of:
            self._of, self._data = of, bytearray()
        if chunk.offset != len(self._data) or chunk.offset + len(chunk.data) > chunk.total:
            return None
        self._data += chunk.data
        if len(self._data) < chunk.total:
            return None
        data = bytes(self._data)
        self.forget()
        return data

    def refuse(self, chunk: InstallSnapshot) -> bool:
        """Take nothing of a snapshot that is too large; True if that is news."""
        news, self.refused = self.refused != chunk.index, chunk.index
        return news

    @property
    def trouble(self) -> str:
        """What an operator should see to."""
        return "the leader's snapshot is too large to be taken; delete keys" if self.refused else ""

    def forget(self) -> None:
        """Drop what has come."""
        self._of, self._data = (0, 0), bytearray()
