"""Senders and receivers in processes of their own, over UDP that loses datagrams, and kill -9."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from netstack.arq.strategies import RECEIVERS, SENDERS

# Generous: the machine may be busy with other things.
PATIENCE_S = 100
DATA = os.urandom(1_000_000)


@pytest.fixture
def run(tmp_path):
    """Starts `python -m netstack.arq …`; kills what is left of it in the end."""
    started = []

    def start(*arguments):
        command = [sys.executable, "-m", "netstack.arq", *map(str, arguments)]
        command += ["--home", str(tmp_path)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def receive(run):
    """Starts a receiver; returns the process and its port."""

    def start(*arguments):
        process = run("receive", "--port", 0, *arguments)
        told = process.stderr.readline()
        found = re.search(r"receiving on 127\.0\.0\.1:(\d+)", told)
        assert found, told
        return process, int(found[1])

    return start


@pytest.fixture
def letter(tmp_path):
    """The file to be sent."""
    path = tmp_path / "letter"
    path.write_bytes(DATA)
    return path


@pytest.mark.parametrize("receiver", RECEIVERS)
def test_a_megabyte_arrives_whole_from_every_sender_over_a_lossy_path(
    receiver, receive, run, letter, tmp_path
):
    inbox, port = receive(
        "--receiver", receiver, "--loss", 0.02, "--out", tmp_path / "in", "--messages", 3
    )
    sent = []
    for number, sender in enumerate(SENDERS):
        process = run("send", letter, "--port", port, "--sender", sender,
                      "--loss", 0.02, "--message", number)  # fmt: skip
        out, told = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, told
        sent.append(json.loads(out))
    out, told = inbox.communicate(timeout=PATIENCE_S)
    assert (inbox.returncode, told) == (0, "")
    reports = [json.loads(line) for line in out.splitlines()]
    assert [report["message"] for report in reports] == [0, 1, 2]
    assert {report["sha256"] for report in reports} == {hashlib.sha256(DATA).hexdigest()}
    assert {path.read_bytes() for path in (tmp_path / "in").iterdir()} == {DATA}
    # The loss took effect; and lock-step is never overtaken, so it needs no memory anywhere.
    assert min(report["bytes_sent_again"] for report in sent) > 0
    assert reports[0]["high_water_bytes"] == 0
    if receiver == "in-order":
        assert {report["high_water_bytes"] for report in reports} == {0}
    else:
        assert max(report["high_water_bytes"] for report in reports) > 0


def test_a_receiver_that_is_killed_is_given_up_and_the_sender_says_so(
    receive, run, letter, tmp_path
):
    inbox, port = receive("--out", tmp_path / "in")
    # A window a round trip of 40 ms: a megabyte lasts two seconds.
    process = run("send", letter, "--port", port, "--window", 16, "--delay-ms", 40,
                  "--tries", 3, "--message", 914)  # fmt: skip
    begun = process.stderr.readline()
    assert begun == f"arq: message 914: 1000000 bytes in 834 segments to 127.0.0.1:{port}\n"
    path = _first_bytes(tmp_path / "in")
    os.kill(inbox.pid, signal.SIGKILL)
    inbox.wait(PATIENCE_S)
    out, told = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (4, "")
    found = re.fullmatch(
        r"arq: message 914: gave up after 3 tries, segment (\d+) of 834 was never acknowledged\n",
        told,
    )
    assert found, told
    # What arrived is the beginning of what was sent, at least up to there.
    arrived = path.read_bytes()
    assert DATA.startswith(arrived)
    assert (int(found[1]) - 1) * 1200 <= len(arrived) < len(DATA)


def _first_bytes(folder):
    """Waits until something was received; returns its file."""
    while True:
        with contextlib.suppress(OSError):
            for path in folder.iterdir():
                if path.stat().st_size:
                    return path
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["send", "no-such-file"], 2, "arq: no-such-file: No such file or directory\n"),
        (["receive", "--buffer", "-1"], 2, "arq: a buffer has 0 bytes or more, not -1\n"),
        (["receive", "--loss", "2"], 2, "arq: loss is a probability between 0 and 1, not 2.0\n"),
    ],
)
def test_a_flag_that_makes_no_sense_is_told_in_one_line(run, arguments, status, says):
    process = run(*arguments)
    assert process.communicate(timeout=PATIENCE_S) == ("", says)
    assert process.returncode == status


def test_a_taken_port_is_a_conflict_and_an_end_by_signal_is_none(receive, run):
    inbox, port = receive()
    second = run("receive", "--port", port)
    _, told = second.communicate(timeout=PATIENCE_S)
    assert second.returncode == 5
    assert f"UDP port {port} on 127.0.0.1 is taken" in told
    inbox.send_signal(signal.SIGTERM)
    assert inbox.wait(PATIENCE_S) == 0
