"""The laboratory: its router, its clock, and whether its experiments could also fail."""

from __future__ import annotations

import json
import random

import pytest

from cluster.lab import congestion
from cluster.lab.dumbbell import MTU, Dumbbell
from cluster.lab.experiments import EXPERIMENTS
from cluster.lab.outcome import Check, Outcome, jain, percentile
from cluster.lab.port import FairPort, Line, Parcel, Port
from netstack.runtime.endpoint import CE, ECT0, NOT_ECT
from netstack.transport import controllers
from netstack.transport.congestion.aimd import Aiad
from netstack.transport.congestion.dctcp import Dctcp

QUICK = ("saw-tooth", "dctcp", "fairness")


class Hands:
    """A clock in the hands of the test."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due: list[tuple[float, object]] = []

    def later(self, delay_s, callback):
        self.due.append((self.now + delay_s, callback))

    def run(self):
        while self.due:
            self.due.sort(key=lambda item: item[0])
            self.now, callback = self.due.pop(0)
            callback()


def port(kind=Port, **line):
    hands = Hands()
    given = {"rate": 1000.0, "queue_bytes": 1000} | line
    return hands, kind(Line(**given), hands, random.Random(1))


def offer(router, sizes, *, flow=0, mark=NOT_ECT):
    arrived = []
    for size in sizes:
        router.take(Parcel(flow, bytes(size), mark, arrived.append))
    return arrived


class TestPort:
    def test_sends_at_its_rate_and_in_order(self):
        hands, router = port()
        arrived = offer(router, [100, 200, 300])
        hands.run()
        assert [len(p.data) for p in arrived] == [100, 200, 300]
        assert hands.now == pytest.approx(0.6)
        assert (router.backlog, router.carried, router.drops) == (0, 600, 0)

    def test_drops_what_its_queue_has_no_room_for(self):
        hands, router = port()
        arrived = offer(router, [400, 400, 400, 200])
        hands.run()
        assert [len(p.data) for p in arrived] == [400, 400, 200]
        assert router.drops == 1

    def test_marks_who_allows_it_behind_a_long_queue(self):
        hands, router = port(mark_bytes=150)
        capable = offer(router, [100] * 4, mark=ECT0)
        deaf = offer(router, [100])
        hands.run()
        assert [p.mark for p in capable + deaf] == [ECT0, ECT0, CE, CE, NOT_ECT]
        assert router.marks == 2

    def test_damages_the_share_it_says(self):
        hands, router = port(queue_bytes=10**9, loss=0.25)
        arrived = offer(router, [1] * 4000)
        hands.run()
        assert len(arrived) == pytest.approx(3000, rel=0.05)

    def test_that_is_fair_serves_flows_in_turn(self):
        hands, router = port(FairPort, queue_bytes=10**6)
        order = []
        for flow, count in ((1, 6), (2, 2)):
            for _ in range(count):
                parcel = Parcel(flow, bytes(1400), NOT_ECT, lambda p: order.append(p.flow))
                router.take(parcel)
        hands.run()
        assert order[:5] in ([1, 2, 1, 2, 1], [1, 1, 2, 1, 2])
        assert sorted(order) == [1] * 6 + [2] * 2

    def test_that_is_fair_drops_from_the_longest_queue(self):
        hands, router = port(FairPort, queue_bytes=1000)
        greedy = offer(router, [100] * 10, flow=1)
        modest = offer(router, [100] * 3, flow=2)
        hands.run()
        assert len(modest) == 3
        assert len(greedy) == 7


class TestExperiments:
    def test_a_seed_is_one_history(self):
        def history(seed):
            lab = Dumbbell(Line(congestion.RATE, 30_000, loss=0.01), seed=seed)
            flows = [lab.add(name, rtt_s=0.03) for name in ("cubic", "bbr")]
            lab.run(3.0)
            return [flow.samples for flow in flows]

        assert history(1) == history(1) != history(2)

    @pytest.mark.parametrize("name", QUICK)
    def test_it_finds_what_it_claims(self, name):
        outcome = EXPERIMENTS[name](2)
        assert [check.claim for check in outcome.checks if not check.holds] == []
        assert all(curve.points for panel in outcome.panels for curve in panel.curves)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name not in QUICK])
    def test_it_finds_what_it_claims_though_that_takes_longer(self, name):
        assert [c.claim for c in EXPERIMENTS[name](2).checks if not c.holds] == []

    def test_fairness_would_show_a_controller_that_is_not_fair(self, monkeypatch):
        monkeypatch.setitem(controllers.CONTROLLERS, "aimd", Aiad)
        failed = [check.claim for check in congestion.fairness(1).checks if not check.holds]
        assert failed == ["AIMD: Jain's index at the end"]

    def test_dctcp_would_show_a_controller_that_does_not_listen(self, monkeypatch):
        class Deaf(Dctcp):
            def on_acknowledged(self, acked):
                super().on_acknowledged(acked._replace(marked=0.0))

        monkeypatch.setitem(controllers.CONTROLLERS, "dctcp", Deaf)
        assert not congestion.dctcp(1).holds

    def test_a_window_of_one_product_fills_the_line_and_half_of_it_half(self):
        """Throughput = min(window / RTT, rate): the lecture's formula, on the real transport."""
        packets = congestion.PRODUCT / MTU
        shares = {}
        for window in (packets / 4, packets / 2, packets * 1.1, packets * 1.6):
            lab = Dumbbell(Line(congestion.RATE, 10**6))
            flow = lab.add(f"sliding:{int(window)}", rtt_s=congestion.RTT_S)
            lab.run(6.0)
            shares[window] = flow.between(2, 6) / congestion.RATE / congestion.GOODPUT
        quarter, half, full, more = shares.values()
        assert quarter == pytest.approx(0.25, abs=0.02)
        assert half == pytest.approx(0.5, abs=0.03)
        assert full == pytest.approx(1.0, abs=0.02)
        assert more == pytest.approx(1.0, abs=0.02)


