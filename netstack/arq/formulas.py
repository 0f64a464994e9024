"""What each sender should reach, on paper. The tests hold the code against it.

    S  bytes of a segment          RTT  seconds from sending one to its acknowledgement, its own
    W  segments of a window             transmission among them
    t  seconds that the bottleneck      p  chance that a segment or its acknowledgement is lost
       takes for a segment: S / rate

The textbooks write a = propagation / t; then RTT = (1 + 2a) t, and dividing by the rate gives
their efficiencies: lock-step (1 - p) / (1 + 2a) if the time-out is one RTT, sliding window
min(1, W / (1 + 2a)).

All throughputs are bytes a second, and those of a message that is long: the first round trip is
not counted. Under loss, no answer is lost: they are cumulative, and the next makes good a lost one.
"""

from __future__ import annotations


def lock_step(segment_bytes: float, rtt_s: float, loss: float = 0.0, rto_s: float = 0.0) -> float:
    """S / (RTT + RTO p / (1 - p)): each segment waits for p / (1 - p) time-outs on average."""
    return segment_bytes / (rtt_s + rto_s * loss / (1 - loss))


def fixed_window(
    segment_bytes: float,
    rtt_s: float,
    window: int,
    segment_s: float,
    loss: float = 0.0,
    rto_s: float = 0.0,
) -> float:
    """W S / (RTT + (W - 1) t): the last of a batch leaves (W - 1) t after the first.

    Under loss, with a receiver that takes segments in order only: there is one timer, which starts
    anew with each answer that brings something new. So a segment that is lost, not being the first
    of its batch, is sent again an RTO after the answer to the one before it, RTT - t later than it
    left itself; and an RTO after that, if it is lost again.
    """
    batch_s = rtt_s + (window - 1) * segment_s
    waiting_s = window * rto_s * loss / (1 - loss) + (window - 1) * loss * (rtt_s - segment_s)
    return window * segment_bytes / (batch_s + waiting_s)


def sliding_window(
    segment_bytes: float,
    rtt_s: float,
    window: int,
    rate_bytes_s: float,
    loss: float = 0.0,
    rto_s: float = 0.0,
) -> float:
    """min(rate, W S / RTT): the link's, or a window a round trip.

    Under loss, with a receiver that takes segments in order only ("go back N"): after a time-out
    the j-th answer comes RTT + (j div W) max(RTT, W t) + (j mod W) t later, and from the last one
    before the next loss it is an RTO to the next time-out. The run of segments between two losses
    is geometric, with q = 1 - p: q / p of them on average, and b = q^W / (1 - q^W) full windows.
    """
    segment_s = segment_bytes / rate_bytes_s
    if not loss:
        return min(rate_bytes_s, window * segment_bytes / rtt_s)
    q = 1 - loss
    windows = q**window / (1 - q**window)
    rest_s = (q / loss - window * windows) * segment_s
    run_s = rtt_s + windows * max(rtt_s, window * segment_s) + rest_s
    return segment_bytes * q / loss / (rto_s + q * run_s)


def window_for(segment_bytes: float, rtt_s: float, rate_bytes_s: float) -> float:
    """RTT × rate in segments: the smallest window that keeps the bottleneck busy."""
    return rtt_s * rate_bytes_s / segment_bytes


def sent_again(message_bytes: float, loss: float) -> float:
    """L p / (1 - p): what must be sent again if that is only what was lost.

    A segment takes 1 / (1 - p) transmissions on average, one of which is not a repeat.
    """
    return message_bytes * loss / (1 - loss)
