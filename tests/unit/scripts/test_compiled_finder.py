"""Compiled twins are served while the sources are unchanged, all or none, and never elsewhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "scripts"))
import compiled_finder


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with two modules and their twins; RING_PURE says nothing."""
    monkeypatch.setattr(compiled_finder, "HOME", str(tmp_path / "compiled"))
    monkeypatch.delenv("RING_PURE", raising=False)
    (tmp_path / "town").mkdir()
    (tmp_path / "compiled").mkdir()
    sources = {}
    for name in ("hall", "gate"):
        source = tmp_path / "town" / f"{name}.py"
        source.write_text(f"'''{name}'''\n")
        (tmp_path / "compiled" / f"{name}.so").touch()
        sources[f"town/{name}.py"] = compiled_finder.digest(str(source))
    modules = {f"town.{name}": f"{name}.so" for name in ("hall", "gate")}
    manifest = {"root": str(tmp_path), "modules": modules, "sources": sources}
    (tmp_path / "compiled" / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


def found(checkout, name="town.hall", folder=None):
    manifest = json.loads((checkout / "compiled" / "manifest.json").read_text())
    path = [str(folder or checkout / "town")]
    spec = compiled_finder.Finder(manifest).find_spec(name, path)
    return spec and spec.origin


def test_the_twin_is_served(checkout):
    assert found(checkout) == str(checkout / "compiled" / "hall.so")


def test_a_module_without_one_is_left_to_others(checkout):
    assert found(checkout, "town.square") is None


def test_one_changed_source_and_no_twin_is_served(checkout):
    (checkout / "town" / "gate.py").write_text("'''changed'''\n")
    assert found(checkout) is None


def test_one_missing_source_and_no_twin_is_served(checkout):
    (checkout / "town" / "gate.py").unlink()
    assert found(checkout) is None


def test_another_checkout_keeps_its_own_sources(checkout):
    assert found(checkout, folder=checkout / "elsewhere" / "town") is None


SAID = [("", True), ("0", True), ("1", False), ("yes", False)]


@pytest.mark.parametrize(("value", "served"), SAID)
def test_the_environment_decides(checkout, monkeypatch, value, served):
    monkeypatch.setenv("RING_PURE", value)
    assert (found(checkout) is not None) == served


@pytest.mark.parametrize("text", [None, "", "no json", "{}"])
def test_python_starts_whatever_the_manifest_is(checkout, monkeypatch, text):
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    manifest = checkout / "compiled" / "manifest.json"
    manifest.unlink()
    if text is not None:
        manifest.write_text(text)
    before = list(sys.meta_path)
    compiled_finder.install()
    assert sys.meta_path == before
