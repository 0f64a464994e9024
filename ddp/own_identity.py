"""The identity of one rank in a cluster: whoever may read the authority's key may add a rank."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from security import keystore
from security.errors import KeystoreError
from security.identity import Identity


def own_identity(home: Path, name: str, service: str) -> Identity:
    """That of an earlier life, or a new one; raises KeystoreError."""
    with contextlib.suppress(KeystoreError):
        return keystore.load_identity(home, name)
    authority = keystore.load_authority(home)
    keystore.save_identity(
        home, authority.issue(name, service, now=time.time(), entropy=os.urandom)
    )
    return keystore.load_identity(home, name)
