"""Swarms to test in virtual time, and peers that misbehave."""

from __future__ import annotations

import struct

from dht.torrent import messages
from dht.torrent.shape import BLOCK
from dht.torrent.simulation import Node, World, make_content
from dht.torrent.swarm import USELESS_S

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


class SlowDisk(Node):
    """A piece takes a second from its last block to the disk."""

    def _check(self, check):
        data = memoryview(bytes(check.data))
        later = type(check)(check.piece, data, check.expected, check.again)
        self.world.later(1.0, lambda: (Node._check(self, later), self.flush()))


def haves_are_true(world):
    """What anybody is said to have lies, verified, with whoever said it."""
    for node in world.nodes.values():
        for key, (far, _) in node._far.items():
            remote = node.swarm.remotes.get(key)
            for piece, has in enumerate(remote.connection.have if remote else ()):
                assert not has or piece in far.pieces, f"{far.name} told of piece {piece} too early"


# -- the checks that the zoo is shown to, as well as the real thing


def completes_with_a_liar(**parts):
    """One of two seeds lies: it is banned, and all that is taken for complete is the content."""
    world = swarm()
    liar = world.add("liar", seed=True, node=Liar)
    world.add("seed", seed=True, upload_limit=256 << 10)
    peer = world.add("peer", **parts)
    world.introduce()
    assert world.run(all_complete([peer]), 120), "it never completes"
    intact(world, [peer])
    assert peer.swarm.book.is_banned(liar.address), "the liar is not banned"


def tells_only_what_it_has(**parts):
    """Watched at every step: a have is sent after the piece is verified and on disk."""
    world = swarm(pieces=6)
    world.add("seed", seed=True)
    first = world.add("first", node=SlowDisk, **parts)
    world.add("second")
    world.introduce()

    def watched():
        haves_are_true(world)
        return first.completed_at is not None

    assert world.run(watched, 60)


def wastes_little(**parts):
    """Two seeds as fast as each other: the endgame fetches a few blocks twice, and no more."""
    world = swarm(pieces=16)
    for name in ("one", "two"):
        world.add(name, seed=True, upload_limit=128 << 10)
    peer = world.add("peer", **parts)
    world.introduce()
    assert world.run(all_complete([peer]), 200)
    sent = sum(node.swarm.giving.total for node in world.nodes.values() if node is not peer)
    twice = (sent - len(world.content)) // BLOCK
    assert twice <= 4, f"{twice} blocks came twice"


def leaves_the_mute(**parts):
    """A peer that never answers what it was asked for is left, and what it owes is free again."""
    world = swarm()
    world.add("mute", seed=True, node=Mute)
    peer = world.add("peer", **parts)
    world.introduce()
    world.run(lambda: any("sends nothing" in why for why in peer.closed), 120)
    assert any("sends nothing" in why for why in peer.closed), "it waits for the mute for ever"
    world.add("seed", seed=True)
    world.introduce("seed", "peer")
    assert world.run(all_complete([peer]), world.now + 60)


def leaves_the_miser(**parts):
    """Alone with a peer that has all and gives nothing: after USELESS_S, not before, it is left."""
    world = swarm()
    world.add("miser", seed=True, node=Miser, fast=False)  # not even what is allowed while choked
    peer = world.add("peer", **parts)
    world.introduce()
    left = lambda: any("gives nothing and wants nothing" in why for why in peer.closed)  # noqa: E731
    assert world.run(left, USELESS_S + 60), "it waits for the miser for ever"
    assert world.now > USELESS_S, "it has no patience"
    assert not peer.pieces
    world.add("seed", seed=True)
    world.introduce("seed", "peer")
    assert world.run(all_complete([peer]), world.now + 60)
    intact(world, [peer])


def goes_on_after_a_death(**parts):
    """What a dead peer was asked for is asked of the living."""
    world = swarm()
    dying = world.add("dying", seed=True, upload_limit=32 << 10)
    world.add("seed", seed=True, upload_limit=256 << 10)
    peer = world.add("peer", **parts)
    world.introduce()
    assert world.run(lambda: dying.swarm.giving.total > BLOCK, 60)
    dying.kill()
    assert world.run(all_complete([peer]), 150), "it waits for the dead"
    peer.swarm.picker.check()
