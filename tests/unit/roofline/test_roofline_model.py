"""The roof: its formula, its invariant, and counts that numbers confirm."""

from __future__ import annotations

import numpy as np
import pytest

from ddp.roofline import ceilings, communication, survey
from ddp.roofline.kernels import kernels
from ddp.roofline.model import Bandwidth, Peak, Point, Roofline
from ddp.training.grid import Grid
from ddp.training.models import Spec

ROOF = Roofline(
    [Peak("float64", 40.0), Peak("float64", 50.0), Peak("float32", 100.0)],
    [
        Bandwidth("copy", "L1", 10_000, 30.0),  # mostly the call itself
        Bandwidth("copy", "L2", 100_000, 80.0),
        Bandwidth("add", "L2", 100_000, 90.0),
        Bandwidth("copy", "memory", 10_000_000, 10.0),
    ],
)


def point(flop, moved, seconds=1e-3, set_bytes=10_000_000):
    return Point("a", "float64", flop, moved, set_bytes, seconds)


def test_attainable_is_the_lower_of_peak_and_slope():
    assert ROOF.attainable(0.1, "float64", 10_000_000) == pytest.approx(1.0)
    assert ROOF.attainable(5.0, "float64", 10_000_000) == 50.0  # the ridge
    assert ROOF.attainable(99.0, "float64", 10_000_000) == 50.0
    assert ROOF.attainable(99.0, "float32", 10_000_000) == 100.0


@pytest.mark.parametrize(
    ("set_bytes", "gb_s"),
    [(1_000, 90.0), (20_000, 90.0), (200_000, 90.0), (200_001, 10.0), (10**9, 10.0)],
)
def test_a_set_is_served_by_the_best_stream_over_as_much(set_bytes, gb_s):
    assert ROOF.bandwidth(set_bytes) == gb_s


def test_what_holds_a_kernel_up():
    assert ROOF.bound(point(10, 100)) == "memory"
    assert ROOF.bound(point(1000, 100)) == "arithmetic"


def test_a_point_above_its_roof_is_named():
    below = point(10**6, 10**7)  # 1 GFLOP/s, its roof is 1
    above = point(10**6, 10**7, seconds=0.8e-3)
    assert ROOF.above([below, above]) == [above]


def test_counts_of_all_kernels():
    by_name = {kernel.name: kernel for kernel in kernels()}
    product = by_name["matmul 64 f64"]
    assert product.flop / product.moved_bytes == pytest.approx(64 / 12)
    assert by_name["local sum 128 KiB"].flop / by_name["local sum 128 KiB"].moved_bytes == 1 / 24
    for kernel in by_name.values():
        kernel.run()
        assert kernel.flop > 0
        assert kernel.moved_bytes >= kernel.set_bytes * 0.9
    assert by_name["relu by mask"].flop == 2 * by_name["relu max"].flop


def test_the_three_relus_compute_the_same():
    from ddp.roofline.kernels import relus

    outputs = []
    for kernel in relus(1000):
        kernel.run()
        y = next(c.cell_contents for c in kernel.run.__closure__ if _is_output(c.cell_contents))
        outputs.append(y.copy())
    for y in outputs[1:]:
        np.testing.assert_array_equal(y, outputs[0])


def _is_output(value):
    return isinstance(value, np.ndarray) and value.dtype == float and value.min() >= 0


def test_levels_of_the_cache():
    levels = {"L1": 32_768, "L2": 1_048_576}
    assert ceilings.level_of(1_000, levels) == "L1"
    assert ceilings.level_of(32_769, levels) == "L2"
    assert ceilings.level_of(2_000_000, levels) == "memory"
    assert all(size > 1024 for size in ceilings.caches().values())


def test_streams_move_what_they_say():
    for kernel in ceilings.streams(1 << 16):
        arrays = {"copy": 2, "add": 3, "daxpy": 3}[kernel.name]
        assert kernel.moved_bytes == arrays * (1 << 15)
        kernel.run()


def test_a_try_lasts(monkeypatch):
    """A call of a tenth of a millisecond: one, then as many as make the time full."""
    calls = []
    monkeypatch.setattr(survey.time, "perf_counter", lambda: len(calls) * 1e-4)
    seconds, repeats = survey.try_s(lambda: calls.append(1), 1)
    assert seconds == pytest.approx(1e-4)
    assert repeats * seconds >= survey.TRY_S
    assert len(calls) == 1 + repeats


@pytest.mark.slow
def test_no_kernel_of_this_machine_lies_above_its_roof():
    """The invariant, measured; a machine in a bad mood gets a second go."""
    for _ in range(2):
        roof, points, _ = survey.survey()
        if not roof.above(points):
            return
    raise AssertionError([(p.name, p.gflop_s, roof.roof(p)) for p in roof.above(points)])


# -- the roofline of a cluster

SPEC = Spec("mlp", 16, 4, width=32, depth=1)


def test_bytes_sent_are_those_of_the_formulas():
    """Data parallel: 2(P − 1)/P · N a rank; the rest is the loss, one number a sum."""
    data = communication.count(SPEC, Grid(dp=4), 64)
    parameters = 16 * 32 + 32 + 32 * 128 + 128 + 128 * 32 + 32 + 32 * 4 + 4
    loss = 8
    assert data.sent_bytes == 4 * (2 * 3 * 8 * parameters // 4 + 2 * 3 * loss // 4)
    # Tensor parallel: a sum of batch x width forward, and one backward, a layer.
    tensor = communication.count(SPEC, Grid(tp=4), 64)
    assert tensor.sent_bytes == 4 * 2 * (2 * 3 * 8 * 64 * 32 // 4)
    # Pipeline: batch x width at the one border, there and back; the loss over both stages.
    pipeline = communication.count(SPEC, Grid(pp=2), 64)
    assert pipeline.sent_bytes == 2 * 8 * 64 * 32 + 2 * loss


def test_a_larger_batch_makes_data_parallelism_worth_it_and_tensor_parallelism_not():
    small, large = (communication.count(SPEC, Grid(dp=4), batch) for batch in (64, 1024))
    assert large.intensity / small.intensity == pytest.approx(16, rel=0.01)
    small, large = (communication.count(SPEC, Grid(tp=4), batch) for batch in (64, 1024))
    assert large.intensity == pytest.approx(small.intensity, rel=0.01)


def test_divisions_have_a_roof_too():
    division = communication.Division("d", Grid(dp=4), flop=100, sent_bytes=10)
    assert division.attainable(peak_gflop_s=50, bus_gb_s=1) == 40
    assert division.bound(50, 1) == "network"
    assert division.attainable(peak_gflop_s=5, bus_gb_s=1) == 20
    assert division.bound(5, 1) == "arithmetic"


def test_the_slope_is_the_bus_bandwidth_of_real_ranks(monkeypatch):
    monkeypatch.setattr(communication, "SUM_BYTES", 1 << 16)
    bus, fabric = communication.bus_bandwidth()
    assert bus > 0
    assert fabric in ("shared memory", "netstack")
