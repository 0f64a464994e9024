"""Children of the supervisor: they die with it, and no signal ever meets the wrong process."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.process import Process, daemon_command, start_time

PATIENCE_S = 20.0
FOR_EVER = ["sleep", "600"]


@pytest.fixture
def spawn(tmp_path) -> Iterator:
    """Process.spawn with a log in the test's folder; ends and reaps all of them."""
    children: list[Process] = []

    def start(*command: str) -> Process:
        children.append(Process.spawn(list(command), tmp_path / "logs" / "output.log", {}))
        return children[-1]

    yield start
    for child in children:
        if child.pidfd >= 0:
            child.signal(signal.SIGKILL)
            child.reap()
            child.close()


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def wait_readable(descriptor: int) -> None:
    readable, _, _ = select.select([descriptor], [], [], PATIENCE_S)
    assert readable, "nothing came"


def said(process: Process) -> bytes:
    """What came on the pipe for readiness; empty once the other end is closed."""
    wait_readable(process.ready_fd)
    return os.read(process.ready_fd, 64)


def exists(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_gone(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while exists(pid):
        assert time.monotonic() < deadline, f"{pid} lives on"
        time.sleep(0.005)


# -- who dies with whom

SUPERVISOR = """
import os, sys
from pathlib import Path
from cluster.process import Process
child = Process.spawn(["sh", "-c", "trap '' TERM HUP INT; sleep 600"], Path(sys.argv[1]), {{}})
print(child.pid, flush=True)
sys.stdin.read(1)
{end}
"""


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "os._exit(0)", "os.abort()"])
def test_a_child_dies_with_its_supervisor_however_that_ends(tmp_path, end):
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR.format(end=end), str(tmp_path / "log")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with supervisor:
        pid = int(supervisor.stdout.readline())
        assert exists(pid)
        supervisor.communicate(b"x")
    wait_gone(pid)


def test_a_child_is_in_a_session_of_its_own_so_that_no_terminal_reaches_it(spawn):
    child = spawn(*FOR_EVER)
    assert os.getsid(child.pid) == child.pid != os.getsid(0)


# -- signals


def test_a_signal_arrives_and_the_exit_status_says_which(spawn):
    child = spawn(*FOR_EVER)
    child.signal(signal.SIGUSR1)
    wait_readable(child.pidfd)
    assert child.reap() == -signal.SIGUSR1


def test_the_descriptor_becomes_readable_when_the_child_ends_and_not_before(spawn):
    child = spawn(*python("import signal; signal.pause()"))
    assert select.select([child.pidfd], [], [], 0) == ([], [], [])
    child.signal(signal.SIGKILL)
    wait_readable(child.pidfd)
    assert child.reap() == -signal.SIGKILL
    other = spawn("sh", "-c", "exit 7")
    wait_readable(other.pidfd)
    assert other.reap() == 7


def test_a_signal_to_one_that_is_gone_does_nothing(spawn):
    child = spawn("true")
    wait_readable(child.pidfd)
    child.signal(signal.SIGTERM)
    assert child.reap() == 0
    child.signal(signal.SIGKILL)


def test_a_signal_to_one_that_is_gone_and_closed_does_nothing_either(spawn):
    child = spawn("true")
    child.reap()
    child.close()
    child.close()
    child.signal(signal.SIGKILL)


# In a pid namespace of its own, where the next pid can be chosen.
RECYCLED = """
import subprocess, signal, sys
from pathlib import Path
from cluster.process import Process, start_time
old = Process.spawn(["sleep", "600"], Path(sys.argv[1]), {})
old.signal(signal.SIGKILL)
assert old.reap() == -9
while True:  # until a tick of the clock that start times are counted in
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(old.pid - 1))
    stranger = subprocess.Popen(["sleep", "600"])
    if start_time(stranger.pid) != old.started:
        break
    stranger.kill()
    stranger.wait()
print("recycled", stranger.pid == old.pid, flush=True)
old.signal(signal.SIGTERM)
old.signal(signal.SIGKILL)
print("harmed", stranger.poll() is not None, flush=True)
stranger.kill()
print("its own end", stranger.wait())
"""


def test_a_pid_that_another_process_has_got_since_is_not_signalled(tmp_path):
    alone = ["unshare", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]
    try:
        subprocess.run([*alone, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs unshare(1) and namespaces: apt-get install util-linux")
    done = subprocess.run(
        [*alone, sys.executable, "-c", RECYCLED, str(tmp_path / "log")],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["recycled True", "harmed False", "its own end -9"]


# -- start times


def test_a_process_is_named_by_its_pid_and_when_it_began(spawn):
    child = spawn(*FOR_EVER)
    assert child.started == start_time(child.pid) >= start_time(os.getpid()) > 0


def test_a_process_that_does_not_exist_has_no_start_time(spawn):
    child = spawn("true")
    child.reap()
    assert start_time(child.pid) == 0


def test_a_program_with_a_nasty_name_does_not_confuse_its_start_time(spawn, tmp_path):
    nasty = tmp_path / "a) R 1 (2 3"
    shutil.copy(shutil.which("sleep"), nasty)
    before, child, after = spawn(*FOR_EVER), spawn(str(nasty), "600"), spawn(*FOR_EVER)
    assert before.started <= child.started <= after.started


# -- what a child is given


def test_readiness_is_what_the_child_says_on_its_pipe(spawn):
    code = "import os; os.write(int(os.environ['RING_READY_FD']), b'ready\\n'); os.read(0, 1)"
    child = spawn(*python(code))
    assert said(child) == b"ready\n"


def test_a_child_that_ends_without_a_word_closes_its_pipe_though_its_siblings_live(spawn):
    child = spawn(*python("input()"))  # standard input is empty: it ends with an error
    sibling = spawn(*FOR_EVER)
    assert said(child) == b""
    assert child.reap() == 1
    assert exists(sibling.pid)


def test_a_child_inherits_standard_streams_and_its_pipe_and_nothing_else(spawn, tmp_path):
    with (tmp_path / "secret").open("w") as secret:
        os.set_inheritable(secret.fileno(), True)
        code = "import os; os.write(1, ' '.join(os.listdir('/proc/self/fd')).encode())"
        child = spawn(*python(code))
        child.reap()
    # Three streams, the pipe, and the descriptor that lists the folder.
    assert len((tmp_path / "logs/output.log").read_text().split()) == 5


def test_what_children_print_is_appended_line_by_line(spawn, tmp_path):
    for word in ("one", "two"):
        spawn("sh", "-c", f"echo {word}; echo {word} wrong >&2").reap()
    assert (tmp_path / "logs/output.log").read_text().split("\n") == [
        "one",
        "one wrong",
        "two",
        "two wrong",
        "",
    ]


def test_a_program_that_cannot_be_started_costs_no_descriptors(tmp_path):
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FileNotFoundError):
        Process.spawn([str(tmp_path / "no such program")], tmp_path / "log", {})
    after = os.listdir("/proc/self/fd")
    for leaked in set(after) - set(before):
        os.close(int(leaked))
    assert len(after) == len(before)


def test_a_daemon_is_a_command_line_that_a_person_could_type(tmp_path):
    command = daemon_command("raftd", "n1", tmp_path / "cluster.toml")
    assert command == [
        sys.executable,
        *("-m", "raftd", "--node", "n1", "--config", f"{tmp_path}/cluster.toml"),
    ]


def test_a_service_may_be_a_word_behind_its_module(tmp_path):
    command = daemon_command("mapreduce worker", "w1", tmp_path / "cluster.toml")
    assert command[1:6] == ["-m", "mapreduce", "worker", "--node", "w1"]
