"""The limits of clocks, losses, packet sizes and windows: from both sides, as in
test_boundaries.py. A time is let pass up to the limit; at it something happens.
"""

from __future__ import annotations

import itertools

from boundaries_kit import Limit, pair_of, table
from transport_kit import CLIENT, NOW, SERVER, Pair

from netstack.transport import handshake
from netstack.transport.acks import AckState
from netstack.transport.config import BASE_MTU
from netstack.transport.congestion.base import INITIAL_PACKETS, MINIMUM_PACKETS, Acked
from netstack.transport.congestion.bbr import MINIMUM_PACKETS as BBR_MINIMUM_PACKETS
from netstack.transport.congestion.bbr import Bbr
from netstack.transport.congestion.hystart import (
    RTT_THRESHOLD_MAX_S,
    RTT_THRESHOLD_MIN_S,
    SAMPLES_MIN,
    SLOWED_ROUNDS,
    HyStart,
)
from netstack.transport.congestion.newreno import NewReno
from netstack.transport.connection import RESPONDER_TIMEOUTS
from netstack.transport.errors import ConnectTimeout
from netstack.transport.mtu import (
    BLACK_HOLE_LOSSES,
    BLACK_HOLE_TIMEOUTS,
    PROBES_MAX,
    RAISE_S,
    STEP_MIN,
    MtuDiscovery,
)
from netstack.transport.pacing import BURST_PACKETS, BURST_S, Pacer
from netstack.transport.packet import OVERHEAD
from netstack.transport.recovery import (
    PACKET_THRESHOLD,
    PERSISTENT_TIMEOUTS,
    TIME_THRESHOLD,
    Recovery,
    SentPacket,
)
from netstack.transport.rtt import GRANULARITY_S, RTO_S_MAX, RTO_S_MIN, RttEstimator
from netstack.transport.tokens import NEW_TOKEN_S, RETRY_S, TokenMint

# The least that a clock's reading can be below a limit, for times of this size.
TICK = 1e-6

IDLE_S, KEEP_ALIVE_S = 6.0, 2.0


# -- clocks of a connection


def stays_open_for(silence_s):
    connection = pair_of(idle_timeout_s=IDLE_S, keep_alive_s=0.0).client.connection
    connection.on_deadline(connection._last_received + silence_s)
    return connection.state == "open"


def responder_is_patient_for(timeouts):
    connection = pair_of().server.connection
    connection.recovery.timeouts = timeouts
    return not connection.patience_is_over


def says_nothing_for(silence_s):
    connection = pair_of(idle_timeout_s=IDLE_S, keep_alive_s=KEEP_ALIVE_S).client.connection
    now = max(connection._last_received, connection.outgoing.last_sent) + silence_s
    connection.on_deadline(now)
    return not connection.datagrams_to_send(now)


def dialling():
    context = Pair(connect=False).context(CLIENT, 11)
    return handshake.Initiator(context, remote_static=None, token=b"", now=0.0)


def initiator_tries_for(waited_s):
    return still_there(dialling(), waited_s)


def responder_waits_for(waited_s):
    context = Pair(connect=False).context(SERVER, 22)
    return still_there(handshake.Responder(context, dialling().take()[0], 0.0), waited_s)


def still_there(side, waited_s):
    try:
        side.on_deadline(waited_s)
    except ConnectTimeout:
        return False
    return True


def wait_is_doubled_after(resends):
    """Between the INITIALs of a dial that nobody answers, and that is very patient."""
    initiator = dialling()
    initiator._give_up_at = 60.0
    times = [0.0]
    for _ in range(resends + 1):
        times.append(initiator.next_deadline())
        initiator.on_deadline(times[-1])
    waits = [b - a for a, b in itertools.pairwise(times)]
    return waits[-1] > 1.9 * waits[-2]


def first_resend_waits_for(waited_s):
    initiator = dialling()
    initiator.take()
    initiator.on_deadline(waited_s)
    return not initiator.take()


def acknowledgement_waits_for(waited_s):
    acks = AckState(0.025)
    acks.arrived(0, 0, 1.0, eliciting=True)
    return not acks.is_due(1.0 + waited_s)


mint = TokenMint(b"secret")


def retry_token_of_age(age_s):
    return mint.valid(mint.retry("127.0.0.1", 1, NOW), "127.0.0.1", 1, NOW + age_s)


def new_token_of_age(age_s):
    return mint.valid(mint.new("127.0.0.1", NOW), "127.0.0.1", 1, NOW + age_s)


def new_token_of_the_future(ahead_s):
    """No clock of ours makes one that lives longer than a day: it was set back, or it is forged."""
    return mint.valid(mint.new("127.0.0.1", NOW + ahead_s), "127.0.0.1", 1, NOW)


