"""One page that needs nothing else: no network, no file beside it. Open it from anywhere."""

from __future__ import annotations

import html
import json
import string
from importlib import resources
from pathlib import Path
from typing import Any, Final

from cluster.report.data import load

NAME: Final = "report.html"
# In the order in which one builds on another.
SCRIPTS: Final = ("view.js", "bands.js", "plots.js", "tables.js", "main.js")


def write_report(folder: Path) -> Path:
    """Write report.html into the folder of a run; raises what `load` raises."""
    path = folder / NAME
    path.write_text(page(load(folder)), encoding="utf-8")
    return path


def page(data: dict[str, Any]) -> str:
    """The whole page. `data` is what data.load returns."""
    run, verdict = data["run"], data["verdict"]["verdict"]
    return string.Template(_asset("page.html")).substitute(
        title=html.escape(f"{verdict} · {run['scenario']} · seed {run['seed']}"),
        style=_asset("style.css"),
        script="\n".join(_asset(name) for name in SCRIPTS),
        data=_harmless(json.dumps(data, ensure_ascii=False, separators=(",", ":"))),
    )


def _asset(name: str) -> str:
    return (resources.files("cluster.report") / "assets" / name).read_text(encoding="utf-8")


def _harmless(text: str) -> str:
    """JSON that cannot end the element it stands in, whatever clients wrote into their values."""
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
