"""Both sides in the hands of a test, and the checks that the zoo's planted bugs must fail.

Each check takes the class it judges, so that it can be given an honest one and a bad one.
"""

from __future__ import annotations

import random

from netstack.delivery.back_off import WITHOUT_JITTER
from netstack.delivery.client import Answered, Client, Failed, Ports, Send
from netstack.delivery.errors import GaveUp
from netstack.delivery.ledger import Ledger
from netstack.delivery.messages import (
    NOT_ABOVE,
    Open,
    Opened,
    Refusal,
    Reply,
    Request,
    decode,
    encode,
)
from netstack.delivery.nonce_table import NonceTable
from netstack.delivery.restart import Cure, start
from netstack.delivery.server import Persist, SendTo, Server
from netstack.delivery.suppressor import EXECUTE, IGNORE, Refuse
from netstack.delivery.terms import Terms
from netstack.transport.rtt import RttEstimator

# An estimator that has seen nothing waits three times what it is told: here 3 s, exactly.
INITIAL_S = 1.0
PATIENT = Terms(rtt_s=1000.0, tries_max=5)
SHORT = Terms(rtt_s=1.0, patience_rtts=5, tries_max=99)
ID = b"client"


def new_client(kind=Client, terms=PATIENT, *, back_off=WITHOUT_JITTER, **options):
    estimator = RttEstimator(INITIAL_S)
    rng = random.Random(1)
    return kind(ID, terms, rng, estimator=estimator, back_off=back_off, **options)


def sent(client) -> list:
    """The messages that it wants to send; it must have nothing to tell."""
    outputs = client.take_outputs()
    assert all(isinstance(output, Send) for output in outputs), outputs
    return [decode(output.datagram) for output in outputs]


def told(client) -> list:
    """The outcomes; it must have nothing to send."""
    outputs = client.take_outputs()
    assert all(isinstance(output, (Answered, Failed)) for output in outputs), outputs
    return outputs


def wake(client) -> float:
    """Let the time be that of its next deadline."""
    now = client.next_deadline()
    client.on_deadline(now)
    client.check()
    return now


def reply(client, nonce: int, now: float, body: bytes = b"ok") -> None:
    client.receive(encode(Reply(ID, nonce, body)), now)


def request(nonce: int, body: bytes = b"deposit 1", *, client: bytes = ID, port: int = 0):
    return Request(client, nonce, port, body)


def offer(server, message, now: float) -> list:
    """The server's answers to one message."""
    server.receive(encode(message), "here", now)
    return [decode(o.datagram) for o in server.take_outputs() if isinstance(o, SendTo)]


def new_server(suppressor, *, kind=Server, **options):
    return kind(Ledger(), suppressor, **options)


# -- checks of a client


def keeps_karns_rule(kind):
    client = new_client(kind)
    nonce = client.ask(b"x", 0.0)
    assert wake(client) == 3.0
    reply(client, nonce, 3.5)
    assert client.estimator.samples == 0, "a reply after two copies is no sample"
    client.take_outputs()
    client.ask(b"y", 4.0)
    assert client.next_deadline() == 4.0 + 6.0, "the back-off stays for the next request"


def resets_its_back_off_after_a_clean_sample(kind):
    client = new_client(kind)
    client.ask(b"x", 0.0)
    wake(client)
    reply(client, 1, 3.5)
    client.ask(b"y", 4.0)
    reply(client, 2, 5.0)
    assert client.estimator.samples == 1
    client.ask(b"z", 5.0)
    assert client.next_deadline() == 5.0 + 3.0, "srtt 1 s, rttvar 0.5 s: 3 s, and no back-off"


def sends_as_many_copies_as_it_may(kind):
    client = new_client(kind)
    client.ask(b"x", 0.0)
    times = []
    while client.next_deadline() is not None:
        times.append(wake(client))
    *copies, outcome = client.take_outputs()
    assert len(copies) == 5
    assert isinstance(outcome.error, GaveUp)
    assert times == [3.0, 9.0, 21.0, 45.0, 93.0], "twice the wait each time, the last for nothing"


def gives_up_in_time_and_says_so(kind):
    client = new_client(kind, SHORT)
    nonce = client.ask(b"x", 10.0)
    assert wake(client) == 13.0
    assert len(sent(client)) == 2
    assert wake(client) == 15.0, "five RTT after the first copy, whatever the timer says"
    (outcome,) = told(client)
    assert outcome.nonce == nonce
    assert isinstance(outcome.error, GaveUp)
    assert str(outcome.error) == (
        "no answer after 2 tries in 5 s: the request may have been executed once, more than once "
        "or never"
    )
    assert client.next_deadline() is None


def gives_all_copies_one_nonce(kind):
    client = new_client(kind)
    client.ask(b"x", 0.0)
    for _ in range(3):
        wake(client)
    assert {message.nonce for message in sent(client)} == {1}


def asks_for_a_port_before_every_request(kind):
    client = new_client(kind, ports=Ports.OF_A_REQUEST)
    for nonce, port in ((1, 7), (2, 8)):
        client.ask(b"x", 0.0)
        assert sent(client) == [Open(ID, nonce)]
        client.receive(encode(Opened(ID, nonce, port)), 1.0)
        assert sent(client) == [Request(ID, nonce, port, b"x")]


