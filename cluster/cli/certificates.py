"""`ring cert …`: who is who in the cluster, until when, and who is no longer trusted."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated

import typer

from cluster import render, topology
from cluster.control import Control, running
from cluster.errors import Usage
from security import keystore
from security.identity import is_revoked

app = typer.Typer(no_args_is_help=True, help="Certificates: show, renew, revoke.")

Name = Annotated[str, typer.Argument(help="A node, cli or supervisor.")]


@app.command()
def show(json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """A row a certificate."""
    home = topology.home()
    rows = []
    for name in topology.certified(topology.load(home)):
        identity = topology.identity_of(home, name)
        until = datetime.fromtimestamp(identity.expires_at, UTC)
        if is_revoked(identity.serial, identity.revocations):
            state = "revoked"
        elif identity.expires_at < time.time():
            state = "expired"
        else:
            state = "renew" if identity.renew_due(time.time()) else "ok"
        rows.append(
            (name, identity.service, f"{until:%Y-%m-%d %H:%M}", f"{identity.serial:x}", state)
        )
    columns = ("NAME", "SERVICE", "UNTIL (UTC)", "SERIAL", "STATE")
    if json:
        render.as_json(
            [
                dict(zip(("name", "service", "until", "serial", "state"), row, strict=True))
                for row in rows
            ]
        )
    else:
        render.table(columns, rows)


@app.command()
def renew(name: Annotated[str, typer.Argument(help="A name, or all.")] = "all") -> None:
    """New certificates for the same keys. A running cluster does so by itself when they are due."""
    home = topology.home()
    known = topology.certified(topology.load(home))
    names = known if name == "all" else [_known(name, known)]
    topology.renew(home, names)
    _tell()
    render.say(f"✓ renewed {', '.join(names)}")


@app.command()
def revoke(name: Name) -> None:
    """Trust the name's key no more, now: its connections end, and no new one is made."""
    home = topology.home()
    _known(name, topology.certified(topology.load(home)))
    authority = topology.authority_of(home)
    authority.revoke(topology.identity_of(home, name).serial, now=time.time())
    keystore.save_revocations(home, authority)
    _tell()
    render.say(f"✓ revoked {name}")
    render.say(f"try next   ring cert show  ·  ring cert reissue {name}")


@app.command()
def reissue(name: Name) -> None:
    """New keys and a new certificate, for a name whose old key was revoked or lost."""
    home = topology.home()
    config = topology.load(home)
    _known(name, topology.certified(config))
    topology.reissue(home, config, name)
    _tell()
    render.say(f"✓ {name} has new keys; a running node takes them at: ring restart {name}")


def _known(name: str, known: list[str]) -> str:
    if name not in known:
        raise Usage(f"there is no certificate of {name!r}; there are: {', '.join(known)}")
    return name


def _tell() -> None:
    """Have a running cluster read its certificates again."""
    home = topology.home()
    if running(home):
        with Control(home) as control:
            control.ask("trust")
