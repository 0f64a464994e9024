"""The handshake patterns of the Noise specification (§7.4, §7.5 and, deferred, §18.1), as data.

    NAME   pre-message of the initiator | of the responder | message | message | …

Messages alternate, the initiator's first. A token is a public key that is sent (`e`, `s`) or a
Diffie-Hellman between two of them (`ee`, `es`, `se`, `ss`: the initiator's key first). In the
names the letters say how each side's static key gets across: None, Known before, Xmitted,
Immediately; a `1` defers that side's authentication by one message. Channels here use XX and IK;
the others make the engine answerable to all public vectors.
"""

from __future__ import annotations

from typing import Final

_TABLE: Final = """
N     | s | e es
K   s | s | e es ss
X     | s | e es s ss

NN    |   | e | e ee
NK    | s | e es | e ee
NX    |   | e | e ee s es
KN  s |   | e | e ee se
KK  s | s | e es ss | e ee se
KX  s |   | e | e ee se s es
XN    |   | e | e ee | s se
XK    | s | e es | e ee | s se
XX    |   | e | e ee s es | s se
IN    |   | e s | e ee se
IK    | s | e es s ss | e ee se
IX    |   | e s | e ee se s es

NK1     | s | e | e ee es
NX1     |   | e | e ee s | es
X1N     |   | e | e ee | s | se
X1K     | s | e es | e ee | s | se
XK1     | s | e | e ee es | s se
X1K1    | s | e | e ee es | s | se
X1X     |   | e | e ee s es | s | se
XX1     |   | e | e ee s | es s se
X1X1    |   | e | e ee s | es s | se
K1N   s |   | e | e ee | se
K1K   s | s | e es | e ee | se
KK1   s | s | e | e ee se es
K1K1  s | s | e | e ee es | se
K1X   s |   | e | e ee s es | se
KX1   s |   | e | e ee se s | es
K1X1  s |   | e | e ee s | se es
I1N     |   | e s | e ee | se
I1K     | s | e es s | e ee | se
IK1     | s | e s | e ee se es
I1K1    | s | e s | e ee es | se
I1X     |   | e s | e ee s es | se
IX1     |   | e s | e ee se s | es
I1X1    |   | e s | e ee s | se es
"""

Tokens = tuple[str, ...]


def _parse(line: str) -> tuple[str, tuple[Tokens, ...]]:
    name, _, rest = line.partition(" ")
    return name, tuple(tuple(part.split()) for part in rest.split("|"))


# name -> (initiator's pre-message, responder's pre-message, message, …)
PATTERNS: Final[dict[str, tuple[Tokens, ...]]] = dict(
    _parse(line) for line in _TABLE.splitlines() if line
)