@table(
    Limit("overdue answers of a responder's peer", "connection.RESPONDER_TIMEOUTS",
          responder_is_patient_for, RESPONDER_TIMEOUTS - 1, RESPONDER_TIMEOUTS),
    Limit("idle time-out", "TransportConfig.idle_timeout_s", stays_open_for, IDLE_S - TICK, IDLE_S),
    Limit("keep-alive", "TransportConfig.keep_alive_s", says_nothing_for, KEEP_ALIVE_S - TICK,
          KEEP_ALIVE_S),
    Limit("initiator's patience", "TransportConfig.handshake_timeout_s", initiator_tries_for,
          5.0 - TICK, 5.0),
    Limit("responder's patience", "", responder_waits_for, 5.0 - TICK, 5.0),
    Limit("doublings of a wait", "handshake.BACK_OFF_MAX", wait_is_doubled_after,
          handshake.BACK_OFF_MAX, handshake.BACK_OFF_MAX + 1),
    Limit("first wait", "TransportConfig.initial_rtt_s", first_resend_waits_for, 0.1 - TICK, 0.1),
    Limit("delay of an ACK", "TransportConfig.max_ack_delay_s", acknowledgement_waits_for,
          0.025 - TICK, 0.025),
    Limit("retry token", "tokens.RETRY_S", retry_token_of_age, RETRY_S - TICK, RETRY_S),
    Limit("new token", "tokens.NEW_TOKEN_S", new_token_of_age, NEW_TOKEN_S - TICK, NEW_TOKEN_S),
    Limit("token of the future", "", new_token_of_the_future, 0.0, TICK),
)  # fmt: skip
def test_clocks_of_a_connection(accepts, value, accepted):
    assert accepts(value) == accepted


# -- loss and its timers


def recovery_with(rtt_s=0.1, packets=(), window=100 * BASE_MTU):
    rtt = RttEstimator(rtt_s)
    recovery = Recovery(rtt, NewReno(BASE_MTU, rtt), 0.025)
    recovery.congestion.cwnd = window
    rtt.sample(rtt_s)
    for number, sent_at in enumerate(packets):
        recovery.sent((SentPacket(number, sent_at, BASE_MTU, ["frame"], 0),))
    return recovery


def is_waited_for_after(later):
    """The first packet, when `later` sent behind it were acknowledged."""
    recovery = recovery_with(packets=[0.0] * 10)
    recovery.acknowledge([(later, later)], 0.0, 0.001)
    return recovery.detect_lost(0.001) == []


def is_waited_for_until(late_s):
    """Packet 1 was acknowledged; packet 0 left at the same time."""
    recovery = recovery_with(packets=[0.0, 0.0])
    recovery.acknowledge([(1, 1)], 0.0, 0.1)
    wait_s = TIME_THRESHOLD * max(recovery.rtt.latest, recovery.rtt.smoothed)
    return recovery.detect_lost(wait_s + late_s) == []


def keeps_its_window_after(timeouts):
    """Two lost packets were sent so many time-outs apart, none between them arrived."""
    recovery = recovery_with()
    for number, sent_at in enumerate((0.0, timeouts * recovery.probe_timeout(0))):
        recovery.sent((SentPacket(number, sent_at, BASE_MTU, ["frame"], 0),))
    lost = list(recovery.in_flight.values())
    recovery._take_out(lost, 100.0)
    return recovery.congestion.cwnd > MINIMUM_PACKETS * BASE_MTU


def overdue_answer_is_waited_for(late_s):
    recovery = recovery_with(packets=[0.0])
    return recovery.overdue(recovery.probe_timeout() + late_s) is None


def time_out_doubles(count):
    recovery = recovery_with(rtt_s=0.0001)
    return recovery.probe_timeout(count) > recovery.probe_timeout(count - 1)


def silent_peer_is_left_alone_until(late_s):
    """Ten time-outs in a row have doubled to a minute and more."""
    rtt = RttEstimator(0.1)
    recovery = Recovery(rtt, NewReno(BASE_MTU, rtt), 0.025, probe_max_s=0.5)
    recovery.sent((SentPacket(0, 7.0, BASE_MTU, ["frame"], 0),))
    recovery.timeouts = 10
    assert recovery.deadline() == 7.5
    return recovery.overdue(7.5 + late_s) is None


def rto_of(smoothed_s, variation_s):
    rtt = RttEstimator(1.0)
    rtt.smoothed, rtt.variation = smoothed_s, variation_s
    return rtt._compute_rto()


def is_the_formula_s(smoothed_s):
    return rto_of(smoothed_s, 0.0) == smoothed_s + GRANULARITY_S


