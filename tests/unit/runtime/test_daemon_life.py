"""A daemon from its start to its exit status, and what it says when it cannot go on."""

from __future__ import annotations

import asyncio
import os
import signal
from types import SimpleNamespace

import pytest

from netstack.runtime import daemon
from netstack.runtime.config import ClusterConfig, ConfigError
from netstack.runtime.daemon import EXIT_BUG, EXIT_CONFLICT, EXIT_OK, EXIT_USAGE
from netstack.runtime.endpoint import EndpointError, PortTaken
from netstack.runtime.events import read_events
from netstack.runtime.node_lock import lock_node
from netstack.runtime.runtime import Fatal
from security.errors import KeystoreError

NEVER_DUE = SimpleNamespace(renew_due=lambda now: False, expires_at=float("inf"))
CONFIG = """
[cluster]
id = "x"
[[node]]
name = "n1"
service = "echo"
port = 7401
[[node]]
name = "n2"
service = "raft"
port = 7402
"""


class Service:
    """A service that writes down what it is told, and fails where it is to fail."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.runtime = None
        self.fail_at: dict[object, BaseException] = {}
        self.started = asyncio.Event()
        self.started.set()
        self.drained = asyncio.Event()
        self.drained.set()
        self._news = asyncio.Event()

    def _tell(self, what: object) -> None:
        self.told.append(what)
        self._news.set()
        if what in self.fail_at:
            raise self.fail_at[what]

    async def until(self, count: int) -> None:
        """So much has been told."""
        while len(self.told) < count:
            self._news.clear()
            await self._news.wait()

    async def start(self, runtime, identity, config):
        self.runtime = runtime
        self._tell("start")
        await self.started.wait()

    def trust(self, identity):
        self._tell(identity)

    async def drain(self):
        self._tell("drain")
        await self.drained.wait()

    async def stop(self):
        self._tell("stop")


class Daemon:
    """The daemon of n1, up to its exit status."""

    def __init__(self, home) -> None:
        self.home = home
        (home / "cluster.toml").write_text(CONFIG)
        self.config = ClusterConfig.load(home / "cluster.toml")
        self.service = Service()
        self.task = None

    def begin(self) -> asyncio.Task:
        node = self.config.node("n1")
        run = daemon._run(self.service, node, NEVER_DUE, self.config)
        self.task = asyncio.create_task(run)
        return self.task

    async def ready(self) -> None:
        """Begin, and wait until it says so itself."""
        inlet, outlet = os.pipe()
        said = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(inlet, lambda: said.set_result(os.read(inlet, 99)))
        os.environ["RING_READY_FD"] = str(outlet)
        try:
            self.begin()
            async with asyncio.timeout(20):
                assert await said == b"ready\n"
        finally:
            del os.environ["RING_READY_FD"]
            asyncio.get_running_loop().remove_reader(inlet)
            os.close(inlet)

    def kinds(self) -> list[str]:
        events = read_events(self.home / "nodes" / "n1" / "events.jsonl")
        return [event["kind"] for event in events]


@pytest.fixture
async def n1(tmp_path):
    made = Daemon(tmp_path)
    yield made
    if made.service.runtime is not None:
        made.service.runtime.close()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().remove_signal_handler(number)


class TestADaemonThatIsToldToEnd:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    async def test_drains_stops_and_exits_with_0(self, n1, number):
        await n1.ready()
        os.kill(os.getpid(), number)
        assert await n1.task == EXIT_OK == 0
        assert n1.service.told == ["start", "drain", "stop"]
        assert n1.kinds() == ["node.start", "node.ready", "node.drain", "node.stop"]

    async def test_ends_its_tasks(self, n1):
        await n1.ready()
        task = n1.service.runtime.spawn(asyncio.sleep(3600), "x")
        os.kill(os.getpid(), signal.SIGTERM)
        assert await n1.task == EXIT_OK
        assert task.cancelled()

    async def test_stops_all_the_same_when_it_drains_for_too_long(self, n1, monkeypatch):
        monkeypatch.setattr(daemon, "DRAIN_S", 0.01)
        n1.service.drained.clear()
        await n1.ready()
        os.kill(os.getpid(), signal.SIGTERM)
        assert await n1.task == EXIT_OK
        assert n1.service.told == ["start", "drain", "stop"]
        assert n1.kinds()[-2:] == ["node.drain_cut", "node.stop"]

    async def test_exits_with_70_if_it_fails_while_it_drains(self, n1):
        n1.service.drained.clear()
        await n1.ready()
        os.kill(os.getpid(), signal.SIGTERM)
        await n1.service.until(2)
        n1.service.runtime.fatal(Fatal("the log cannot be written"), "wal")
        n1.service.drained.set()
        assert await n1.task == EXIT_BUG

    async def test_stops_all_the_same_when_its_drain_fails(self, n1):
        n1.service.fail_at["drain"] = ZeroDivisionError()
        await n1.ready()
        os.kill(os.getpid(), signal.SIGTERM)
        assert await n1.task == EXIT_BUG
        assert n1.service.told == ["start", "drain", "stop"]
        assert n1.kinds()[-2:] == ["node.fatal", "node.stop"]

    async def test_ends_its_tasks_all_the_same_when_its_stop_fails(self, n1, capsys):
        n1.service.fail_at["stop"] = ZeroDivisionError("by zero")
        await n1.ready()
        task = n1.service.runtime.spawn(asyncio.sleep(3600), "x")
        os.kill(os.getpid(), signal.SIGTERM)
        assert await n1.task == EXIT_BUG
        assert task.cancelled()
        assert n1.kinds()[-2:] == ["node.fatal", "node.stop"]
        assert capsys.readouterr().err == "n1: ZeroDivisionError: by zero\n"


class TestADaemonThatFails:
    async def test_stops_without_a_drain_and_says_why(self, n1, capsys):
        await n1.ready()
        n1.service.runtime.fatal(Fatal("the log cannot be written"), "wal")
        assert await n1.task == EXIT_BUG == 70
        assert n1.service.told == ["start", "stop"]
        assert n1.kinds() == ["node.start", "node.ready", "node.fatal", "node.stop"]
        assert capsys.readouterr().err == "n1: Fatal: the log cannot be written\n"

    async def test_is_one_of_whose_callbacks_one_has_stopped_halfway(self, n1, capsys):
        await n1.ready()
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        assert await n1.task == EXIT_BUG
        assert n1.kinds() == ["node.start", "node.ready", "node.fatal", "node.stop"]
        assert capsys.readouterr().err == "n1: ZeroDivisionError: division by zero\n"

    async def test_is_none_that_nobody_has_asked_for_the_outcome_of_a_future(self, n1):
        await n1.ready()
        asyncio.get_running_loop().create_future().set_exception(ValueError("not asked for"))
        await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGTERM)
        assert await n1.task == EXIT_OK

    async def test_says_the_first_of_its_errors(self, n1, capsys):
        await n1.ready()
        for text in ("first", "second"):
            n1.service.runtime.fatal(Fatal(text), "x")
        assert await n1.task == EXIT_BUG
        assert capsys.readouterr().err == "n1: Fatal: first\n"


class TestADaemonThatIsNotReadyYet:
    async def test_ends_when_what_its_start_waits_for_has_failed(self, n1, capsys):
        n1.service.started.clear()
        task = n1.begin()
        await n1.service.until(1)
        n1.service.runtime.fatal(Fatal("the log cannot be read"), "recovery")
        assert await task == EXIT_BUG
        assert n1.service.told == ["start"]
        assert n1.kinds() == ["node.start", "node.fatal", "node.stop"]
        assert capsys.readouterr().err == "n1: Fatal: the log cannot be read\n"

    async def test_ends_when_it_is_told_to(self, n1):
        n1.service.started.clear()
        task = n1.begin()
        await n1.service.until(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert await task == EXIT_OK
        assert n1.service.told == ["start"]


REFUSALS = [
    (ConfigError("raft.heartbeat_ms should be int"), EXIT_USAGE),
    (EndpointError("cannot bind"), EXIT_BUG),
    (Fatal("the log is damaged"), EXIT_BUG),
    (PortTaken("UDP port 7401 is taken"), EXIT_CONFLICT),
]


class TestADaemonThatCannotStart:
    @pytest.mark.parametrize(("error", "status"), REFUSALS, ids=repr)
    async def test_says_why_in_a_line_and_exits_with_its_status(self, n1, error, status, capsys):
        n1.service.fail_at["start"] = error
        with pytest.raises(SystemExit) as caught:
            await daemon._run(n1.service, n1.config.node("n1"), NEVER_DUE, n1.config)
        assert caught.value.code == status
        assert capsys.readouterr().err == f"n1: {error}\n"

    @pytest.mark.parametrize(("error", "status"), REFUSALS, ids=repr)
    async def test_leaves_a_line_in_its_log(self, n1, error, status):
        n1.service.fail_at["start"] = error
        with pytest.raises(SystemExit):
            await daemon._run(n1.service, n1.config.node("n1"), NEVER_DUE, n1.config)
        assert n1.kinds() == ["node.start", "node.refused"]

    async def test_for_a_bug_exits_with_70_too_and_shows_its_place(self, n1, capsys):
        n1.service.fail_at["start"] = ZeroDivisionError()
        with pytest.raises(SystemExit) as caught:
            await daemon._run(n1.service, n1.config.node("n1"), NEVER_DUE, n1.config)
        assert caught.value.code == EXIT_BUG
        said = capsys.readouterr().err.splitlines()
        assert said[0].startswith("Traceback")
        assert said[-1] == "n1: ZeroDivisionError()"
        assert n1.kinds() == ["node.start", "node.refused"]


class TestSighup:
    async def test_has_the_certificates_read_again(self, n1, monkeypatch):
        await n1.ready()
        monkeypatch.setattr(daemon.keystore, "load_identity", lambda home, name: (home, name))
        os.kill(os.getpid(), signal.SIGHUP)
        await n1.service.until(2)
        assert n1.service.told == ["start", (n1.home, "n1")]
        os.kill(os.getpid(), signal.SIGTERM)
        assert await n1.task == EXIT_OK
        assert n1.kinds()[2:3] == ["node.certificate"]

    async def test_with_certificates_that_cannot_be_read_changes_nothing(self, n1, monkeypatch):
        def refuse(home, name):
            raise KeystoreError("no such file")

        await n1.ready()
        monkeypatch.setattr(daemon.keystore, "load_identity", refuse)
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        assert await n1.task == EXIT_OK
        assert n1.service.told == ["start", "drain", "stop"]
        assert "node.certificate" in n1.kinds()


class TestTheCommandLine:
    @pytest.fixture
    def call(self, tmp_path, monkeypatch, capsys):
        """(exit status, what was said) of a daemon of the service echo that does not start."""
        (tmp_path / "cluster.toml").write_text(CONFIG)
        monkeypatch.setattr(daemon.keystore, "load_identity", lambda home, name: NEVER_DUE)
        monkeypatch.setattr("netstack.runtime.node_lock.PATIENCE_S", 0.0)

        def call(node="n1", config=tmp_path / "cluster.toml"):
            with pytest.raises(SystemExit) as caught:
                daemon.main("echo", Service, ["--node", node, "--config", str(config)])
            return caught.value.code, capsys.readouterr().err

        return call

    def test_of_a_cluster_that_is_not_there(self, call, tmp_path):
        status, said = call(config=tmp_path / "other.toml")
        assert status == EXIT_USAGE == 2
        assert said == f"echo: {tmp_path}/other.toml does not exist; `ring up` makes it\n"

    def test_of_a_node_that_is_not_there(self, call):
        status, said = call("n3")
        assert status == EXIT_USAGE
        assert said.startswith("echo: there is no node 'n3' in this cluster; its nodes are: n1,")

    def test_of_a_node_of_another_service(self, call):
        assert call("n2") == (EXIT_USAGE, "echo: n2 is a raft node, not a echo node\n")

    def test_of_a_certificate_that_has_expired(self, call, monkeypatch):
        expired = SimpleNamespace(expires_at=0.0)
        monkeypatch.setattr(daemon.keystore, "load_identity", lambda home, name: expired)
        status, said = call()
        assert status == EXIT_USAGE
        assert said == "echo: the certificate of n1 has expired; do: ring cert renew\n"

    def test_of_a_node_that_runs_already(self, call, tmp_path):
        lock = lock_node(tmp_path / "nodes" / "n1")
        try:
            status, said = call()
        finally:
            os.close(lock)
        assert status == EXIT_CONFLICT == 5
        assert said == f"echo: n1 is running already, as pid {os.getpid()}\n"

    def test_without_a_node_is_bad_usage(self, capsys):
        with pytest.raises(SystemExit) as caught:
            daemon.main("echo", Service, [])
        assert caught.value.code == EXIT_USAGE
        assert "--node" in capsys.readouterr().err
