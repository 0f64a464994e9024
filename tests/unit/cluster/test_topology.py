"""What `ring up` decides before anything runs: names, ports, keys, and the file that says so."""

from __future__ import annotations

import os
import socket
import tomllib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import topology
from cluster.control import PATH_BYTES_MAX, socket_path
from cluster.errors import Conflict, NotRunning, Usage
from netstack.runtime.config import ClusterConfig, ConfigError, NodeConfig
from raftd.config import RaftSettings
from security import keystore


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def base_port(monkeypatch):
    """Ten free ports in a row for nodes, and none of those that a real cluster would take."""
    for base in range(20_000 + os.getpid() % 1000 * 10, 32_000, 20):
        try:
            topology.refuse_taken_ports(nodes_at(*range(base + 1, base + 11)))
        except Conflict:
            continue
        monkeypatch.setattr(topology, "BASE_PORT", base)
        return base
    raise AssertionError("no free ports")


def nodes_at(*ports: int) -> tuple[NodeConfig, ...]:
    return tuple(
        NodeConfig(f"n{i}", "raft", "127.0.0.1", port) for i, port in enumerate(ports, start=1)
    )


def create(home, count: int = 3, *, any_port: bool = False) -> ClusterConfig:
    return topology.create(home, {"raft": count}, any_port=any_port, power_cut=False)


def resize(home, config: ClusterConfig, count: int) -> ClusterConfig:
    """As `ring up` does it: the file, and what is left of those that go."""
    resized = topology.resize(home, config, "raft", count)
    topology.write(home, resized)
    for name in {node.name for node in config.nodes} - {node.name for node in resized.nodes}:
        topology.forget_node(home, name)
    return resized


def places(config: ClusterConfig) -> dict[str, int]:
    return {node.name: node.port for node in config.nodes}


class HeldPort:
    """A UDP port that this process holds."""

    def __init__(self, port: int = 0) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]

    def __enter__(self) -> HeldPort:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


# -- what is typed


@pytest.mark.parametrize(
    ("words", "counts"),
    [([], {}), (["raft=5"], {"raft": 5}), (["raft=1"], {"raft": 1}), (["raft=99"], {"raft": 99})],
)
def test_counts_are_read(words, counts):
    assert topology.parse_counts(words) == counts


@pytest.mark.parametrize(
    "word", ["raft", "raft=", "raft=x", "raft=-1", "raft=3.0", "mars=3", "=3", "3", "", "raft=3=3"]
)
def test_what_is_no_count_is_told_how_one_is_written(word):
    with pytest.raises(Usage, match="write raft=N") as refused:
        topology.parse_counts(["raft=3", word])
    assert repr(word) in str(refused.value)


@pytest.mark.parametrize("word", ["raft=0", "raft=100", "raft=1000000000000"])
def test_a_count_out_of_range_is_told_the_range(word):
    with pytest.raises(Usage, match="between 1 and 99 nodes"):
        topology.parse_counts([word])


@pytest.mark.parametrize("word", ["raft=²", "raft=③"])
def test_a_digit_that_is_no_number_is_refused_like_any_other_word(word):
    with pytest.raises(Usage, match="write raft=N"):
        topology.parse_counts([word])


def test_the_home_is_where_the_environment_says_or_here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RING_HOME", "elsewhere")
    assert topology.home() == tmp_path / "elsewhere"
    monkeypatch.delenv("RING_HOME")
    assert topology.home() == tmp_path / ".ring"


def test_two_homes_have_two_sockets_however_long_their_paths(tmp_path):
    deep = tmp_path / ("x" * 60) / ("y" * 60)
    paths = [socket_path(home) for home in (tmp_path, deep / "a", deep / "b")]
    assert len(set(paths)) == 3
    assert all(len(os.fsencode(path)) <= PATH_BYTES_MAX for path in paths)


# -- a new cluster


def test_a_new_cluster_is_three_raft_nodes_on_the_ports_after_the_base(home, base_port):
    config = topology.create(home, {}, any_port=False, power_cut=False)
    assert places(config) == {f"n{i}": base_port + i for i in (1, 2, 3)}
    assert config.settings["raft"]["bootstrap"] == ["n1", "n2", "n3"]
    assert topology.load(home) == config


def test_everybody_has_a_key_that_only_the_owner_reads_and_a_certificate_of_this_cluster(home):
    config = create(home, any_port=True)
    authority = topology.authority_of(home)
    for name in ("n1", "n2", "n3", "cli", "supervisor"):
        identity = keystore.load_identity(home, name)
        identity.certificate.verify_directly_issued_by(authority.certificate)
        assert (home / "nodes" / name / "key").stat().st_mode & 0o777 == 0o600
    assert (home / "ca" / "key").stat().st_mode & 0o777 == 0o600
    assert {*topology.certified(config)} == {"n1", "n2", "n3", "cli", "supervisor"}


def test_any_port_means_ports_that_are_free_and_all_different(home, base_port):
    with HeldPort(base_port + 1):
        config = create(home, 5, any_port=True)
    assert len(set(places(config).values())) == 5
    topology.refuse_taken_ports(config.nodes)