def variation_that_counts(variation_s):
    return rto_of(1.0, variation_s) == 1.0 + 4 * variation_s


@table(
    Limit("packets overtaking", "recovery.PACKET_THRESHOLD", is_waited_for_after,
          PACKET_THRESHOLD - 1, PACKET_THRESHOLD),
    Limit("time overtaking", "recovery.TIME_THRESHOLD", is_waited_for_until, -TICK, 0.0),
    Limit("persistent congestion", "recovery.PERSISTENT_TIMEOUTS", keeps_its_window_after,
          PERSISTENT_TIMEOUTS, PERSISTENT_TIMEOUTS + TICK),
    Limit("answer overdue", "", overdue_answer_is_waited_for, -TICK, 0.0),
    Limit("doublings of a time-out", "", time_out_doubles, 16, 17),
    Limit("probes of a silent peer", "TransportConfig.probe_max_s",
          silent_peer_is_left_alone_until, -TICK, 0.0),
    Limit("least time-out", "rtt.RTO_S_MIN", is_the_formula_s,
          RTO_S_MIN - GRANULARITY_S, RTO_S_MIN - GRANULARITY_S - TICK),
    Limit("longest time-out", "rtt.RTO_S_MAX", is_the_formula_s,
          RTO_S_MAX - GRANULARITY_S, RTO_S_MAX - GRANULARITY_S + TICK),
    Limit("granularity", "rtt.GRANULARITY_S", variation_that_counts, GRANULARITY_S / 4,
          GRANULARITY_S / 4 - TICK),
)  # fmt: skip
def test_loss_and_its_timers(accepts, value, accepted):
    assert accepts(value) == accepted


# -- the size of packets


def searching(maximum=65_507):
    mtu = MtuDiscovery(maximum)
    mtu.packet_was_full(0.0)
    return mtu


def size_is_probed(size):
    mtu = searching(maximum=1472)
    while (probe := mtu.next_probe()) and probe < size:
        mtu.probe_arrived(probe, 0.0)
    return probe == size


def size_is_tried_again_after(losses):
    mtu = searching()
    size = mtu.next_probe()
    for _ in range(losses):
        mtu.next_probe()
        mtu.probe_lost(size, 0.0)
    return mtu.next_probe() == size


def gap_is_worth_a_probe(gap):
    """Between what passes and the least that does not."""
    return searching(maximum=BASE_MTU + gap - 1).next_probe() > 0


def no_search_for(seconds):
    mtu = searching(maximum=BASE_MTU + 2 * STEP_MIN)
    mtu.probe_arrived(mtu.next_probe(), 0.0)  # the search is over
    mtu.maximum = 9000
    mtu.packet_was_full(seconds)
    return mtu.next_probe() == 0


def large():
    mtu = searching()
    mtu.probe_arrived(9000, 0.0)
    return mtu


def no_search_after_a_black_hole_for(seconds):
    mtu = large()
    mtu.timed_out(BLACK_HOLE_TIMEOUTS, 0.0)
    mtu.packet_was_full(seconds)
    return mtu.next_probe() == 0


def large_packets_after_timeouts(count):
    return not large().timed_out(count, 1.0)


def large_packets_after_losses(count):
    mtu = large()
    return not any(mtu.lost(9000, 1.0 + i) for i in range(count))


def losses_that_say_nothing(size):
    mtu = large()
    return not any(mtu.lost(size, 1.0 + i) for i in range(BLACK_HOLE_LOSSES))


@table(
    Limit("largest probe", "", size_is_probed, 1472, 1473),
    Limit("probes of a size", "mtu.PROBES_MAX", size_is_tried_again_after, PROBES_MAX - 1,
          PROBES_MAX),
    Limit("gap", "mtu.STEP_MIN", gap_is_worth_a_probe, 2 * STEP_MIN, 2 * STEP_MIN - 1),
    Limit("search again", "mtu.RAISE_S", no_search_for, RAISE_S - TICK, RAISE_S),
    Limit("search after a black hole", "", no_search_after_a_black_hole_for, RAISE_S / 10 - TICK,
          RAISE_S / 10),
    Limit("time-outs in a row", "mtu.BLACK_HOLE_TIMEOUTS", large_packets_after_timeouts,
          BLACK_HOLE_TIMEOUTS - 1, BLACK_HOLE_TIMEOUTS),
    Limit("losses in a row", "mtu.BLACK_HOLE_LOSSES", large_packets_after_losses,
          BLACK_HOLE_LOSSES - 1, BLACK_HOLE_LOSSES),
    Limit("what is large", "", losses_that_say_nothing, BASE_MTU, BASE_MTU + 1),
)  # fmt: skip
def test_the_size_of_packets(accepts, value, accepted):
    assert accepts(value) == accepted


