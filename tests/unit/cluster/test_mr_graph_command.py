"""What `ring mr graph` says of files that hold no graph: whose fault it is, and where."""

from __future__ import annotations

import pytest

from cluster.cli import mr_graph
from cluster.errors import Usage


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("def (", r"cannot be imported: SyntaxError: invalid syntax"),
        ("x = 1\ny = x / 0", r"cannot be imported: ZeroDivisionError: .*, at line 2"),
        ("import sys\nsys.exit(3)", r"cannot be imported: SystemExit: 3, at line 2"),
        ("def g():\n    return {}[1]", r":g makes no graph: KeyError: 1, at line 2"),
        ("h = 1", r"there is no 'g' in"),
    ],
)
def test_a_file_that_holds_no_graph_is_its_writers_fault(tmp_path, body, says):
    (tmp_path / "mine.py").write_text(body)
    with pytest.raises(Usage, match=says):
        mr_graph._load(f"{tmp_path}/mine.py:g")


@pytest.mark.parametrize("what", ["mine.py", "gone.py:g"])
def test_what_is_no_file_and_name_is_told_how_to_write_it(what):
    with pytest.raises(Usage, match=r"write FILE\.py:name"):
        mr_graph._load(what)
