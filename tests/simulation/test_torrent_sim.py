"""Whole swarms in virtual time: they complete, survive, and bear with peers that misbehave."""

from __future__ import annotations

import struct

import pytest
from torrent_kit import (
    Liar,
    Loris,
    Miser,
    Mute,
    Noise,
    all_complete,
    intact,
    leaves_the_miser,
    swarm,
)

from dht.torrent import messages
from dht.torrent.remote import SNUB_S
from dht.torrent.shape import BLOCK
from dht.torrent.simulation import fluid_bound_s
from dht.torrent.strategies import STRATEGIES

RATE = 256 << 10


class TestSwarms:
    @pytest.mark.parametrize("strategy", sorted(STRATEGIES))
    @pytest.mark.parametrize("fast", [True, False])
    def test_complete(self, strategy, fast):
        world = swarm()
        world.add("seed", seed=True, fast=fast)
        peers = [world.add(f"p{n}", strategy=strategy) for n in range(4)]
        world.introduce()
        assert world.run(all_complete(peers), 120)
        intact(world, peers)
        for peer in peers:
            peer.swarm.picker.check()
            assert peer.swarm.wasted <= peer.swarm.downloaded * 0.1

    @pytest.mark.parametrize(
        ("pieces", "piece_length"),
        [(1, BLOCK), (1, 3), (2, BLOCK), (7, 1000), (3, 3 * BLOCK + 17), (50, 16)],
    )
    def test_of_any_shape_complete(self, pieces, piece_length):
        """A last piece of one byte less, one block, no whole block, odd lengths."""
        world = swarm(pieces=pieces, piece_length=piece_length)
        world.add("seed", seed=True)
        peer = world.add("peer")
        world.introduce()
        assert world.run(all_complete([peer]), 60)
        intact(world, [peer])

    def test_the_same_seed_is_the_same_history(self):
        def history():
            world = swarm(seed=7)
            source = world.add("seed", seed=True, upload_limit=RATE)
            peers = [world.add(f"p{n}", upload_limit=RATE) for n in range(3)]
            world.introduce()
            world.run(all_complete(peers), 300)
            return [(p.fetched, p.completed_at) for p in peers], source.swarm.giving.total

        assert history() == history()

    def test_with_a_capped_seed_is_within_half_of_the_fluid_bound(self):
        world = swarm(pieces=64)
        world.add("seed", seed=True, upload_limit=RATE)
        peers = [world.add(f"p{n}", upload_limit=RATE) for n in range(4)]
        world.introduce()
        assert world.run(all_complete(peers), 300)
        bound_s = fluid_bound_s(len(world.content), RATE, [RATE] * 4)
        assert max(peer.completed_at for peer in peers) < 1.5 * bound_s

    def test_rarest_first_survives_the_death_of_the_seed(self):
        """Once each piece is out, the seed may go: all complete from one another."""
        world = swarm(pieces=48)
        source = world.add("seed", seed=True, upload_limit=RATE)
        peers = [world.add(f"p{n}", strategy="rarest", upload_limit=RATE // 4) for n in range(6)]
        world.introduce()
        out = lambda: all(world.holders(piece) > 1 for piece in range(48))  # noqa: E731
        assert world.run(out, 300)
        assert not all_complete(peers)()
        sent = source.swarm.giving.total / len(world.content)
        source.kill()
        assert world.run(all_complete(peers), world.now + 300)
        intact(world, peers)
        assert sent < 1.6

    def test_a_peer_that_comes_to_have_everything_serves_as_a_seed(self):
        world = swarm()
        source = world.add("seed", seed=True)
        first = world.add("first")
        world.introduce()
        assert world.run(all_complete([first]), 60)
        source.kill()
        second = world.add("second")
        world.introduce("first", "second")
        assert world.run(all_complete([second]), 120)
        assert first.swarm.giving.total == len(world.content)

    def test_peers_are_found_through_peers(self):
        """`b` is told of nobody but `a`, which knows the seed (BEP 11)."""
        world = swarm()
        source = world.add("seed", seed=True, upload_limit=RATE // 32)
        a, b = world.add("a"), world.add("b")
        world.introduce("seed", "a")
        world.run(lambda: bool(a.swarm.remotes), 5)
        b.swarm.learn([a.address], world.now)
        b.flush()
        knows = lambda: any(  # noqa: E731
            r.listens == source.address for r in b.swarm.remotes.values()
        )
        assert world.run(knows, 200)

    def test_a_magnet_link_is_enough(self):
        world = swarm()
        world.add("seed", seed=True)
        peer = world.add("peer", magnet=True)
        world.introduce()
        assert world.run(all_complete([peer]), 60)
        intact(world, [peer])
        assert peer.swarm.info.info == world.metainfo.info

    def test_two_that_call_one_another_keep_one_connection(self):
        world = swarm()
        a, b = world.add("a"), world.add("b")
        for node, other in ((a, b), (b, a)):
            node.swarm.learn([other.address], world.now)
        a.flush()
        b.flush()
        world.run(lambda: world.now > 1, 2)
        assert len(a.swarm.remotes) == len(b.swarm.remotes) == 1

    def test_blocks_of_a_peer_that_dies_are_asked_of_others(self):
        world = swarm()
        dying = world.add("dying", seed=True, upload_limit=RATE // 8)
        world.add("seed", seed=True, upload_limit=RATE)
        peer = world.add("peer")
        world.introduce()
        assert world.run(lambda: dying.swarm.giving.total > BLOCK, 60)
        dying.kill()
        assert world.run(all_complete([peer]), 120)
        intact(world, [peer])


class TestHostilePeers:
    def test_who_sends_wrong_bytes_is_banned_and_the_piece_comes_from_elsewhere(self):
        world = swarm()
        liar = world.add("liar", seed=True, node=Liar)
        world.add("seed", seed=True, upload_limit=RATE)
        peer = world.add("peer")
        world.introduce()
        assert world.run(all_complete([peer]), 120)
        intact(world, [peer])
        (banned,) = [told for told in peer.told if told.kind == "peer.banned"]
        assert banned.fields["peer"] == f"127.0.0.1:{liar.address[1]}"
        assert peer.swarm.book.is_banned(liar.address)

    @pytest.mark.parametrize("seed", range(4))
    def test_also_where_others_sent_the_rest_of_the_piece(self, seed):
        """Only the liar: those who shared the piece with it are not touched."""
        world = swarm(seed=seed, pieces=8, piece_length=16 * BLOCK)
        liar = world.add("liar", seed=True, node=Liar, upload_limit=RATE)
        honest = [world.add(f"s{n}", seed=True, upload_limit=RATE) for n in range(2)]
        peer = world.add("peer", strategy="parallel")
        world.introduce()
        assert world.run(all_complete([peer]), 300)
        intact(world, [peer])
        assert peer.swarm.book.is_banned(liar.address)
        assert not any(peer.swarm.book.is_banned(node.address) for node in honest)

    def test_with_a_liar_alone_nothing_is_taken_for_complete(self):
        world = swarm()
        world.add("liar", seed=True, node=Liar)
        peer = world.add("peer")
        world.introduce()
        assert not world.run(all_complete([peer]), 60)
        assert peer.pieces == {}

    def test_who_owes_blocks_for_long_is_asked_no_more(self):
        """Endless silence after an unchoke costs SNUB_S, not the download."""
        world = swarm()
        world.add("mute", seed=True, node=Mute)
        world.add("seed", seed=True, upload_limit=RATE)
        peer = world.add("peer")
        world.introduce()
        assert world.run(all_complete([peer]), 4 * SNUB_S)
        intact(world, [peer])

    def test_endless_choking_keeps_nobody(self):
        world = swarm()
        world.add("miser", seed=True, node=Miser)
        world.add("seed", seed=True)
        peer = world.add("peer")
        world.introduce()
        assert world.run(all_complete([peer]), 30)

    def test_with_one_that_chokes_for_ever_alone_it_is_left_in_the_end(self):
        leaves_the_miser()

    def test_a_slow_loris_is_ended(self):
        world = swarm()
        world.add("loris", node=Loris)
        peer = world.add("peer", seed=True)
        world.introduce()
        assert world.run(lambda: any("too long over" in why for why in peer.closed), 120)

    @pytest.mark.parametrize(
        ("payload", "why"),
        [
            (struct.pack("!IB", 0x7FFFFFFF, messages.PIECE), "a message of"),
            (struct.pack("!IBI", 5, messages.HAVE, 10**6), "piece 1000000"),
            (struct.pack("!IBIII", 13, messages.REQUEST, 0, 0, 1 << 20), "a request for"),
            (struct.pack("!IBII", 9, messages.PIECE, 0, 0), "nobody asked"),
            (struct.pack("!IB", 2, messages.CHOKE) + b"x", "bytes, not"),
            (struct.pack("!IB", 3, messages.EXTENDED) + b"\1x", "metadata message"),
            (struct.pack("!IB", 3, messages.EXTENDED) + b"\2x", "peer exchange"),
        ],
    )
    def test_malformed_messages_end_the_connection_and_nothing_else(self, payload, why):
        noisy = type("It", (Noise,), {"payload": payload})
        world = swarm()
        world.add("noise", node=noisy)
        world.add("seed", seed=True, upload_limit=RATE)
        peer = world.add("peer")
        world.introduce()
        assert world.run(all_complete([peer]), 60)
        assert any(why in reason for reason in peer.closed), peer.closed
        intact(world, [peer])