# -- windows and pace


def leave_at_once(packets):
    connection = pair_of(max_mtu=BASE_MTU).client.connection
    connection.write(connection.streams.open(), bytes(packets * (BASE_MTU - OVERHEAD - 17)))
    return len(connection.datagrams_to_send(1.0)) == packets


def window_is_halved(packets):
    congestion = NewReno(BASE_MTU, RttEstimator(0.1))
    congestion.cwnd = packets * BASE_MTU
    congestion.on_lost(1.0, 1.1, 0)
    return congestion.cwnd * 2 == packets * BASE_MTU


def bbr_window_falls_below(packets):
    congestion = Bbr(BASE_MTU, RttEstimator(0.1))
    congestion.on_persistent_congestion()
    return congestion.cwnd >= packets * BASE_MTU


def burst_at_a_slow_pace(packets):
    return Pacer(BASE_MTU).allowance(0.0, 1.0, BASE_MTU) >= packets * BASE_MTU


def burst_at_a_fast_pace(seconds):
    pacer = Pacer(BASE_MTU)
    pacer.allowance(0.0, 1e9, BASE_MTU)
    return pacer.allowance(10.0, 1e9, BASE_MTU) >= 1e9 * seconds


def acked(delivered, before):
    return Acked(0.0, 1000, 0.0, True, 0, 0.0, delivered, before, 0.0)


def hystart_in_its_second_round(samples, rtt_s, next_rtt_s):
    """Delivered bytes number the rounds: each ends with what had been delivered at its begin."""
    slow_start = HyStart()
    for _ in range(SAMPLES_MIN):
        slow_start.growth(acked(1000, 0), rtt_s)
    for _ in range(samples):
        slow_start.growth(acked(2000, 1000 if slow_start._round_end == 1000 else 1500), next_rtt_s)
    return slow_start


def grows_as_before(samples, rtt_s, next_rtt_s):
    slow_start = hystart_in_its_second_round(samples, rtt_s, next_rtt_s)
    return slow_start.growth(acked(2000, 1500), next_rtt_s) == 1000


def samples_of_a_longer_round_trip(count):
    return grows_as_before(count, 0.1, 0.2)


def longer_by_at_least(more_s):
    return grows_as_before(SAMPLES_MIN, 0.010, 0.010 + more_s)


def longer_by_at_most(more_s):
    return grows_as_before(SAMPLES_MIN, 1.0, 1.0 + more_s)


def goes_on_slowed_for(rounds):
    slow_start = hystart_in_its_second_round(SAMPLES_MIN, 0.1, 0.2)
    for i in range(rounds):
        slow_start.growth(acked(3000 + 1000 * i, 2000 + 1000 * i), 0.2)
    return not slow_start.over


@table(
    Limit("first window", "base.INITIAL_PACKETS", leave_at_once, INITIAL_PACKETS,
          INITIAL_PACKETS + 1),
    Limit("least window", "base.MINIMUM_PACKETS", window_is_halved, 2 * MINIMUM_PACKETS,
          2 * MINIMUM_PACKETS - 0.5),
    Limit("BBR's least window", "bbr.MINIMUM_PACKETS", bbr_window_falls_below,
          BBR_MINIMUM_PACKETS, BBR_MINIMUM_PACKETS + 1),
    Limit("burst at a slow pace", "pacing.BURST_PACKETS", burst_at_a_slow_pace, BURST_PACKETS,
          BURST_PACKETS + 1),
    Limit("burst at a fast pace", "pacing.BURST_S", burst_at_a_fast_pace, BURST_S,
          BURST_S + TICK),
    Limit("samples of a round", "hystart.SAMPLES_MIN", samples_of_a_longer_round_trip,
          SAMPLES_MIN - 1, SAMPLES_MIN),
    Limit("least growth of a round trip", "hystart.RTT_THRESHOLD_MIN_S", longer_by_at_least,
          RTT_THRESHOLD_MIN_S - TICK, RTT_THRESHOLD_MIN_S),
    Limit("most growth of a round trip", "hystart.RTT_THRESHOLD_MAX_S", longer_by_at_most,
          RTT_THRESHOLD_MAX_S - TICK, RTT_THRESHOLD_MAX_S),
    Limit("slowed rounds", "hystart.SLOWED_ROUNDS", goes_on_slowed_for, SLOWED_ROUNDS - 1,
          SLOWED_ROUNDS),
)  # fmt: skip
def test_windows_and_pace(accepts, value, accepted):
    assert accepts(value) == accepted