def test_a_taken_port_is_a_conflict_that_names_the_holder_and_leaves_nothing(home, base_port):
    with HeldPort(base_port + 2), pytest.raises(Conflict) as refused:
        create(home)
    text = str(refused.value)
    port = f"UDP port {base_port + 2} on 127.0.0.1"
    assert f"n2: {port} is taken by pid {os.getpid()} (" in text
    assert "--any-port" in text
    assert refused.value.status == 5
    assert not home.exists()


def test_an_address_that_is_not_here_is_not_called_taken():
    node = NodeConfig("n1", "raft", "192.0.2.1", 20_001)
    with pytest.raises((Usage, Conflict)) as refused:
        topology.refuse_taken_ports((node,))
    assert "192.0.2.1" in str(refused.value)
    assert "taken" not in str(refused.value)


# -- growing and shrinking


def test_growing_adds_the_next_names_on_the_next_free_ports_and_touches_nobody(home, base_port):
    config = create(home)
    before = (home / "cluster.toml").read_text()
    grown = topology.resize(home, config, "raft", 5)
    assert (home / "cluster.toml").read_text() == before
    assert grown.nodes[:3] == config.nodes
    assert [(n.name, n.port) for n in grown.nodes[3:]] == [
        ("n4", base_port + 4),
        ("n5", base_port + 5),
    ]
    assert grown.settings["raft"]["bootstrap"] == ["n1", "n2", "n3"]
    for name in ("n4", "n5"):
        assert keystore.load_identity(home, name).service == "raft"


def test_shrinking_takes_the_last_and_leaves_the_others_as_they_are(home):
    config = create(home, 5, any_port=True)
    assert topology.resize(home, config, "raft", 3).nodes == config.nodes[:3]


def test_growing_steps_over_the_ports_that_others_in_the_cluster_have(home, base_port):
    config = create(home, 1)
    moved = replace(config, nodes=(*config.nodes, *nodes_at(0, base_port + 3)[1:]))
    grown = topology.resize(home, moved, "raft", 4)
    assert places(grown) == {
        "n1": base_port + 1,
        "n2": base_port + 3,
        "n3": base_port + 2,
        "n4": base_port + 4,
    }


def test_a_newcomer_whose_port_is_taken_is_a_conflict_and_gets_no_key(home, base_port):
    config = create(home)
    with HeldPort(base_port + 5), pytest.raises(Conflict, match=f"n5: UDP port {base_port + 5}"):
        topology.resize(home, config, "raft", 5)
    assert not (home / "nodes" / "n4").exists()
    assert not (home / "nodes" / "n5").exists()


def test_a_name_that_comes_back_is_another_node_with_other_keys_and_no_data(home):
    config = resize(home, create(home, 3, any_port=True), 4)
    first = keystore.load_identity(home, "n4")
    (home / "nodes/n4/data").mkdir()
    (home / "nodes/n4/data/log").write_text("of the first n4")
    config = resize(home, resize(home, config, 3), 4)
    second = keystore.load_identity(home, "n4")
    assert first.serial != second.serial
    assert first.signing_key.public_key() != second.signing_key.public_key()
    assert not (home / "nodes/n4/data").exists()
    assert len(config.nodes) == 4


@settings(deadline=None, database=None, max_examples=15)
@given(counts=st.lists(st.integers(1, 7), max_size=6))
def test_however_it_grows_and_shrinks_who_stays_keeps_name_and_port(tmp_path_factory, counts):
    home = tmp_path_factory.mktemp("sizes") / "home"
    config = create(home, 3, any_port=True)
    for count in counts:
        resized = resize(home, config, count)
        common = places(resized).keys() & places(config).keys()
        assert {n: places(resized)[n] for n in common} == {n: places(config)[n] for n in common}
        assert len(resized.nodes) == len(places(resized)) == count
        assert len(set(places(resized).values())) == count
        assert topology.load(home) == resized
        config = resized


@pytest.mark.parametrize(("first", "later"), [(3, 2), (3, 1), (5, 3)])
def test_a_cluster_shrunk_below_its_first_size_has_settings_that_its_nodes_take(home, first, later):
    config = resize(home, create(home, first, any_port=True), later)
    settings_of_a_node = RaftSettings.of(topology.load(home))
    assert set(settings_of_a_node.bootstrap.voters) <= set(places(config))


# -- the file


@settings(deadline=None, database=None, max_examples=150)
@given(
    name=st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=20),
    bootstrap=st.lists(st.sampled_from(["n1", "n2", "ñ", '"']), max_size=3),
    milliseconds=st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    flag=st.booleans(),
)
def test_what_is_written_is_read_again(name, bootstrap, milliseconds, flag):
    config = ClusterConfig(
        name=name,
        id="6f1c",
        suite="AESGCM",
        base_port=7400,
        nodes=nodes_at(7401, 7402),
        settings={
            "raft": {"bootstrap": bootstrap, "heartbeat_ms": milliseconds, "lease_reads": flag}
        },
    )
    data = tomllib.loads(config.dump())
    assert data["cluster"]["name"] == name
    assert data["raft"] == config.settings["raft"]
    assert [node["port"] for node in data["node"]] == [7401, 7402]


