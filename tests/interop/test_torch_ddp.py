"""An unmodified DistributedDataParallel script over our groups gives what it gives over gloo."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install torch==2.13.0")

SCRIPT = Path(__file__).with_name("ddp_torch_script.py")
ROOT = Path(__file__).parent.parent.parent


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return str(sock.getsockname()[1])


def train(backend, size, out, transport="auto"):
    """Run the script on every rank; what each has saved."""
    port = free_port()
    # Where the project is installed, torch knows the name without an import; this is a checkout.
    start = (
        "import runpy, sys, ddp.torch_backend; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment["RING_DDP_TRANSPORT"] = transport
    command = [sys.executable, "-W", "ignore", "-c", start, str(SCRIPT), backend]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(size), port, out],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]
    try:
        for rank in ranks:
            said, _ = rank.communicate(timeout=400)
            assert rank.returncode == 0, said[-2000:]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    return [torch.load(f"{out}.{rank}") for rank in range(size)]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("transport", ["auto", "network"])
def test_training_is_that_of_gloo(tmp_path, transport):
    theirs = train("gloo", 2, str(tmp_path / "gloo"))
    ours = train("ring", 2, str(tmp_path / "ring"), transport)
    for rank in (0, 1):
        assert ours[rank]["losses"] == pytest.approx(theirs[rank]["losses"], rel=1e-6)
        for name, tensor in theirs[rank]["state"].items():
            assert torch.allclose(ours[rank]["state"][name], tensor, rtol=1.3e-6, atol=1e-6)
            assert torch.equal(ours[0]["state"][name], ours[1]["state"][name]), "bit-equal ranks"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_three_ranks_have_the_same_bits(tmp_path):
    found = train("ring", 3, str(tmp_path / "ring"))
    for name, tensor in found[0]["state"].items():
        for rank in (1, 2):
            assert torch.equal(found[rank]["state"][name], tensor)
