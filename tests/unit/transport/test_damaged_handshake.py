"""What a line that damages three tenths has shown: ids, answers and probes that were trusted."""

from __future__ import annotations

import pytest
from transport_kit import NOW, Pair, entropy

from netstack.transport.errors import PeerRejected
from netstack.transport.handshake import Responder
from netstack.transport.packet import OVERHEAD, RESPONSE
from security.identity import Authority


def answered(change):
    """A handshake whose RESPONSEs are changed: `change(data, how many before)`, None: lost."""
    pair = Pair(connect=False)
    count = iter(range(1000))
    deliver = pair.deliver

    def damaged(source, data):
        if source == "server" and data[0] == RESPONSE:
            data = change(data, next(count))
        if data is not None:
            deliver(source, data)

    pair.deliver = damaged
    return pair


def flipped(data, place):
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize("place", range(9, 17))
def test_a_response_with_another_id_than_the_responders_is_none(place):
    """Bytes 9 to 16 name the responder's connection: who believes them speaks to nobody."""
    pair = answered(lambda data, n: flipped(data, place) if n == 0 else data)
    assert pair.run(4.0, lambda: pair.open)
    assert pair.client.connection.remote_id == pair.server.connection.local_id


def test_responses_that_were_damaged_on_their_way_are_no_other_cluster():
    """Each is another: whoever does not belong to us gives the same answer every time."""
    pair = answered(lambda data, n: flipped(data, 100 + n) if n < 5 else data)
    assert pair.run(5.0, lambda: pair.open), pair.client.connection.error


def test_a_response_of_another_cluster_is_told_within_a_few_copies():
    pair = Pair(connect=False)
    stranger = Authority.create("c2", now=NOW, entropy=entropy(7))
    foreign = pair.context(stranger.issue("server", "echo", now=NOW, entropy=entropy(8)), 22)
    answers = []

    def accept(data):
        answers.append(answers[0] if answers else Responder(foreign, data, pair.now).take()[0])
        pair.deliver("server", answers[-1])

    pair.accept = accept
    pair.run(4.0, lambda: pair.client.connection.state == "closed")
    assert type(pair.client.connection.error) is PeerRejected
    assert len(answers) <= 4


def test_each_probe_carries_what_has_not_arrived():
    """RFC 9002 §6.2.4: one that is lost too must not leave the rest to bare PINGs."""
    pair = Pair()
    pair.run(1.0)
    client = pair.client.connection
    pair.cut = {"client"}
    client.write(client.streams.open(), bytes(3_000), fin=True)
    pair.flush()
    before = len(pair.data_packets("client"))
    assert pair.run(5.0, lambda: client.recovery.probes_sent == 4) is True
    probes = [data for _, data in pair.data_packets("client")[before:]]
    assert len(probes) == 4
    assert min(map(len, probes)) > OVERHEAD + 500
    assert max(map(len, probes)) <= client.outgoing.size  # what has come is told again in the rest
