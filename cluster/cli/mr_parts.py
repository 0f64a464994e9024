"""`ring mr`: the parts that exist before the rest of it."""

from __future__ import annotations

import typer

from cluster.cli import mr_fs, mr_graph

app = typer.Typer(no_args_is_help=True, help="Jobs, files and graphs of computations.")
app.add_typer(mr_fs.app, name="fs")
app.command("graph")(mr_graph.graph)