def test_a_home_of_any_name_gives_a_file_that_can_be_read(tmp_path):
    home = tmp_path / "ring-🚀"
    config = create(home, any_port=True)
    assert topology.load(home) == config


HEAD = '[cluster]\nid = "6f1c"\n'
NODE = '[[node]]\nname = "n1"\nservice = "raft"\nport = 7401\n'
TWIN = NODE.replace("7401", "7402")
BESIDE = NODE.replace("n1", "n2")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", r"the table \[cluster\] is missing"),
        ("cluster = 3\n", r"the table \[cluster\] is missing"),
        ("[cluster\n", "is not TOML"),
        ("[cluster]\n", "cluster.id is missing"),
        ("[cluster]\nid = 7\n", "cluster.id should be str, not 7"),
        (HEAD + 'suite = "ROT13"\n', "must be one of AESGCM, ChaChaPoly, not 'ROT13'"),
        (HEAD + 'base_port = "7400"\n', "cluster.base_port should be int, not '7400'"),
        (HEAD + "base_port = true\n", "cluster.base_port should be int, not True"),
        (HEAD + NODE.replace("7401", "0"), r"node\[0\].port must be between 1 and 65535, not 0"),
        (HEAD + NODE.replace("7401", "65536"), "between 1 and 65535, not 65536"),
        (HEAD + NODE.replace("7401", '"x"'), r"node\[0\].port should be int, not 'x'"),
        (HEAD + NODE.replace("port = 7401", ""), r"node\[0\].port is missing"),
        (HEAD + NODE.replace('name = "n1"', ""), r"node\[0\].name is missing"),
        (HEAD + NODE + TWIN, "two nodes are named 'n1'"),
        (HEAD + NODE + BESIDE, "n2 and n1 share port 7401"),
        (HEAD + "[node]\nport = 1\n", r"node should be a list: write \[\[node\]\]"),
        ("node = 5\n" + HEAD, "node should be a list"),
    ],
)
def test_each_mistake_in_the_file_is_a_sentence_that_names_the_key(home, text, sentence):
    home.mkdir()
    (home / "cluster.toml").write_text(text)
    with pytest.raises(Usage, match=sentence) as refused:
        topology.load(home)
    # Several lines would be several errors for whoever reads them.
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"[cluster]\nid = '\xc3\x28'\n"])
def test_a_file_that_is_no_text_is_a_sentence_too(home, content):
    home.mkdir()
    (home / "cluster.toml").write_bytes(content)
    with pytest.raises(Usage, match="cannot be read"):
        topology.load(home)


def test_a_folder_in_the_place_of_the_file_is_a_sentence_too(home):
    (home / "cluster.toml").mkdir(parents=True)
    with pytest.raises(Usage, match="cannot be read"):
        topology.load(home)


def test_no_file_says_what_makes_one(home):
    with pytest.raises(NotRunning, match=r"there is no cluster in .*; `ring up` makes one"):
        topology.load(home)


@pytest.mark.parametrize("name", ["", "..", "../../n1", "a/b", "supervisor", "cli"])
def test_a_name_that_is_no_folder_of_its_own_is_refused(tmp_path, name):
    (tmp_path / "cluster.toml").write_text(HEAD + NODE.replace("n1", name))
    with pytest.raises(ConfigError, match="name"):
        ClusterConfig.load(tmp_path / "cluster.toml")


@pytest.mark.parametrize("port", [-5, 65_535, 70_000])
def test_a_base_port_without_room_behind_it_is_refused(tmp_path, port):
    (tmp_path / "cluster.toml").write_text(f"{HEAD}base_port = {port}\n{NODE}")
    with pytest.raises(ConfigError, match="base_port"):
        ClusterConfig.load(tmp_path / "cluster.toml")


# -- keys that are gone


def test_a_key_that_others_can_read_is_refused_with_the_cure(home):
    config = create(home, any_port=True)
    (home / "nodes/n2/key").chmod(0o640)
    with pytest.raises(Usage, match=r"do: chmod 600 .*/nodes/n2/key"):
        topology.renew_due_certificates(home, config)


@pytest.mark.parametrize("name", ["n2", "supervisor", "cli"])
def test_a_lost_key_is_told_with_the_command_that_makes_a_new_one(home, name):
    config = create(home, any_port=True)
    (home / "nodes" / name / "key").unlink()
    with pytest.raises(Usage, match=f"ring cert reissue {name}"):
        topology.renew_due_certificates(home, config)


def test_reissued_keys_are_accepted_again(home):
    config = create(home, any_port=True)
    (home / "nodes/n2/key").unlink()
    topology.reissue(home, config, "n2")
    assert topology.renew_due_certificates(home, config) == []
