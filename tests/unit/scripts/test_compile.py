"""What the twins are made of is known whole: a change anywhere in it means to compile again."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "compile.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("compile_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_module_has_one_twin_and_all_there_are_exist(script):
    listed = [path for group in script.GROUPS.values() for path in group]
    assert len(listed) == len(set(listed))
    assert [path for path in listed if not (script.ROOT / path).is_file()] == []


def test_no_constant_is_a_bare_tuple_of_floats(script):
    """mypyc takes one for not set, when it is read; `Final[tuple[float, ...]]` is read well."""
    found = []
    for path in script.digests():
        for node in ast.parse((script.ROOT / path).read_text()).body:
            bare = isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "Final"
            items = getattr(node.value, "elts", []) if bare else []
            if items and all(type(getattr(item, "value", 0)) is float for item in items):
                found.append(f"{path}: {ast.unparse(node)}")
    assert found == []


def test_constants_of_others_count(script):
    """`BASE_MTU` of a module without a twin is written into those that have one."""
    assert "netstack/transport/config.py" not in script.GROUPS["transport"]
    assert script.digests().keys() >= {"netstack/transport/config.py", "raftd/options.py"}


def test_imports_of_both_forms_are_followed(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "ROOT", tmp_path)
    for name, text in {
        "a": "import town.b\nfrom town import c\nimport os\n",
        "b": "from town.d import X\n",
        "c": "",
        "d": "X = 1\n",
        "e": "",
    }.items():
        (tmp_path / "town").mkdir(exist_ok=True)
        (tmp_path / "town" / f"{name}.py").write_text(text)
    monkeypatch.setattr(script, "GROUPS", {"town": ["town/a.py"]})
    before = script.digests()
    assert list(before) == [f"town/{name}.py" for name in "abcd"]
    (tmp_path / "town" / "d.py").write_text("X = 2\n")
    assert script.digests() != before


def test_it_is_said_when_nothing_can_be_compiled(script, monkeypatch, capsys):
    monkeypatch.setattr(script, "up_to_date", lambda: False)
    monkeypatch.setattr(script.shutil, "which", lambda name: None)
    monkeypatch.setattr(script.sys, "argv", ["compile.py"])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 2
    assert "apt-get install gcc python3-dev" in capsys.readouterr().err
