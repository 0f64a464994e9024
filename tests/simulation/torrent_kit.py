"""Swarms to test in virtual time, and peers that misbehave."""

from __future__ import annotations

import struct

from dht.torrent import messages
from dht.torrent.shape import BLOCK
from dht.torrent.simulation import Node, World, make_content

PIECES = 24


def swarm(seed=1, pieces=PIECES, piece_length=4 * BLOCK):
    return World(seed, *make_content(pieces, piece_length))


def all_complete(nodes):
    return lambda: all(node.completed_at is not None for node in nodes)


def intact(world, nodes):
    """What they have is the content, byte for byte."""
    for node in nodes:
        assert b"".join(node.pieces[n] for n in range(world.metainfo.piece_count)) == world.content


class Liar(Node):
    """Sends wrong bytes, in one block of each piece."""

    def block(self, piece, begin, length):
        data = super().block(piece, begin, length)
        return bytes(length) if begin == 0 else data


class Mute(Node):
    """Unchokes, and never sends a block."""

    def block(self, piece, begin, length):
        return b""

    def _send(self, key, data):
        if data[4:5] != bytes((messages.PIECE,)):
            super()._send(key, data)


class Miser(Node):
    """Has everything and chokes everybody, for ever."""

    def _send(self, key, data):
        unchoke = messages.simple(messages.UNCHOKE)
        super()._send(key, data.replace(unchoke, b""))


class Noise(Node):
    """After its handshake it sends nonsense."""

    payload = struct.pack("!IB", 0x7FFFFFFF, messages.PIECE)

    def _send(self, key, data):
        super()._send(key, data)
        if self.payload and messages.PROTOCOL in data:
            super()._send(key, self.payload)


class Loris(Node):
    """Begins a message and sends a byte of it now and then."""

    def join(self, key, far, far_key):
        super().join(key, far, far_key)
        self.world.later(1.0, lambda: self._drip(key))

    def _drip(self, key):
        if key in self._far:
            Node._send(self, key, b"\0")
            self.world.later(9.0, lambda: self._drip(key))

    def _send(self, key, data):
        if messages.PROTOCOL in data:
            super()._send(key, data[: messages.HANDSHAKE_SIZE] + b"\0\0\0\x0d\6")
