"""Commands as jobs, by the conventions of Hadoop streaming (and of madoop's tests)."""

from __future__ import annotations

import os
import stat
import sys

import pytest
from mr_kit import counted, lines, parts, run, text

from mapreduce.errors import BadJob, JobFailed
from mapreduce.job import Job
from mapreduce.streaming import check_properties


def script(folder, name, body):
    path = folder / name
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def stream(tmp_path, data=b"", **more):
    (tmp_path / "in put.txt").write_bytes(data)  # a path with a space
    more.setdefault("mapper", "cat")
    job = Job.stream(inputs=[str(tmp_path / "in put.txt")], output=str(tmp_path / "out"), **more)
    return run(job)


WORDS = "awk '{for (i = 1; i <= NF; i++) print $i \"\\t1\"}'"
SUMS = "awk -F '\\t' '{n[$1] += $2} END {for (w in n) print w \"\\t\" n[w]}'"


@pytest.mark.parametrize("combiner", ["", SUMS])
def test_word_count(tmp_path, combiner):
    data = text(3).decode(errors="ignore").encode()
    stream(tmp_path, data, mapper=WORDS, combiner=combiner, reducer=SUMS, split_bytes=2000)
    assert lines(tmp_path / "out") == counted(data)


def test_reducers_get_sorted_lines_without_marks(tmp_path):
    stream(tmp_path, b"b\t2\na\t1\nb\t1\n", reducer="cat", reduces=1)
    assert parts(tmp_path / "out") == [b"a\t1\nb\t2\nb\t1\n"]


def test_a_line_without_a_tab_is_a_key_without_value(tmp_path):
    stream(tmp_path, b"b\na\t\n", reduces=1)
    assert parts(tmp_path / "out") == [b"a\t\nb\n"]


def test_no_reduces_is_the_mappers_output_as_it_is(tmp_path):
    stream(tmp_path, b"b x\na\tb\tc\n", reducer="NONE")
    assert parts(tmp_path / "out") == [b"b x\na\tb\tc\n"]


def test_empty_input(tmp_path):
    stream(tmp_path, b"", reducer="wc -l", reduces=1)
    assert parts(tmp_path / "out") == [b"0\n"]


def test_counters_and_status_on_stderr(tmp_path):
    body = "echo reporter:counter:g,c one,2 >&2; echo reporter:status:half >&2; echo hello >&2; cat"
    outcome = stream(tmp_path, b"a\n", mapper=script(tmp_path, "m.sh", body))
    assert outcome.counters["g"] == {"c one": 2}


def test_a_command_that_fails_is_named(tmp_path):
    with pytest.raises(JobFailed, match="ended with status 3"):
        stream(tmp_path, b"a\n", mapper=script(tmp_path, "m.sh", "cat; exit 3"))


def test_unless_its_status_does_not_matter(tmp_path):
    properties = {"stream.non.zero.exit.is.failure": "false"}
    stream(tmp_path, b"a\n", mapper=script(tmp_path, "m.sh", "cat; exit 3"), properties=properties)
    assert lines(tmp_path / "out") == [b"a"]


def test_a_command_that_is_not_there_is_named(tmp_path):
    with pytest.raises(JobFailed, match="no-such-command"):
        stream(tmp_path, b"a\n", mapper="no-such-command")


def test_a_command_may_stop_reading(tmp_path):
    stream(tmp_path, b"a\n" * 200_000, mapper="head -n 1", reducer="cat", reduces=1)
    assert parts(tmp_path / "out") == [b"a\n"]


def test_the_environment(tmp_path):
    body = (
        'cat > /dev/null; echo "$mapreduce_map_input_file|$mapreduce_task_partition|$MINE|$my_own"'
    )
    stream(
        tmp_path, b"a\n", mapper=script(tmp_path, "m.sh", body), environment={"MINE": "x"},
        properties={"my.own": "y"}, reducer="NONE",
    )  # fmt: skip
    assert parts(tmp_path / "out") == [f"{tmp_path}/in put.txt|0|x|y\n".encode()]


def test_other_separators_and_more_key_fields(tmp_path):
    properties = {
        "stream.map.output.field.separator": ".",
        "stream.num.map.output.key.fields": "2",
    }
    stream(tmp_path, b"b.1.x\na.2.y\na.1.z\n", properties=properties, reduces=1)
    assert parts(tmp_path / "out") == [b"a.1.z\na.2.y\nb.1.x\n"]


def test_a_partitioner_is_a_command(tmp_path):
    partitioner = script(tmp_path, "p.sh", "while read k; do echo $(( k % $1 )); done")
    stream(tmp_path, b"1\n2\n3\n4\n", partitioner=partitioner, reduces=2)
    assert parts(tmp_path / "out") == [b"2\n4\n", b"1\n3\n"]


