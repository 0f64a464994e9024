"""`ring` as it is typed: help, what it says to mistakes, and its exit statuses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from cli_kit import ROOT, commands, lines_told_to_type, parse

from cluster import topology
from cluster.errors import Usage
from cluster.quantities import probability, seconds
from cluster.selectors import WORDS


@pytest.fixture
def home(tmp_path):
    """A cluster that was set up and does not run."""
    folder = tmp_path / "home"
    topology.create(folder, {"raft": 3}, any_port=True, power_cut=False)
    return folder


def write_events(home, node: str, *events: dict, torn: str = "") -> None:
    head = {"v": 1, "seq": 0, "mono": 0.0, "node": node}
    lines = [json.dumps({**head, **event}) for event in events]
    (home / "nodes" / node / "events.jsonl").write_text("\n".join([*lines, torn]))


# -- help and documentation


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_each_command_has_help(ring, words):
    done = ring(*words, "--help")
    assert (done.status, done.err) == (0, "")
    usage, *text = [line.strip() for line in done.out.splitlines() if line.strip()]
    assert f"ring {' '.join(words)} " in f"{usage} "
    assert text[0][0].isalpha(), "it does not say what it does"


def test_what_no_command_needs_is_not_imported_before_one_is_asked_for():
    code = "import sys, cluster.__main__; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    services = {"raftd", "dht", "mapreduce", "ddp"}
    heavy = {"numpy", "fsspec", "prometheus_client", "uvloop", *services}
    assert "cluster" in done.stdout.split(), done
    assert not heavy & set(done.stdout.split())


def test_without_a_command_there_is_help_and_the_status_of_a_mistake(ring):
    done = ring()
    assert done.status == 2
    assert "70 a bug of ours" in done.out + done.err
    assert ring("--help").status == 0


@pytest.mark.parametrize("word", sorted({words[0] for words in commands()}))
def test_each_command_stands_in_the_chapter(word):
    table = (ROOT / "cluster/README.md").read_text().partition("## Commands")[2]
    assert re.search(rf"(ring |`|\|){word}\b", table)


@pytest.mark.parametrize("words", [w for w in commands() if w[0] in ("net", "cert")], ids=" ".join)
def test_each_fault_of_the_net_and_each_act_on_certificates_stands_in_the_chapter(words):
    told = [
        line.partition("` |")[0].replace("\\|", " ").split()
        for line in (ROOT / "cluster/README.md").read_text().splitlines()
        if line.startswith(f"| `ring {words[0]} ")
    ]
    assert any(set(words[1:]) <= set(row) for row in told)


@pytest.mark.parametrize("line", lines_told_to_type())
def test_what_people_are_told_to_type_can_be_typed(line):
    parse(line.replace("--lease ID", "--lease 7"))


def test_enough_lines_that_people_are_told_to_type_were_found():
    found = lines_told_to_type()
    assert {"kill leader", "up", "kv put greeting hello", "cert reissue n1"} <= set(found)
    assert len(found) > 25


def test_a_clock_can_be_put_back_as_the_help_says():
    assert parse("clock skew n1 -500ms")["time"] == "-500ms"


# -- mistakes


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("nonsense", "nonsense"),
        ("kv nonsense", "nonsense"),
        ("kill", "TARGET"),
        ("kill n1 n2", "n2"),
        ("kv put k", "VALUE"),
        ("up --frobnicate", "--frobnicate"),
        ("up --wait soon", "--wait"),
        ("kv lease grant 0", "TTL"),
        ("disk error n1 0", "NTH"),
        ("clock rate n1 100", "FACTOR"),
        ("sim register --seed x", "--seed"),
    ],
)
def test_what_is_typed_wrong_is_status_2_and_names_the_word(ring, line, word):
    done = ring(*line.split())
    assert done.status == 2
    assert done.out == ""
    assert word.lower() in done.err.lower()
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("up raft=x", ["'raft=x'", "write raft=N"]),
        ("up mars=3", ["'mars=3'", "write raft=N"]),
        ("up raft=0", ["between 1 and 99"]),
        ("sim mars", ["'mars'", "there are: register"]),
        ("bench mars", ["'mars'", "raft"]),
        ("crashpoint n1", ["n1 at which line?", "ring crashpoint"]),
        ("crashpoint n1 mars", ["'mars'", "ring crashpoint"]),
    ],
)
def test_what_makes_no_sense_is_one_line_that_says_what_would(ring, line, words):
    ring(*line.split()).refused(2, *words)


@pytest.mark.parametrize("words", ["kill", "pause", "net loss", "disk full", "clock rate"])
def test_the_help_of_whom_a_fault_befalls_names_every_selector(ring, words):
    told = " ".join(ring(*words.split(), "--help").out.replace("│", " ").split())
    for word in (*WORDS, "n1,n3", "raft:*"):
        assert word in told


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("logs n9", ["'n9'", "n1, n2, n3, supervisor"]),
        ("events n9", ["'n9'", "n1, n2, n3, supervisor"]),
        ("repair n9", ["'n9'", "n1, n2, n3"]),
        ("cert revoke n9", ["'n9'", "n1, n2, n3, cli, supervisor"]),
        ("cert renew n9", ["'n9'", "n1, n2, n3, cli, supervisor"]),
        ("kv txn --if nonsense", ["'nonsense'", "version:KEY=NUMBER"]),
        ("kv txn --if version:k=x", ["'version:k=x'", "version:KEY=NUMBER"]),
        ("kv txn --then jump", ["'jump'", "put KEY VALUE"]),
    ],
)
def test_an_unknown_name_or_form_is_answered_with_those_there_are(ring, home, line, words):
    ring(*line.split()).refused(2, *words)


@pytest.mark.parametrize(
    "line",
    [
        "up raft=²",
        "sim register --seeds 0",
        "kv txn --if version:k=²",
        "kv put \udcff v",
        "kv put k \udcff",
        "kv get \udcff",
    ],
)
def test_no_mistake_is_told_as_a_bug_of_ours(ring, home, line):
    ring(*line.split()).refused(2)


@pytest.mark.parametrize("line", ["up", "down", "down --wipe", "kill n1"])
def test_a_home_that_is_a_file_is_a_mistake_that_is_told(ring, tmp_path, line):
    (tmp_path / "home").write_text("not a folder")
    done = ring(*line.split())
    assert done.status in (2, 6)
    assert str(tmp_path / "home") in done.err
    assert "Traceback" not in done.err


def test_an_error_that_nobody_thought_of_is_a_bug_of_ours_with_its_traceback(ring, monkeypatch):
    def broken() -> None:
        raise ZeroDivisionError("a test's")

    monkeypatch.setattr(topology, "home", broken)
    done = ring("status")
    assert (done.status, done.out) == (70, "")
    assert "a bug of ours: ZeroDivisionError: a test's" in done.err
    assert "Traceback" in done.err


# -- times and probabilities


@pytest.mark.parametrize(
    ("text", "wanted"), [("20ms", 0.02), ("1.5s", 1.5), ("300us", 0.0003), ("0s", 0.0), ("2 s", 2)]
)
def test_a_time_has_its_unit(text, wanted):
    assert seconds(text) == pytest.approx(wanted)


@pytest.mark.parametrize("text", ["20", "", "s", "ms", "fast", "1.5.2s", "20 minutes", "1m"])
def test_a_time_without_unit_or_number_is_refused_with_how_to_write_it(text):
    with pytest.raises(Usage, match="with its unit, as in 20ms"):
        seconds(text)


@pytest.mark.parametrize("text", ["infs", "nanms", "1e999s"])
def test_a_time_that_is_no_finite_number_is_refused_like_any_other_word(text):
    with pytest.raises(Usage):
        seconds(text)


@pytest.mark.parametrize(
    ("text", "wanted"), [("0", 0.0), ("1", 1.0), ("0.25", 0.25), ("25%", 0.25), ("100%", 1.0)]
)
def test_a_probability_is_a_fraction_or_a_percentage(text, wanted):
    assert probability(text) == pytest.approx(wanted)


@pytest.mark.parametrize("text", ["", "%", "-0.1", "1.01", "101%", "nan", "inf", "often", "1/2"])
def test_what_is_no_probability_is_refused_with_how_to_write_it(text):
    with pytest.raises(Usage, match=r"write 0\.1 or 10%"):
        probability(text)


# -- without a cluster


ASK_THE_SUPERVISOR = [
    *("status", "kill n1", "pause n1", "resume all", "restart n1", "metrics"),
    *("net show", "net heal", "net isolate n1", "net loss n1 10%", "net partition n1"),
    *("disk full n1", "disk heal", "clock heal", "clock skew n1 30s"),
]
READ_THE_FILE = [
    *("logs", "events", "kv get k", "kv put k v", "kv watch k", "kv lease grant 5"),
    *("cert show", "cert renew", "cert revoke n1", "repair n1"),
]


@pytest.mark.parametrize("line", ASK_THE_SUPERVISOR)
def test_without_a_cluster_it_is_status_6_and_what_to_type(ring, tmp_path, line):
    ring(*line.split()).refused(6, "ring up", str(tmp_path / "home"))
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("line", ASK_THE_SUPERVISOR)
def test_with_a_cluster_that_does_not_run_it_is_the_same(ring, home, line):
    ring(*line.split()).refused(6, "ring up", str(home))


@pytest.mark.parametrize("line", READ_THE_FILE)
def test_without_a_cluster_its_file_is_missed_and_what_makes_it_is_told(ring, tmp_path, line):
    done = ring(*line.split())
    done.refused(done.status, "`ring up`", str(tmp_path / "home"))
    assert done.status in (2, 6)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("line", READ_THE_FILE)
def test_without_a_cluster_every_command_ends_with_the_same_status(ring, line):
    assert ring(*line.split()).status == 6


@pytest.mark.parametrize("line", ["kv get k --timeout 0.1", "kv put k v --timeout 0.1"])
def test_the_store_of_a_cluster_that_does_not_run_is_told_as_such(ring, home, line):
    ring(*line.split()).refused(6, "ring up")


def test_down_without_a_cluster_is_no_error(ring, tmp_path):
    done = ring("down")
    assert (done.status, done.out, done.err) == (0, "", "no cluster is running\n")
    assert not (tmp_path / "home").exists()


def test_wipe_deletes_a_cluster_that_does_not_run(ring, home):
    done = ring("down", "--wipe")
    assert done.status == 0
    assert not home.exists()


def test_wipe_deletes_no_folder_that_is_not_a_clusters(ring, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    ring("down", "--wipe").refused(2, "does not look like a cluster's folder", str(tmp_path))
    assert (tmp_path / "home" / "thesis.tex").read_text() == "years of work"


# -- up, before anything runs


def test_up_with_a_file_that_cannot_be_used_starts_nothing(ring, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home/cluster.toml").write_text("[cluster\n")
    ring("up").refused(2, "cluster.toml", "is not TOML")
    assert not (tmp_path / "home/run").exists()


def test_up_with_a_key_that_cannot_be_used_starts_nothing(ring, home):
    (home / "nodes/n2/key").write_text("garbage")
    (home / "nodes/n2/key").chmod(0o600)
    ring("up").refused(2, "nodes/n2/key")
    assert not (home / "run").exists()


def test_a_cluster_file_that_is_not_there_is_missed_by_its_name(ring, tmp_path):
    ring("up", "--config", "/does/not/exist").refused(2, "/does/not/exist")
    assert not (tmp_path / "home").exists()


def test_a_cluster_file_that_cannot_be_used_is_not_taken_over(ring, tmp_path):
    (tmp_path / "mine.toml").write_text("[cluster\n")
    ring("up", "--config", str(tmp_path / "mine.toml")).refused(2, "mine.toml", "is not TOML")
    assert not (tmp_path / "home/cluster.toml").exists()


# -- logs and events


def test_events_of_all_nodes_come_in_the_order_of_time(ring, home):
    write_events(home, "n1", {"kind": "a", "wall": 3.0}, {"kind": "b", "wall": 5.0})
    write_events(home, "n2", {"kind": "c", "wall": 4.0}, {"kind": "d", "wall": 1.0})
    done = ring("events", "--json")
    assert [json.loads(line)["kind"] for line in done.out.splitlines()] == ["d", "a", "c", "b"]
    assert (done.status, done.err) == (0, "")
    last = ring("events", "-n", "2").out.splitlines()
    assert [line.split()[1:3] for line in last] == [["n2", "c"], ["n1", "b"]]


def test_events_are_chosen_by_node_and_by_how_their_kind_begins(ring, home):
    write_events(home, "n1", {"kind": "raft.role", "wall": 1.0}, {"kind": "raft", "wall": 2.0})
    write_events(home, "n2", {"kind": "raft.role", "wall": 3.0}, {"kind": "disk", "wall": 4.0})
    of_n1 = ring("events", "n1", "--json", "--kind", "raft.")
    assert [json.loads(line)["wall"] for line in of_n1.out.splitlines()] == [1.0]
    of_all = ring("events", "--json", "--kind", "raft.")
    assert [json.loads(line)["wall"] for line in of_all.out.splitlines()] == [1.0, 3.0]


def test_a_line_that_kill_9_cut_short_is_left_out(ring, home):
    write_events(home, "n1", {"kind": "a", "wall": 1.0}, torn='{"v":1,"kind":"to')
    assert len(ring("events", "--json").out.splitlines()) == 1


def test_an_event_shows_its_fields_and_not_its_head(ring, home):
    write_events(home, "n1", {"kind": "raft.role", "wall": 0.25, "role": "leader", "term": 4})
    line = ring("events").out.rstrip()
    assert line.endswith("role=leader  term=4")
    assert ".250  n1  raft.role " in line


def test_what_daemons_printed_comes_with_their_names(ring, home):
    (home / "nodes/n1/output.log").write_text("first\nsecond\n")
    (home / "nodes/n3/output.log").write_text("third\n")
    done = ring("logs")
    assert done.out.splitlines() == ["n1 │ first", "n1 │ second", "n3 │ third"]
    assert ring("logs", "n3").out == "n3 │ third\n"


def test_the_last_words_of_a_daemon_are_shown_though_it_did_not_end_the_line(ring, home):
    (home / "nodes/n1/output.log").write_text("first\nSegmentation fault")
    assert ring("logs").out.splitlines() == ["n1 │ first", "n1 │ Segmentation fault"]


def test_a_reader_that_has_seen_enough_is_no_failure(home):
    write_events(home, "n1", *({"kind": "x" * 100, "wall": float(i)} for i in range(5000)))
    with subprocess.Popen(
        [sys.executable, "-m", "cluster", "events", "--json"],
        env={**os.environ, "RING_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as events:
        assert json.loads(events.stdout.readline())["wall"] == 0.0
        events.stdout.close()
        assert events.stderr.read() == ""
        assert events.wait(20) == 0


def test_colour_is_for_terminals_only(ring, home, monkeypatch):
    monkeypatch.delenv("NO_COLOR")
    (home / "nodes/n1/output.log").write_text("first\n")
    write_events(home, "n1", {"kind": "a", "wall": 1.0})
    for command in ("logs", "events", "cert show"):
        assert "\x1b" not in ring(*command.split()).out


def test_certificates_are_shown_to_people_and_to_programs(ring, home):
    rows = json.loads(ring("cert", "show", "--json").out)
    assert [row["name"] for row in rows] == ["n1", "n2", "n3", "cli", "supervisor"]
    assert {row["state"] for row in rows} == {"ok"}
    assert ring("cert", "revoke", "n2").status == 0
    rows = json.loads(ring("cert", "show", "--json").out)
    assert {row["name"] for row in rows if row["state"] == "revoked"} == {"n2"}
    ring("cert", "renew", "n2").refused(2, "ring cert reissue n2")