# -- checks of a suppressor: `make` is given the horizon in seconds


def executes_a_nonce_once_and_answers_again(make):
    server = new_server(make(10.0))
    assert offer(server, request(1), 0.0) == [Reply(ID, 1, b"balance 1")]
    assert offer(server, request(2), 0.0) == [Reply(ID, 2, b"balance 2")]
    assert offer(server, request(1), 5.0) == [Reply(ID, 1, b"balance 1")]
    assert (server.executions, server.suppressed, server.application.balance) == (2, 1, 2)


def remembers_for_as_long_as_copies_can_arrive(make, terms=SHORT):
    """The last copy leaves as the sender gives up, and takes almost a whole RTT."""
    table = make(terms.horizon_s)
    first_copy_arrives = 0.1 * terms.rtt_s
    last_copy_arrives = terms.give_up_s + 0.9 * terms.rtt_s
    assert table.admit(request(1), first_copy_arrives) is EXECUTE
    table.executed(request(1), b"ok", first_copy_arrives)
    assert table.admit(request(1), last_copy_arrives) is not EXECUTE


def forgets_at_the_horizon(make):
    table = make(10.0)
    table.executed(request(1), b"ok", 100.0)
    assert table.admit(request(1), 109.999) is not EXECUTE
    assert len(table) == 1
    assert table.admit(request(1), 110.0) is EXECUTE
    assert len(table) == 0, "what is forgotten takes no room"


def refuses_what_is_not_above_the_highest(make):
    table = make(10.0)
    table.executed(request(5), b"ok", 0.0)
    assert table.admit(request(4), 1.0) == Refuse(NOT_ABOVE)
    assert table.admit(request(5), 1.0) == Refuse(NOT_ABOVE)
    assert table.admit(request(6), 1.0) is EXECUTE
    assert table.admit(request(5, client=b"other"), 1.0) is EXECUTE


def ignores_what_it_has_no_room_for(make):
    """`make` gives one with room for two clients of one request each."""
    table = make(10.0)
    for name in (b"a", b"b"):
        assert table.admit(request(1, client=name), 0.0) is EXECUTE
        table.executed(request(1, client=name), b"ok", 0.0)
    assert table.admit(request(1, client=b"c"), 1.0) is IGNORE
    assert table.admit(request(1, client=b"a"), 1.0) is not EXECUTE, "none was forgotten for it"
    assert len(table) == 2
    assert table.admit(request(1, client=b"c"), 10.0) is EXECUTE


def serves_a_port_once(make):
    server = new_server(make(10.0))
    (opened,) = offer(server, Open(ID, 1), 0.0)
    message = request(1, port=opened.port)
    assert offer(server, message, 1.0) == [Reply(ID, 1, b"balance 1")]
    (refusal,) = offer(server, message, 1.0)
    assert isinstance(refusal, Refusal)
    assert server.application.balance == 1


def lets_a_port_rest(make):
    """`make` gives one with two ports."""
    ports = make(10.0)
    port = ports.open(0.0)
    ports.executed(request(1, port=port), b"ok", 1.0)
    other = ports.open(2.0)
    assert other != port
    assert ports.open(10.999) is None
    assert ports.open(11.0) == port


# -- checks of a server and of its next life


def makes_an_execution_stable_before_it_answers(kind):
    server = new_server(NonceTable(10.0), kind=kind)
    server.receive(encode(request(1)), "here", 0.0)
    persist, answer = server.take_outputs()
    assert isinstance(persist, Persist)
    assert isinstance(answer, SendTo)
    server.receive(encode(request(1)), "here", 1.0)
    assert [type(output) for output in server.take_outputs()] == [SendTo]


def next_life(make, cure, image, now, *, begin=start, terms=SHORT):
    return begin(Ledger(), make(terms.horizon_s), cure, terms, image, now)


def image_of(server) -> bytes:
    return [o for o in server.take_outputs() if isinstance(o, Persist)][-1].image


def executed_after_a_kill(make, cure, begin=start) -> int:
    """Executions of one request whose reply was lost, whose server was killed, asked again.

    The last copy is as late as the terms allow.
    """
    first = next_life(make, cure, None, 0.0, begin=begin)
    port = first.suppressor.open(0.0)
    first.receive(encode(request(1, port=port)), "here", 0.0)
    second = next_life(make, cure, image_of(first), 0.05, begin=begin)
    for now in (0.1, 1.0, SHORT.give_up_s + 0.9 * SHORT.rtt_s):
        offer(second, request(1, port=port), now)
    return second.application.balance


def stays_silent_until_old_copies_are_gone(begin):
    assert executed_after_a_kill(NonceTable, Cure.SILENCE, begin) == 1
    first = next_life(NonceTable, Cure.SILENCE, None, 0.0, begin=begin)
    second = next_life(NonceTable, Cure.SILENCE, image_of(first), 100.0, begin=begin)
    assert offer(second, request(9), 100.0 + SHORT.horizon_s - 0.001) == []
    assert offer(second, request(9), 100.0 + SHORT.horizon_s) == [Reply(ID, 9, b"balance 1")]
