"""The house rules: who may import whom, what a core may touch, how long things get."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("security", "netstack", "raftd", "dht", "mapreduce", "ddp", "cluster")
SERVICES = ("raftd", "dht", "mapreduce", "ddp")

# security <- netstack <- raftd | dht | mapreduce | ddp <- cluster; of one another, services may
# import the `client` module only.
MAY_IMPORT = {
    "security": set(),
    "netstack": {"security"},
    **{service: {"security", "netstack", *SERVICES} for service in SERVICES},  # their clients
    "cluster": {"security", "netstack", *SERVICES},
}
# They judge, measure or show the inside of services, and never run one.
LOOK_INSIDE = ("cluster/chaos", "cluster/bench", "cluster/lab")
# Inside netstack the layers stand on one another in this order.
NETSTACK_LAYERS = ("runtime", "transport", "rpc", "presets", "tunnel")

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 600

# Sans-IO: no clock, no loop, no socket, no disk, no dice of its own.
CORE_BANNED = {
    "asyncio", "socket", "time", "random", "threading", "os", "subprocess", "select",
    "uvloop", "asyncio_dgram", "pathlib", "io", "secrets", "concurrent",
}  # fmt: skip
CORES = (
    "security/noise.py",
    "security/channel.py",
    "security/replay.py",
    "netstack/runtime/policy.py",
    "netstack/rpc/frames.py",
    "netstack/rpc/dedup.py",
    "netstack/rpc/schema.py",
    "netstack/transport/*.py",
    "netstack/transport/congestion/*.py",
    "netstack/arq/*.py",
    "netstack/delivery/*.py",
    "netstack/presets/jitter.py",
    "netstack/presets/rtp.py",
    "netstack/tunnel/address.py",
    "raftd/*.py",
    "ddp/schedules/*.py",
    "ddp/call.py",
    "ddp/elements.py",
    "ddp/engine.py",
    "ddp/execution.py",
    "ddp/frames.py",
    "ddp/membership.py",
    "ddp/messages.py",
    "ddp/operation.py",
    "ddp/recorder.py",
    "ddp/verifiable.py",
    "ddp/training/asynchronous.py",
    "ddp/training/autograd.py",
    "ddp/training/buckets.py",
    "ddp/training/elastic.py",
    "ddp/training/functional.py",
    "ddp/training/grid.py",
    "ddp/training/order.py",
    "ddp/training/pipeline.py",
    "ddp/training/schedule.py",
    "ddp/training/stale.py",
    "ddp/roofline/coherence.py",
    "ddp/roofline/divergence.py",
    "ddp/roofline/model.py",
    "mapreduce/store/model.py",
    "mapreduce/store/blocks.py",
    "mapreduce/store/placement.py",
    "mapreduce/store/healing.py",
    "mapreduce/graph/graphs.py",
    "mapreduce/graph/fusion.py",
    "mapreduce/graph/scheduler.py",
    "mapreduce/graph/states.py",
    "mapreduce/graph/drawing.py",
    "dht/torrent/*.py",
    "cluster/node.py",
    "dht/chord/*.py",
    "mapreduce/master_core.py",
    "mapreduce/worker_core.py",
    "mapreduce/job_state.py",
    "mapreduce/placement.py",
    "mapreduce/late.py",
    "mapreduce/policy.py",
    "mapreduce/outputs.py",
    "mapreduce/keys.py",
)
# The shells that live beside the cores: these may touch the world.
SHELLS = {
    "netstack/transport/host.py",
    "netstack/transport/peer.py",
    "netstack/transport/qlog_file.py",
    "netstack/arq/shell.py",
    "netstack/arq/__main__.py",
    "netstack/delivery/__main__.py",
    "netstack/delivery/shell.py",
    "raftd/replica.py",
    "raftd/__main__.py",
    "raftd/server.py",
    "raftd/client.py",
    "raftd/leader_seeker.py",
    "raftd/config.py",
    "dht/chord/peers.py",
    "dht/chord/member.py",
    "dht/chord/recursion.py",
    "dht/chord/keeper.py",
    "dht/chord/repair.py",
    "dht/chord/writer.py",
    "dht/torrent/__main__.py",
    "dht/torrent/chord_ring.py",
    "dht/torrent/creation.py",
    "dht/torrent/http.py",
    "dht/torrent/journal.py",
    "dht/torrent/link.py",
    "dht/torrent/netlink.py",
    "dht/torrent/peer.py",
    "dht/torrent/pieces.py",
    "dht/torrent/roles.py",
    "dht/torrent/session.py",
    "dht/torrent/simulation.py",
    "dht/torrent/storage.py",
    "dht/torrent/tracker_client.py",
    "dht/torrent/tracker_server.py",
}


def sources() -> list[Path]:
    return sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))


def imports(path: Path, *, at_run_time: bool = False) -> Iterator[tuple[str, int]]:
    """Modules that a file imports; with `at_run_time`, not those under TYPE_CHECKING."""
    tree = ast.parse(path.read_text(), str(path))
    skipped: set[ast.AST] = set()
    if at_run_time:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                skipped.update(child for body in node.body for child in ast.walk(body))
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            assert node.module is not None
            yield node.module, node.lineno


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def cores() -> list[Path]:
    found = {p for pattern in CORES for p in ROOT.glob(pattern)}
    return sorted(p for p in found if relative(p) not in SHELLS)


@pytest.mark.parametrize("path", sources(), ids=relative)
def test_imports_run_one_way(path):
    package = relative(path).split("/")[0]
    looks_inside = relative(path).startswith(LOOK_INSIDE)
    for module, line in imports(path):
        top = module.split(".")[0]
        if top not in PACKAGES or top == package:
            continue
        at = f"{relative(path)}:{line}: {package} -> {module}"
        assert top in MAY_IMPORT[package], at
        if top in SERVICES and not looks_inside:
            assert module.endswith(".client"), f"{at}: of a service, only a client is open"


@pytest.mark.parametrize("path", sorted((ROOT / "netstack").rglob("*.py")), ids=relative)
def test_layers_of_netstack_stand_on_one_another(path):
    parts = relative(path).split("/")
    if parts[1] not in NETSTACK_LAYERS:
        return
    rank = NETSTACK_LAYERS.index(parts[1])
    for module, line in imports(path):
        layer = module.split(".")[1] if module.startswith("netstack.") else None
        if layer in NETSTACK_LAYERS:
            assert NETSTACK_LAYERS.index(layer) <= rank, f"{relative(path)}:{line}: {module}"


@pytest.mark.parametrize("path", cores(), ids=relative)
def test_cores_do_no_io(path):
    for module, line in imports(path, at_run_time=True):
        assert module.split(".")[0] not in CORE_BANNED, f"{relative(path)}:{line}: imports {module}"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"open", "input", "print"}, f"{relative(path)}:{node.lineno}"


def test_the_list_of_cores_is_not_empty():
    names = {relative(path) for path in cores()}
    assert {
        "raftd/core.py",
        "mapreduce/store/healing.py",
        "netstack/transport/connection.py",
        "security/channel.py",
    } <= names


@pytest.mark.parametrize("path", sources(), ids=relative)
def test_functions_fit_on_a_screen(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            assert length <= FUNCTION_LINES_MAX, (
                f"{relative(path)}:{node.lineno}: {node.name} has {length} lines"
            )


@pytest.mark.parametrize("path", sources(), ids=relative)
def test_files_are_one_idea(path):
    lines = path.read_text().count("\n")
    assert lines <= FILE_LINES_MAX, f"{relative(path)} has {lines} lines"


@pytest.mark.parametrize("path", sources(), ids=relative)
def test_every_file_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text())), f"{relative(path)} has no head comment"


def test_no_orphan_modules():
    """Each module is imported by another, or is an entry point."""
    modules = {relative(p).removesuffix(".py").replace("/", "."): p for p in sources()}
    imported: set[str] = set()
    everything = [*sources(), *(ROOT / "tests").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]
    for path in everything:
        in_tests = relative(path).startswith("tests/")
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                name = node.value.partition(":")[0]  # module, or module:attribute
                names = [name] if name in modules else []
            # A module that only its own test imports is still an orphan, unless it is for tests.
            imported.update(n for n in names if not in_tests or "simulation" in n)
    entries = {m for m in modules if m.endswith("__main__")}
    packages = {m for m in modules if m.endswith("__init__")}
    orphans = set(modules) - imported - entries - packages
    assert not orphans, f"imported by nothing: {sorted(orphans)}"


def test_no_leftovers():
    for path in sources():
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for word in ("TODO", "FIXME", "XXX", "NotImplementedError"):
                assert word not in line, f"{relative(path)}:{number}: {word}"
