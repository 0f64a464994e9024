"""Where replicas go, and what the healer wants done: pure functions, exact."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapreduce.store import healing, model
from mapreduce.store.errors import BadPath
from mapreduce.store.healing import CLONES_A_SERVER_MAX, CLONES_MAX, Clone, Unlist, plan
from mapreduce.store.model import WRITING, ChunkRecord, Entry, ServerRecord, clean_path, entry_key
from mapreduce.store.placement import LOAD_BYTES, RESERVE_BYTES, choose
from mapreduce.store.settings import ChunkSettings
from netstack.runtime.config import ConfigError

GIB = 1 << 30


def server(name, free=100 * GIB, load=0):
    return ServerRecord(name, "127.0.0.1", 1, "chunks", free, load)


def cluster(*names):
    return {name: server(name) for name in names}


def record(index, *nodes, replicas=2, length=100):
    return ChunkRecord(model.chunk_id("f" * 16, index), 1, length, replicas, nodes)


RNG = random.Random(0)


class TestPlacement:
    def test_no_two_replicas_share_a_server(self):
        chosen = choose(cluster("a", "b", "c").values(), 3, need_bytes=1, rng=RNG)
        assert sorted(s.name for s in chosen) == ["a", "b", "c"]

    def test_fewer_if_there_are_fewer(self):
        assert len(choose(cluster("a").values(), 3, need_bytes=1, rng=RNG)) == 1

    def test_a_full_server_is_not_chosen(self):
        servers = [server("a", free=RESERVE_BYTES + 10), server("b")]
        assert [s.name for s in choose(servers, 2, need_bytes=11, rng=RNG)] == ["b"]
        assert len(choose(servers, 2, need_bytes=10, rng=RNG)) == 2

    @pytest.mark.parametrize(
        ("other", "share"),
        [
            (server("b", free=300 * GIB), 0.75),
            (server("b", load=LOAD_BYTES), 1 / 3),
            (server("b", free=200 * GIB, load=LOAD_BYTES), 0.5),
        ],
    )
    def test_by_free_space_and_load(self, other, share):
        rng = random.Random(1)
        counts = Counter(
            choose([server("a"), other], 1, need_bytes=1, rng=rng)[0].name for _ in range(2000)
        )
        assert counts["b"] / 2000 == pytest.approx(share, abs=0.05)


class TestHealing:
    def test_nothing_is_done_about_what_is_well(self):
        assert plan([record(0, "a", "b")], cluster("a", "b", "c"), (), RNG) == []

    def test_a_dead_server_s_chunk_is_cloned(self):
        [action] = plan([record(0, "a", "b")], cluster("b", "c"), (), RNG)
        assert action == Clone(record(0, "a", "b"), "c")

    def test_the_worst_off_go_first(self):
        records = [record(0, "a", "b", "x", replicas=3), record(1, "a", "x", "y", replicas=3)]
        actions = plan(records, cluster("a", "b", "c"), (), RNG)
        assert [action.record.chunk[-1] for action in actions] == ["1", "1", "0"]

    def test_clones_are_limited_in_all_and_a_server(self):
        records = [record(i, "a", "dead") for i in range(100)]
        actions = plan(records, cluster("a", "b"), (), RNG)
        assert Counter(action.target for action in actions) == {"b": CLONES_A_SERVER_MAX}
        many = plan(records, cluster(*"abcdefghi"), (), RNG)
        assert len(many) == CLONES_MAX
        under_way = {(action.record.chunk, action.target) for action in many}
        assert plan(records, cluster(*"abcdefghi"), under_way, RNG) == []

    def test_a_clone_under_way_is_not_begun_again(self):
        one = record(0, "a", "dead")
        assert plan([one], cluster("a", "b", "c"), {(one.chunk, "b")}, RNG) == []

    def test_what_nobody_has_cannot_be_cloned(self):
        one = record(0, "x", "y")
        assert plan([one], cluster("a", "b"), (), RNG) == []
        assert healing.health([one], cluster("a")) == healing.Health(1, 1, 1)

    def test_what_is_being_written_is_left_alone(self):
        assert plan([record(0, "a", "dead", length=WRITING)], cluster("a", "b"), (), RNG) == []

    def test_one_too_many_is_taken_off_the_fullest(self):
        servers = cluster("a", "b", "c")
        servers["b"] = server("b", free=GIB)
        [action] = plan([record(0, "a", "b", "c")], servers, (), RNG)
        assert action == Unlist(record(0, "a", "b", "c"), "b", ("a", "c"))

    def test_the_dead_are_taken_off_once_there_are_enough(self):
        [action] = plan([record(0, "a", "b", "dead")], cluster("a", "b", "c"), (), RNG)
        assert (action.node, action.holders) == ("dead", ("a", "b"))
        assert not [
            a for a in plan([record(0, "a", "dead")], cluster("a"), (), RNG) if type(a) is Unlist
        ]

    @settings(max_examples=200, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.sets(st.sampled_from("abcdef"), min_size=1, max_size=5), st.integers(1, 3)
            ),
            max_size=6,
        ),
        st.sets(st.sampled_from("abcdef")),
        st.integers(0, 1000),
    )
    def test_repeated_it_heals_and_never_lets_go_of_the_last_living(self, chunks, live, seed):
        """As if each step succeeded: a fixed point is reached, and it is what was wanted."""
        rng = random.Random(seed)
        servers = cluster(*live)
        records = [
            record(i, *sorted(nodes), replicas=replicas)
            for i, (nodes, replicas) in enumerate(chunks)
        ]
        begun = [set(r.nodes) & live for r in records]
        for _ in range(60):
            actions = plan(records, servers, (), rng)
            if not actions:
                break
            for action in actions:
                i = int(action.record.chunk[-8:], 16)
                nodes = set(records[i].nodes)
                if isinstance(action, Clone):
                    assert nodes & live, "cloned from nobody"
                    nodes.add(action.target)
                else:
                    assert set(action.holders) <= nodes & live - {action.node}
                    assert len(action.holders) >= records[i].replicas
                    nodes.discard(action.node)
                records[i] = replace(records[i], nodes=model.packed_names(nodes))
        assert plan(records, servers, (), rng) == []
        for before, after in zip(begun, records, strict=True):
            alive = set(after.nodes) & live
            if before:
                assert len(alive) == min(after.replicas, len(live))
                if len(live) >= after.replicas:
                    assert set(after.nodes) == alive
            else:
                assert not alive


class TestNames:
    def test_children_share_a_prefix_that_nobody_else_has(self):
        prefix = model.children_prefix("a")
        assert entry_key("a/b").startswith(prefix)
        for other in ("a", "ab", "a/b/c", "b/a", "a\x01b"):
            assert not entry_key(other).startswith(prefix)

    def test_paths_are_cleaned(self):
        assert clean_path("/a/b/") == "a/b"
        assert clean_path("/") == ""

    @pytest.mark.parametrize("path", ["a//b", "a/../b", "./a", "a\0b", "x" * 1025])
    def test_what_cannot_be_a_path_is_refused(self, path):
        with pytest.raises(BadPath):
            clean_path(path)

    def test_records_are_what_they_were(self):
        one = record(7, "b", "a")
        assert ChunkRecord.unpack(model.chunk_key(one.chunk), one.pack()) == one
        entry = Entry("f" * 16, 10, 65536, 2, 1.5)
        assert Entry.unpack(entry.pack()) == entry
        assert ServerRecord.unpack(b"fs/s/c1", server("c1").pack()) == server("c1")


class TestSettings:
    @pytest.mark.parametrize(
        ("table", "told"),
        [
            ({"chunk_bytes": 100_000}, "a multiple of 65536"),
            ({"replicas": 0}, "1 or more"),
            ({"replicas": "2"}, "should be a int"),
            ({"sizes": 1}, "no setting chunks.sizes"),
        ],
    )
    def test_mistakes_are_sentences(self, table, told):
        with pytest.raises(ConfigError, match=told):
            ChunkSettings.from_table(table)
