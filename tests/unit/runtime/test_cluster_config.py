"""`cluster.toml`: what it says comes back as written, and each mistake in it has a sentence."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from datetime import UTC
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netstack.runtime.config import (
    NODE_NAME,
    OPERATORS,
    SUITES,
    ClusterConfig,
    ConfigError,
    NodeConfig,
)

EXAMPLES = settings(deadline=None, database=None, max_examples=100)

TEXT = """
[cluster]
name = "test"
id = "6f1c0a9b2d3e4f50"
suite = "ChaChaPoly"
base_port = 7500

[raft]
heartbeat_ms = 50
power_cut = true

[[node]]
name = "n1"
service = "raft"
host = "127.0.0.2"
port = 7501

[[node]]
name = "n2"
service = "dht"
port = 7502
"""


@pytest.fixture
def load(tmp_path):
    """Loads a file of this text."""

    def load(text):
        path = tmp_path / "cluster.toml"
        path.write_text(text, encoding="utf-8")
        return ClusterConfig.load(path)

    return load


class TestAFile:
    def test_says_it_all(self, load, tmp_path):
        assert load(TEXT) == ClusterConfig(
            name="test",
            id="6f1c0a9b2d3e4f50",
            suite="ChaChaPoly",
            base_port=7500,
            nodes=(
                NodeConfig("n1", "raft", "127.0.0.2", 7501),
                NodeConfig("n2", "dht", "127.0.0.1", 7502),
            ),
            settings={"raft": {"heartbeat_ms": 50, "power_cut": True}},
            home=tmp_path,
        )

    def test_needs_no_more_than_an_id(self, load):
        config = load('[cluster]\nid = "x"')
        assert (config.name, config.suite, config.base_port) == ("ring", "AESGCM", 7400)
        assert config.nodes == ()
        assert config.settings == {}

    def test_knows_its_nodes_by_name_and_service(self, load):
        config = load(TEXT)
        assert config.node("n2").address == ("127.0.0.1", 7502)
        assert config.of_service("raft") == (config.node("n1"),)
        assert config.of_service("ddp") == ()

    def test_names_its_nodes_when_it_is_asked_for_another(self, load):
        with pytest.raises(ConfigError) as caught:
            load(TEXT).node("n3")
        sentence = "there is no node 'n3' in this cluster; its nodes are: n1, n2"
        assert str(caught.value) == sentence
        with pytest.raises(ConfigError, match="its nodes are: none"):
            load('[cluster]\nid = "x"').node("n1")


def without(line):
    return "\n".join(kept for kept in TEXT.splitlines() if kept != line)


def with_line(line, after):
    return TEXT.replace(after, f"{after}\n{line}", 1)


def instead(old, new):
    assert old in TEXT
    return TEXT.replace(old, new, 1)


PORTS = "node[1].port must be between 1 and 65535, not"
NUMBER = "cluster.base_port should be int, not"
MISTAKES = {
    "no id": (without('id = "6f1c0a9b2d3e4f50"'), "cluster.id is missing"),
    "no cluster": ("[raft]\nheartbeat_ms = 50", "the table [cluster] is missing"),
    "cluster is no table": ("cluster = 3", "the table [cluster] is missing"),
    "id is a number": (
        instead('"6f1c0a9b2d3e4f50"', "6"),
        "cluster.id should be str, not 6",
    ),
    "name is a list": (instead('"test"', "[]"), "cluster.name should be str, not []"),
    "suite": (
        instead("ChaChaPoly", "ROT13"),
        "cluster.suite must be one of AESGCM, ChaChaPoly, not 'ROT13'",
    ),
    "base port is text": (instead("7500", '"7500"'), f"{NUMBER} '7500'"),
    "base port is true": (instead("7500", "true"), f"{NUMBER} True"),
    "no name": (without('name = "n1"'), "node[0].name is missing"),
    "no service": (without('service = "dht"'), "node[1].service is missing"),
    "no port": (without("port = 7502"), "node[1].port is missing"),
    "port is text": (instead("7502", '"7502"'), "node[1].port should be int, not '7502'"),
    "port 0": (instead("7502", "0"), f"{PORTS} 0"),
    "port 65536": (instead("7502", "65536"), f"{PORTS} 65536"),
    "host is a number": (instead('"127.0.0.2"', "127"), "node[0].host should be str, not 127"),
    "two of a name": (instead('"n2"', '"n1"'), "two nodes are named 'n1'"),
    "two at an address": (
        instead("port = 7502", 'port = 7501\nhost = "127.0.0.2"'),
        "n2 and n1 share port 7501",
    ),
}


class TestAMistake:
    @pytest.mark.parametrize("mistake", MISTAKES)
    def test_is_told_in_one_sentence_with_file_and_key(self, load, mistake, tmp_path):
        text, sentence = MISTAKES[mistake]
        with pytest.raises(ConfigError) as caught:
            load(text)
        assert str(caught.value) == f"{tmp_path}/cluster.toml: {sentence}"

    def test_of_ports_is_none_on_two_hosts(self, load):
        assert len(load(instead("7502", "7501")).nodes) == 2

    @pytest.mark.parametrize(
        ("line", "after", "key"),
        [
            ('siute = "AESGCM"', "[cluster]", "siute"),
            ('hots = "10.0.0.1"', 'name = "n2"', "hots"),
            ("", "", "nodes"),
        ],
        ids=["in cluster", "in a node", "at the top"],
    )
    def test_in_the_name_of_a_key_is_told(self, load, line, after, key):
        text = with_line(line, after) if line else "nodes = 3\n" + TEXT
        with pytest.raises(ConfigError, match=key):
            load(text)

    def test_in_the_form_of_node_is_told(self, load):
        with pytest.raises(ConfigError, match="node"):
            load('node = 3\n[cluster]\nid = "x"')

    def test_of_one_bracket_instead_of_two_is_told_as_such(self, load):
        with pytest.raises(ConfigError, match=r"\[\[node\]\]"):
            load('[cluster]\nid = "x"\n[node]\nname = "n1"\nservice = "raft"\nport = 7401')

    def test_of_a_file_that_is_not_there_says_what_makes_it(self, tmp_path):
        path = tmp_path / "cluster.toml"
        with pytest.raises(ConfigError, match=r"\.toml does not exist; `ring up` makes it"):
            ClusterConfig.load(path)

    def test_of_a_file_that_is_no_file_is_told(self, tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            ClusterConfig.load(tmp_path)

    def test_of_bytes_that_are_no_text_is_told(self, tmp_path):
        (tmp_path / "cluster.toml").write_bytes(b'[cluster]\nid = "\xff"')
        with pytest.raises(ConfigError, match=r"cluster\.toml cannot be read"):
            ClusterConfig.load(tmp_path / "cluster.toml")

    def test_of_form_is_told_with_its_line(self, load):
        with pytest.raises(ConfigError, match=r"cluster\.toml is not TOML: .*line 2"):
            load('[cluster]\nid =\nname = "x"')


plain_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False),
        st.datetimes(),
        st.datetimes(timezones=st.just(UTC)),
        st.dates(),
        st.times(),
        plain_text,
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain_text, inner, max_size=3),
    max_leaves=5,
)
keys = st.from_regex(r"[a-z_]{1,12}", fullmatch=True) | plain_text
services = keys.filter(lambda key: key not in ("cluster", "node"))


node_names = st.from_regex(NODE_NAME, fullmatch=True).filter(lambda name: name not in OPERATORS)


def configs(text):
    nodes = st.lists(
        st.builds(NodeConfig, node_names, text, text, st.integers(1, 65535)),
        max_size=4,
        unique_by=(lambda node: node.name, lambda node: node.port),
    )
    return st.builds(
        ClusterConfig,
        name=text,
        id=text,
        suite=st.sampled_from(SUITES),
        base_port=st.integers(0, 65534),
        nodes=nodes.map(tuple),
        settings=st.dictionaries(services, st.dictionaries(keys, values, max_size=3), max_size=3),
        home=st.just(Path("/home")),
    )


class TestADump:
    @EXAMPLES
    @given(configs(plain_text))
    def test_is_read_back_as_what_was_written(self, config):
        assert ClusterConfig.parse(tomllib.loads(config.dump()), config.home) == config

    def test_is_read_back_with_characters_beyond_the_first_plane(self, load):
        config = replace(load(TEXT), name="\N{ROCKET}")
        assert load(config.dump()) == config

    def test_is_read_back_with_a_table_in_a_table(self, load):
        config = load(TEXT + "\n[raft.limits]\nkeys = 5\n")
        assert config.settings["raft"]["limits"] == {"keys": 5}
        assert load(config.dump()) == config

    def test_is_read_back_with_infinity(self, load):
        config = load(TEXT + "\n[dht]\nttl_s = inf\n")
        assert load(config.dump()) == config

    def test_is_stable(self, load):
        once = load(TEXT).dump()
        assert load(once).dump() == once

    def test_says_who_reads_it(self, load):
        assert load(TEXT).dump().startswith("# Written by `ring up`; daemons read it")
