"""Files that grow while they are shown: each line once, whatever was read before and when."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.cli.logs import _Tails

PIECES = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(("x", "y\n", "\n", "é"))))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PIECES, st.integers(1, 5))
def test_each_ended_line_comes_once_and_in_order_however_it_was_written(tmp_path, pieces, every):
    files = {name: tmp_path / name for name in "ab"}
    for path in files.values():
        path.write_bytes(b"")
    tails = _Tails(files)
    shown = dict.fromkeys("ab", "")
    for i, (name, text) in enumerate(pieces):
        with files[name].open("a") as file:
            file.write(text)
        if i % every == 0:
            for of, line in tails.lines():
                shown[of] += line + "\n"
    for of, line in tails.lines():
        shown[of] += line + "\n"
    for of, words in tails.last_words():
        shown[of] += words
    assert shown == {name: path.read_text() for name, path in files.items()}


def test_a_file_that_comes_later_is_shown_from_its_beginning(tmp_path):
    tails = _Tails({"n1": tmp_path / "n1"})
    assert list(tails.lines()) == []
    (tmp_path / "n1").write_text("first\n")
    assert list(tails.lines()) == [("n1", "first")]
    assert list(tails.lines()) == []