def test_a_partitioner_that_writes_nonsense_is_named(tmp_path):
    with pytest.raises(JobFailed, match="no part of 2"):
        stream(tmp_path, b"1\n", partitioner=script(tmp_path, "p.sh", "echo x"), reduces=2)


def test_partition_by_the_first_fields(tmp_path):
    properties = {
        "stream.num.map.output.key.fields": "2",
        "mapreduce.partition.keypartitioner.options": "-k1,1",
    }
    stream(tmp_path, b"a\t1\tx\na\t2\tx\na\t3\tx\na\t4\tx\n", properties=properties, reduces=4)
    assert sorted(map(len, parts(tmp_path / "out"))) == [0, 0, 0, 24]


def test_properties_that_would_change_the_result_are_refused():
    check_properties({"mapreduce.job.name": "x", "my.own": "y"})
    with pytest.raises(BadJob, match="is not honoured"):
        check_properties({"mapreduce.partition.keycomparator.options": "-k2,2nr"})


@pytest.mark.parametrize("commands", [{"mapper": ""}, {"mapper": "'"}])
def test_a_mapper_that_is_no_command(tmp_path, commands):
    with pytest.raises(BadJob, match=r"needs a mapper|is no command"):
        stream(tmp_path, b"a", **commands)


# -- the folder of an attempt


def test_files_are_in_the_folder_of_the_attempt_by_their_name_or_another(tmp_path):
    (tmp_path / "a.txt").write_text("first\n")
    (tmp_path / "b.txt").write_text("second\n")
    mapper = script(tmp_path, "m.sh", 'cat > /dev/null; cat a.txt "other name.txt"; pwd')
    files = [str(tmp_path / "a.txt"), f"{tmp_path}/b.txt#other name.txt", mapper]
    here = os.getcwd()
    stream(tmp_path, b"x\n", mapper="m.sh", files=files, reducer="NONE")
    first, second, folder = parts(tmp_path / "out")[0].splitlines()
    assert (first, second) == (b"first", b"second")
    assert folder != here.encode()
    assert os.getcwd() == here  # and who runs a job here is where he was


def test_a_file_that_is_not_there_is_a_clear_error(tmp_path):
    with pytest.raises(BadJob, match=r"the file .*nowhere\.sh does not exist"):
        stream(tmp_path, b"x\n", files=[str(tmp_path / "nowhere.sh")])


def test_two_files_of_one_name_are_a_clear_error(tmp_path):
    (tmp_path / "deep").mkdir()
    paths = [tmp_path / "a.txt", tmp_path / "deep" / "a.txt"]
    for path in paths:
        path.touch()
    first, second = map(str, paths)
    with pytest.raises(BadJob, match=r"two files are called a\.txt"):
        stream(tmp_path, b"x\n", files=[first, second])
    stream(tmp_path, b"x\n", files=[first, f"{second}#b.txt", first])


def test_a_command_named_by_its_path_from_here_is_found_from_there(tmp_path, monkeypatch):
    script(tmp_path, "m.sh", "sed s/x/y/")
    monkeypatch.chdir(tmp_path)
    stream(tmp_path, b"x\n", mapper="./m.sh", reducer="NONE")
    assert parts(tmp_path / "out") == [b"y\n"]


def test_what_a_job_changes_of_the_process_that_runs_it_is_put_back(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", ["", *sys.path])
    before = (os.getcwd(), dict(os.environ), list(sys.path))
    stream(tmp_path, b"x\n", environment={"MINE": "x"})
    assert (os.getcwd(), dict(os.environ), list(sys.path)) == before


# -- who is to blame


def test_a_command_that_fails_far_behind_what_it_was_given_blames_no_group(tmp_path):
    """It has read one line; how many it was given says what a pipe holds, and of no group."""
    data = b"".join(b"%06d\n" % n for n in range(50_000))
    reducer = script(tmp_path, "r.sh", "head -n 1 > /dev/null; sleep 0.2; exit 7")
    with pytest.raises(JobFailed, match="status 7") as caught:
        stream(tmp_path, data, reducer=reducer, reduces=1, on_error="skip")
    assert {failure["record"] for failure in caught.value.failures} == {0}


def test_the_failure_of_a_command_shows_its_last_words_and_nothing_of_ours(tmp_path):
    with pytest.raises(JobFailed) as caught:
        stream(tmp_path, b"x\n", mapper="bash -c 'exit 3'")
    assert caught.value.failures[-1]["traceback"] == ""