class TestNumbers:
    def test_jains_index(self):
        assert jain([1, 1, 1, 1]) == 1
        assert jain([1, 0, 0, 0]) == 0.25

    def test_percentiles(self):
        assert percentile(range(101), 99) == 99
        assert percentile([5], 50) == 5

    @pytest.mark.parametrize(
        ("value", "least", "most", "holds", "bound"),
        [
            (1, 1, None, True, "≥ 1"),
            (0.9, 1, None, False, "≥ 1"),
            (2, None, 2, True, "≤ 2"),
            (3, 1, 2, False, "1 to 2"),
        ],
    )
    def test_a_check_holds_between_its_bounds(self, value, least, most, holds, bound):
        check = Check("x", value, "", least, most)
        assert (check.holds, check.bound) == (holds, bound)


class TestCommand:
    def test_programs_get_the_rows_of_a_benchmark_and_a_failed_claim_is_status_1(
        self, ring, monkeypatch
    ):
        def shown(seed):
            checks = [Check("speed", 2.0, "B/s", least=1.0), Check("queue", 3.0, "ms", most=2.0)]
            return Outcome("saw-tooth", "a sentence", checks[: 2 - seed], [])

        monkeypatch.setitem(EXPERIMENTS, "saw-tooth", shown)
        done = ring("net", "lab", "saw-tooth", "--no-figures", "--json", "--seed", "1")
        report = json.loads(done.out)
        assert (done.status, report["bench"]) == (0, "net lab")
        row = {name: report["rows"][0][name] for name in ("case", "metric", "ours", "bar", "holds")}
        assert row == {
            "case": "saw-tooth",
            "metric": "speed",
            "ours": 2.0,
            "bar": 1.0,
            "holds": True,
        }
        done = ring("net", "lab", "saw-tooth", "--no-figures", "--json", "--seed", "0")
        assert done.status == 1
        assert [row["holds"] for row in json.loads(done.out)["rows"]] == [True, False]
