"""A link in the hands of the test, and the checks that bugs are held against."""

from __future__ import annotations

import random

from netstack.arq.errors import GaveUp
from netstack.arq.in_order import InOrderReceiver
from netstack.arq.link import Link, Result, transfer
from netstack.arq.receiver import Receiver
from netstack.arq.segment import OVERHEAD, Ack, Nak, Segment, cut
from netstack.arq.sender import Sender
from netstack.arq.sliding_window import SlidingWindowSender
from netstack.runtime.policy import LinkPolicy
from netstack.transport.rtt import RttEstimator

PAYLOAD = 500
# The lecture's path: a segment a millisecond, and a round trip of 70.
SEGMENT_S = 0.001
RTT_S = 0.07
HOSTILE = {"loss": 0.1, "duplicate": 0.05, "reorder": 0.1, "reorder_s": 0.01, "corrupt": 0.05}


def message(count: int, payload: int = PAYLOAD) -> tuple[bytes, list[Segment]]:
    """Bytes that make `count` segments, no two alike; and these."""
    data = random.Random(count).randbytes(count * payload)
    return data, cut(914, data, payload)


def path(
    seed: object = 1, *, rtt_s: float = RTT_S, loss_there: float = 0.0, **faults: float
) -> Link:
    """The lecture's path, or a longer or shorter one, with these faults in both directions."""
    delay_s = (rtt_s - SEGMENT_S) / 2
    there = LinkPolicy(
        delay_s=delay_s,
        rate_bytes_s=(PAYLOAD + OVERHEAD) / SEGMENT_S,
        queue_bytes=1 << 20,
        **(faults | ({"loss": loss_there} if loss_there else {})),
    )
    return Link(there, LinkPolicy(delay_s=delay_s, **faults), random.Random(f"{seed}"))


def watched(core):
    """The same, with its books checked after every event."""
    take = core.take_outputs

    def take_outputs():
        core.check()
        return take()

    core.take_outputs = take_outputs
    return core


def send(sender: Sender, receiver: Receiver, link: Link) -> Result:
    return transfer(watched(sender), watched(receiver), link)


def indices(sender: Sender) -> list[int]:
    """What it sends now."""
    return [segment.index for segment in sender.take_outputs()]


# -- checks: each raises AssertionError for an implementation that is wrong


def carries_everything(make_sender, make_receiver, seed: int, count: int = 300) -> None:
    """Over a hostile link, the bytes written are the bytes read, in order, once."""
    data, segments = message(count, 20)
    receiver = make_receiver()
    result = send(make_sender(segments), receiver, path(seed, **HOSTILE))
    assert result.gave_up is None, str(result.gave_up)
    assert result.data == data
    assert receiver.done


def keeps_its_window(make_sender, window: int) -> None:
    """Never more than `window` are under way, and that many are."""
    _, segments = message(3 * window)
    sender = make_sender(segments, window)
    sender.start(0.0)
    assert indices(sender) == list(range(window)), "the window is not what was asked for"
    sender.receive(Ack(914, 0, 0, 1), 0.1)
    sender.take_outputs()
    assert sender.unsent - sender.next_index <= window, "more under way than the window"


def waits_for_the_whole_batch(make_sender) -> None:
    """A fixed window: nothing new before the last of the batch is acknowledged."""
    _, segments = message(9)
    sender = make_sender(segments, 3)
    sender.start(0.0)
    assert indices(sender) == [0, 1, 2]
    sender.receive(Ack(914, 0, 0, 1), 0.1)
    sender.receive(Ack(914, 1, 1, 2), 0.1)
    assert indices(sender) == []
    sender.receive(Ack(914, 2, 2, 3), 0.1)
    assert indices(sender) == [3, 4, 5]


def measures_only_what_is_certain(make_sender) -> None:
    """Karn's rule: an answer to a segment that was sent twice is no measurement."""
    _, segments = message(2)
    timer = RttEstimator(1 / 3)
    sender = make_sender(segments, timer=timer)
    sender.start(0.0)
    assert sender.next_deadline() == 1.0
    sender.on_deadline(1.0)
    sender.receive(Ack(914, 0, 0, 1), 1.001)
    assert timer.samples == 0, "the answer may be to the first transmission: 1 s, not 1 ms"


def measures_a_path_that_became_slow(make_sender) -> None:
    """The doubled time-out stays until there is a measurement, or there never is one."""
    data, segments = message(40)
    timer = RttEstimator(0.01)  # expects an answer within 30 ms: it takes 70
    sender = make_sender(segments, timer=timer)
    result = send(sender, InOrderReceiver(), path())
    assert result.data == data
    assert timer.samples > 30, "the path was never measured"
    assert result.timeouts <= 2, "it never learnt to wait"


def stops_asking(make_receiver) -> None:
    """On a path that only overtakes, a NAK asks for what is on its way; this must end."""
    data, segments = message(1000)
    receiver = make_receiver()
    sender = SlidingWindowSender(segments, 70)
    result = send(sender, receiver, path(reorder=0.2, reorder_s=0.01))
    assert result.data == data
    assert result.duplicates < 50, f"{result.duplicates} duplicates, and it still asks"


def gives_up(make_sender) -> None:
    """Six transmissions, 1 s + 2 + 4 + … apart, and then the truth."""
    _, segments = message(3)
    sender = make_sender(segments)
    sender.start(0.0)
    sent = len(sender.take_outputs())
    for _ in range(100):
        now = sender.next_deadline()
        try:
            sender.on_deadline(now)
        except GaveUp:
            assert now == 63.0, now
            assert sent == 6, sent
            return
        sent += indices(sender).count(0)
    raise AssertionError("it never gives up")


def asks_once(make_receiver) -> None:
    """What is missing is asked for when that is seen, and not again with each segment."""
    _, segments = message(10)
    receiver = make_receiver()
    for index in (0, 3, 4, 5):
        receiver.receive(segments[index])
    naks = [answer for answer in receiver.take_outputs() if isinstance(answer, Nak)]
    assert naks == [Nak(914, (1, 2))], naks
